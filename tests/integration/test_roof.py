"""The roof does the work that it is the measure of: every step once, whatever comes twice, and a wrong run fails."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import asyncpg
import nats
import orjson
import psutil
import pytest

from benchmarks.roof import Roof, RoofFailed, measure
from benchmarks.roof.__main__ import main
from benchmarks.roof.checking import ROLES, check
from benchmarks.roof.schema import ADVANCE, CARRY_OUT, ORCHESTRATOR_TABLES, OUTBOX_TABLE, PARTICIPANT_TABLES
from benchmarks.roof.wire import PARTICIPANTS
from orchestrator.embedded.nats_server import EmbeddedNats
from tests.support.servers import Postgres, PostgresDatabases
from tests.support.waiting import eventually

NOTHING_TO_SEND: Final[tuple[list[str], list[str], list[bytes]]] = ([], [], [])
WORKER: Final = "benchmarks.roof.worker"


@pytest.fixture
def urls(postgres: Postgres) -> Iterator[dict[str, str]]:
    """Four empty databases."""
    databases = PostgresDatabases(postgres)
    yield {role: databases(role).replace("+asyncpg", "") for role in ("orchestrator", "order", "inventory", "payment")}
    databases.drop()


@pytest.fixture
async def orchestrator(urls: dict[str, str]) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the orchestrator's tables."""
    connection = await asyncpg.connect(urls["orchestrator"])
    await connection.execute(OUTBOX_TABLE)
    await connection.execute(ORCHESTRATOR_TABLES)
    yield connection
    await connection.close()


@pytest.fixture
async def participants(urls: dict[str, str]) -> AsyncIterator[list[asyncpg.Connection]]:
    """Connections to the participants' tables."""
    connections = [await asyncpg.connect(urls[participant]) for participant in PARTICIPANTS]
    for connection in connections:
        await connection.execute(OUTBOX_TABLE)
        await connection.execute(PARTICIPANT_TABLES)
    yield connections
    for connection in connections:
        await connection.close()


async def run(urls: dict[str, str], nats_url: str, *, steps: int, sagas: int, style: str = "bare") -> Roof:
    return await measure(urls=urls, nats_url=nats_url, steps=steps, sagas=sagas, in_flight=20, style=style)


@pytest.mark.parametrize("style", ["bare", "amends"])
async def test_it_is_measured_in_four_processes_and_leaves_nothing_behind(
    urls: dict[str, str], nats: EmbeddedNats, style: str
) -> None:
    roof = await run(urls, nats.url, steps=4, sagas=100, style=style)

    assert (roof.style, roof.steps, roof.sagas, roof.in_flight) == (style, 4, 100, 20)
    assert roof.sagas_per_second > 0
    assert 0 < roof.p50_ms <= roof.p99_ms
    assert roof.cpu_ms_per_saga.keys() == set(ROLES)
    assert [await _tables(url) for url in urls.values()] == [[], [], [], []]
    assert await _streams(nats.url) == []


async def test_a_process_that_dies_fails_the_run(urls: dict[str, str], nats: EmbeddedNats) -> None:
    running = asyncio.create_task(run(urls, nats.url, steps=3, sagas=1_000_000))

    async def payment() -> list[psutil.Process]:
        return [
            child
            for child in psutil.Process().children()
            if child.cmdline()[2:4] == ["benchmarks.roof.worker", "payment"]
        ]

    [process] = await eventually(payment, "there is a payment process")
    await eventually(lambda: _published(nats.url), "sagas are running")
    process.kill()

    with pytest.raises(RoofFailed, match=r"payment ended with status -9"):
        await running


async def test_a_command_that_comes_twice_has_one_effect(participants: list[asyncpg.Connection]) -> None:
    connection = participants[0]
    twice = (["a/0", "b/0", "a/0"], ["a", "b", "a"], [0, 0, 0], [7, 7, 7])
    for _ in range(2):
        await connection.execute(CARRY_OUT, *twice, *NOTHING_TO_SEND, [])

    assert await connection.fetchval("SELECT count(*) FROM roof_effects") == 2
    assert await connection.fetchval("SELECT amount FROM roof_accounts WHERE id = 7") == 2


async def test_a_reply_moves_its_saga_once_and_only_from_the_step_that_it_answers(
    orchestrator: asyncpg.Connection,
) -> None:
    async def hear(step: int) -> list[str]:
        rows = await orchestrator.fetch(ADVANCE, ["a"], [step], ["{}"], 2, [], [], *NOTHING_TO_SEND, [])
        return [row[0] for row in rows]

    await orchestrator.execute(ADVANCE, [], [], [], 2, ["a"], ["{}"], *NOTHING_TO_SEND, [])
    assert [await hear(step) for step in (1, 0, 0, 1, 1)] == [[], [], [], ["a"], []]
    assert await orchestrator.fetchval("SELECT count(*) FROM roof_saga_log") == 3


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE roof_accounts SET amount = amount + 1 WHERE id = 7",
        "DELETE FROM roof_effects",
        "INSERT INTO roof_outbox VALUES ('left', 'roof.reply', '')",
    ],
)
async def test_what_is_wrong_after_a_run_is_found(
    urls: dict[str, str],
    orchestrator: asyncpg.Connection,
    participants: list[asyncpg.Connection],
    damage: str,
) -> None:
    await orchestrator.execute(ADVANCE, [], [], [], 1, ["a"], ["{}"], *NOTHING_TO_SEND, [])
    await orchestrator.execute(ADVANCE, ["a"], [0], ["{}"], 1, [], [], *NOTHING_TO_SEND, [])
    await participants[0].execute(CARRY_OUT, ["a/0"], ["a"], [0], [7], *NOTHING_TO_SEND, [])
    await check(urls, steps=1, sagas=1)

    await participants[0].execute(damage)
    with pytest.raises(RoofFailed, match="are wrong"):
        await check(urls, steps=1, sagas=1)


def test_the_command_starts_its_own_servers_and_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # PostgreSQL may run as somebody else
        assert main(["--sagas", "50", "--in-flight", "10", "--json", "--data-dir", folder]) == 0
        assert list(Path(folder).iterdir()) == []

    report = orjson.loads(capsys.readouterr().out)
    assert (report["steps"], report["sagas"]) == (3, 50)
    assert report["cpu_ms_per_saga"].keys() == {*ROLES, "postgres", "nats-server"}


async def _tables(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    await connection.close()
    return [row[0] for row in rows]


async def _streams(url: str) -> list[str | None]:
    client = await nats.connect(url)
    streams = [info.config.name for info in await client.jetstream().streams_info()]
    await client.close()
    return streams


async def _published(url: str) -> bool:
    client = await nats.connect(url)
    stored = sum(info.state.messages for info in await client.jetstream().streams_info())
    await client.close()
    return stored > 100
