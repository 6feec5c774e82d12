"""The load of the benchmark: no saga is missing from the sample, and no waiting is hidden in it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from sqlalchemy import func, select

from benchmarks import load, orders
from benchmarks.errors import RunFailed
from benchmarks.load import Load, open_load
from benchmarks.options import Options
from benchmarks.parts import DEFINITIONS
from orchestrator.cli.publish import publishing
from orchestrator.composition import Client, load_definitions, open_client
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.settings import ROLES, Settings, load_settings
from orchestrator.tables import sagas
from tests.support.servers import SqliteDatabases
from tests.support.waiting import eventually
from tests.support.world import World

SAGA: Final = "place-order"


@pytest.fixture
def settings(nats: EmbeddedNats, tmp_path: Path) -> Settings:
    """Those of the benchmark, for the test's own servers."""
    urls = {f"{role}_database_url": SqliteDatabases(tmp_path)(role) for role in ROLES}
    return load_settings(data_dir=tmp_path, nats_url=nats.url, definitions=DEFINITIONS, **urls)


@pytest.fixture
async def world(settings: Settings, nats: EmbeddedNats, tmp_path: Path) -> AsyncIterator[World]:
    """Four databases; nothing runs yet."""
    definitions = load_definitions(settings)
    async with World(SqliteDatabases(tmp_path), nats.url, definitions=definitions) as world:
        await orders.seed(settings)
        yield world


@pytest.fixture
async def client(world: World, settings: Settings) -> AsyncIterator[Client]:
    """Whoever starts sagas."""
    async with open_client(settings) as client:
        await client.connect()
        yield client


def some_inputs(count: int) -> Any:
    return orders.inputs(Options(), "order", count)


async def accepted(world: World) -> int:
    """How many sagas there are."""
    [row] = await world.rows("orchestrator", select(func.count()).select_from(sagas))
    return int(row[0])


async def test_a_closed_loop_keeps_so_many_under_way_and_no_more(
    world: World, client: Client, settings: Settings
) -> None:
    advanced: list[int] = []
    async with open_load(client, settings.nats_url, SAGA, advanced.append) as loop:
        running = asyncio.create_task(loop.closed(some_inputs(10), 3))

        async def three_are_there() -> bool:
            return await accepted(world) == 3

        await eventually(three_are_there, "three sagas are under way")
        await asyncio.sleep(0.5)  # nothing runs, so nothing ends, so nothing begins
        assert await accepted(world) == 3
        await world.start(*ROLES)
        sample = await running
    assert (dict(sample.statuses), len(sample.latencies), sum(advanced)) == ({"completed": 10}, 10, 10)
    assert min(sample.latencies[:3]) >= 0.5
    assert sample.unheard == 0
    assert 0 < max(sample.latencies) <= sample.seconds


async def test_an_open_loop_counts_from_when_a_saga_should_have_come(
    world: World, client: Client, settings: Settings
) -> None:
    """The database takes nothing for a second: those that should have come meanwhile have waited, though they were not
    yet accepted (no coordinated omission).
    """
    await world.start(*ROLES)
    async with open_load(client, settings.nats_url, SAGA, lambda _: None) as loop:
        async with world.databases["orchestrator"].transaction():
            running = asyncio.create_task(loop.open(some_inputs(20), 50.0))
            await asyncio.sleep(1.0)
        sample = await running
    assert dict(sample.statuses) == {"completed": 20}
    late = [1.0 - number / 50 for number in range(20)]  # what each had waited already when the database was back
    for waited, latency in zip(sorted(late), sorted(sample.latencies), strict=True):
        assert latency > waited - 0.05


async def test_an_open_loop_starts_nothing_before_its_time(world: World, client: Client, settings: Settings) -> None:
    await world.start(*ROLES)
    async with open_load(client, settings.nats_url, SAGA, lambda _: None) as loop:
        sample = await loop.open(some_inputs(6), 10.0)
    assert sample.seconds >= 0.5
    assert len(sample.latencies) == 6


async def test_sagas_whose_end_nobody_heard_of_are_found_in_the_database(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "QUIET", 0.1)
    await world.start(*ROLES)
    async with publishing(client, ""):
        sample = await Load(client, SAGA, lambda _: None).closed(some_inputs(7), 4)  # nobody told it of events
    assert (dict(sample.statuses), len(sample.latencies), sample.unheard) == ({"completed": 7}, 7, 7)
    assert all(0 < latency <= sample.seconds + 0.1 for latency in sample.latencies)


async def test_a_run_in_which_nothing_ends_any_more_has_failed(
    client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "QUIET", 0.05)
    monkeypatch.setattr(load, "PATIENCE", 0.3)
    async with open_load(client, settings.nats_url, SAGA, lambda _: None) as loop:
        with pytest.raises(RunFailed, match=r"no saga has ended for 0\.3 s, and 5 are under way"):
            await loop.closed(some_inputs(5), 10)


@pytest.mark.parametrize("turns", range(3))
async def test_a_ctrl_c_that_comes_with_news_is_heard(world: World, client: Client, turns: int) -> None:
    """`asyncio.wait_for` of Python 3.11 would take the news, and lose the other: the run went on to its end."""
    loop = Load(client, SAGA, lambda _: None)
    running = asyncio.create_task(loop.closed(some_inputs(2), 2))

    async def both_are_known() -> bool:
        return len(loop._under_way) == 2

    await eventually(both_are_known, "both sagas are under way")
    await asyncio.sleep(0.1)  # it waits for news
    [(one,), _] = await world.rows("orchestrator", select(sagas.c.id))
    news = b'{"subject": "%s"}' % one.encode()
    await loop.hear(Msg(NatsClient(), subject=f"saga.event.{SAGA}.completed", data=news))
    assert len(loop.sample.latencies) == 1
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running}, timeout=5.0)
    assert running.cancelled()
