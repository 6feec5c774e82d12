"""History that is made of copies is as good as real: `saga verify` finds nothing in it, and a copy that waits goes on
when its signal comes. A run that was wrong is told from one that was right.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import pytest
from sqlalchemy import delete, func, insert, inspect, select

from benchmarks import history, orders
from benchmarks.history import AFTER_COPIES, ENDED, WAITING, Plan
from benchmarks.load import Sample
from benchmarks.options import Options
from benchmarks.parts import DEFINITIONS, Servers
from benchmarks.proof import prove, settle
from benchmarks.stages import Advance
from orchestrator.composition import load_definitions, open_client
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.events import Signalled
from orchestrator.settings import ROLES, Settings, load_settings
from orchestrator.tables import messaging, sagas
from participants.inventory.models import Reservation
from tests.support.servers import DatabaseUrls
from tests.support.world import World

ORIGINALS: Final = Plan(originals=3, copies=4)
WAITERS: Final = Plan(originals=2, copies=3)


@contextmanager
def stage(_description: str, _total: float | None) -> Iterator[Advance]:
    """Tells nobody."""
    yield lambda _: None


@pytest.fixture
def settings(database_urls: DatabaseUrls, nats: EmbeddedNats, tmp_path: Path) -> Settings:
    """Those of the benchmark, for the test's own servers."""
    urls = {f"{role}_database_url": database_urls(role) for role in ROLES}
    return load_settings(data_dir=tmp_path, nats_url=nats.url, definitions=DEFINITIONS, **urls)


@pytest.fixture
async def world(settings: Settings, database_urls: DatabaseUrls, nats: EmbeddedNats) -> AsyncIterator[World]:
    """All four roles at work, with the definitions of the benchmark."""
    async with World(database_urls, nats.url, definitions=load_definitions(settings)) as world:
        await orders.seed(settings)
        await world.start(*ROLES)
        yield world


async def make_history(world: World, settings: Settings, nats: EmbeddedNats, options: Options) -> None:
    """A few real sagas, and their copies. The roles are stopped for it."""
    servers = Servers(settings, nats, None)
    async with open_client(settings) as client:
        await client.connect()
        ended = await history.run_ended(options, servers, client, ORIGINALS.originals)
        waiting = await history.start_waiting(servers, client, WAITERS.originals)
        assert await settle(settings) == []
    await world.stop(*ROLES)
    made: list[int] = []
    await history.bring_up_books(servers, ORIGINALS)
    await history.copy(servers, ENDED, ORIGINALS, ended, made.append)
    await history.copy(servers, WAITING, WAITERS, waiting, made.append)
    assert sum(made) == 3 * 4 + 2 * 3


async def counts(world: World) -> dict[tuple[str, str], int]:
    """(definition, status) -> sagas"""
    query = select(sagas.c.definition, sagas.c.status, func.count().label("sagas"))
    query = query.group_by(sagas.c.definition, sagas.c.status)
    return {(row.definition, row.status): row.sagas for row in await world.rows("orchestrator", query)}


@pytest.mark.parametrize("steps", [None, 3], ids=["place-order", "chain"])
async def test_copies_are_sagas_that_verify_finds_nothing_wrong_with(
    world: World, settings: Settings, nats: EmbeddedNats, steps: int | None
) -> None:
    options = Options(steps=steps, refused=50.0, in_flight=10)
    await make_history(world, settings, nats, options)
    assert await counts(world) == {
        (options.definition, "completed"): ORIGINALS.sagas,
        ("waiting-order", "running"): WAITERS.sagas,
    }
    assert await world.findings() == []
    assert not [name for name in await tables(world) if name.startswith("bench")]


async def tables(world: World) -> list[str]:
    """The names of all tables in all databases."""
    names: list[str] = []
    for database in world.databases.values():
        async with database.reading() as connection:
            names += await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    return names


async def test_a_copy_is_looked_at_like_any_saga(world: World, settings: Settings, nats: EmbeddedNats) -> None:
    await make_history(world, settings, nats, Options(in_flight=10))
    table = Reservation.table
    [copy] = await world.rows(
        "inventory", select(func.max(table.c.reservation_id)).where(table.c.reservation_id < AFTER_COPIES)
    )
    await world.execute("inventory", delete(table).where(table.c.reservation_id == copy[0]))
    found = {(finding.check, finding.saga_id) for finding in await world.findings()}
    assert ("effects-match-outcome", copy[0]) in found


async def test_a_copy_that_waits_goes_on_when_its_signal_comes(
    world: World, settings: Settings, nats: EmbeddedNats
) -> None:
    await make_history(world, settings, nats, Options(in_flight=10))
    query = select(func.min(sagas.c.id)).where(sagas.c.status == "running")
    [row] = await world.rows("orchestrator", query)
    copy = cast(str, row[0])
    assert copy.startswith(WAITING)
    await world.start(*ROLES)
    decision = await world.desk().engine.tell(copy, Signalled("go-ahead", "done", {}, "the test"))
    assert decision.ignored is None
    assert await world.until_ended([copy]) == ["completed"]
    assert await world.findings() == []


# --- the proof -------------------------------------------------------------------------------------------------------


async def violations(settings: Settings, options: Options, **statuses: int) -> list[str]:
    """What is found of a run that has seen these ends."""
    proof = await prove(options, settings, Sample(statuses=Counter(statuses)), stage)
    return [finding.check for finding in proof.violations]


async def run_three(world: World) -> None:
    inputs = list(orders.inputs(Options(refused=34.0), "order", 3))
    assert await world.until_ended(await world.place(*inputs)) == ["completed", "completed", "compensated"]
    await world.stop(*ROLES)


async def test_a_run_is_right_when_as_many_were_refused_as_ordered(world: World, settings: Settings) -> None:
    await run_three(world)
    ordered = Options(orders=3, refused=34.0)
    assert await violations(settings, ordered, completed=2, compensated=1) == []
    assert await violations(settings, ordered, completed=3) == ["ends-as-ordered"]
    assert await violations(settings, ordered, completed=2) == ["ends-as-ordered"]
    assert await violations(settings, ordered, completed=1, compensated=1, stuck=1) == ["ends-as-ordered"]


async def test_what_is_left_in_an_outbox_is_found_also_while_sagas_wait(world: World, settings: Settings) -> None:
    await world.place(*orders.waiting_inputs(1), saga="waiting-order")
    await world.stop(*ROLES)
    ordered, left = Options(orders=1, waiting=1), {"message_id": "m-1", "subject": "saga.event.x", "body": "{}"}
    await world.execute("orchestrator", delete(messaging.outbox))
    assert await violations(settings, ordered, completed=1) == []
    later: dict[str, Any] = left | {"due_at": await _now(world)}
    await world.execute("orchestrator", insert(messaging.outbox).values(later))
    assert await violations(settings, ordered, completed=1) == ["outbox-is-empty"]


async def _now(world: World) -> Any:
    [row] = await world.rows("orchestrator", select(func.max(sagas.c.started_at)))
    return row[0]
