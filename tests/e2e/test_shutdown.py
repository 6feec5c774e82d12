"""SIGTERM finishes what is in hand and leaves, whatever is away at that moment; a second one leaves at once."""

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo

from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.embedded.postgres import EmbeddedPostgres
from outbox.topology import COMMANDS
from tests.support.cli import Background, Saga
from tests.support.messaging import envelope

NOWHERE: Final = "postgresql://nobody@127.0.0.1:1/inventory"
INTERRUPTED: Final = 130
T = TypeVar("T")


@pytest.fixture
def saga(tmp_path: Path, nats: EmbeddedNats) -> Saga:
    """A folder with databases, where nothing runs yet. What is not acknowledged comes again after an hour."""
    folder = tmp_path / "own"
    folder.mkdir()
    saga = Saga(folder, SAGA_NATS_URL=nats.url, SAGA_ACK_WAIT="3600", SAGA_LOG_FORMAT="json")
    assert saga("db", "upgrade").code == 0
    return saga


def on_jetstream(nats: EmbeddedNats, act: Callable[[JetStreamContext], Awaitable[T]]) -> T:
    async def run() -> T:
        client = Client()
        await client.connect(nats.url)
        try:
            return await act(client.jetstream())
        finally:
            await client.close()

    return asyncio.run(run())


def command(nats: EmbeddedNats) -> None:
    """Send the inventory something, which it buries."""
    body = envelope("x/do", type="inventory.burn-stock").encode().encode()
    on_jetstream(nats, lambda stream: stream.publish("saga.cmd.inventory.burn-stock", body))


def consumer(nats: EmbeddedNats) -> ConsumerInfo:
    found: ConsumerInfo = on_jetstream(nats, lambda stream: stream.consumer_info(COMMANDS, "inventory"))
    return found


def in_hand(nats: EmbeddedNats) -> int:
    return consumer(nats).num_ack_pending or 0


def says(process: Background, words: str) -> bool:
    return words in process.err


@contextmanager
def locked(saga: Saga) -> Iterator[None]:
    """Somebody else writes to the inventory's database, and takes his time."""
    with closing(sqlite3.connect(saga.data_dir / "inventory.db", isolation_level=None)) as somebody:
        somebody.execute("BEGIN IMMEDIATE")
        yield
        somebody.execute("ROLLBACK")


def buried(saga: Saga) -> int:
    with closing(sqlite3.connect(saga.data_dir / "inventory.db")) as connection:
        return int(connection.execute("SELECT count(*) FROM dead_letters").fetchone()[0])


# --- while it starts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "waits_for"),
    [
        ({"SAGA_NATS_URL": "nats://127.0.0.1:1"}, "NATS is out of reach"),
        ({"SAGA_INVENTORY_DATABASE_URL": NOWHERE}, "the database is out of reach"),
    ],
    ids=["nats", "database"],
)
def test_a_role_that_waits_for_what_is_away_leaves_when_it_is_told(
    saga: Saga, settings: dict[str, str], waits_for: str
) -> None:
    with saga.background("run", "inventory", **settings) as process:
        process.until(lambda: says(process, waits_for), "it waits")
        ended = process.terminate()
    assert ended.code == 0
    assert ended.err.count(waits_for) == 1


# --- while it works ------------------------------------------------------------------------------------------------


def test_the_batch_in_hand_is_finished_and_acknowledged(saga: Saga, nats: EmbeddedNats) -> None:
    with saga.running("inventory") as process:
        with locked(saga):
            command(nats)
            process.until(lambda: in_hand(nats) == 1, "it has a batch in hand")
            stopping = told_to_stop(process)
        assert stopping.wait().code == 0
    left = consumer(nats)
    assert (buried(saga), left.num_pending, left.num_ack_pending) == (1, 0, 0)


def told_to_stop(process: Background) -> Background:
    """The first SIGTERM, and it says that it has heard."""
    os.kill(process.pid, signal.SIGTERM)
    process.until(lambda: says(process, "stopping: finishing what is in hand"), "it has heard")
    return process


def test_a_second_signal_leaves_at_once_and_the_batch_is_somebody_elses(saga: Saga, nats: EmbeddedNats) -> None:
    with saga.running("inventory", SAGA_ACK_WAIT="1") as process, locked(saga):
        command(nats)
        process.until(lambda: in_hand(nats) == 1, "it has a batch in hand")
        assert told_to_stop(process).terminate().code == INTERRUPTED
    with saga.running("inventory", SAGA_ACK_WAIT="1") as other:
        other.until(lambda: buried(saga) == 1, "another one has done it")


# --- while something is away ---------------------------------------------------------------------------------------


def test_a_role_leaves_while_nats_is_away(saga: Saga, nats: EmbeddedNats) -> None:
    with saga.running("orchestrator", "inventory") as process:
        nats.kill()
        process.until(lambda: process.err.count("NATS is out of reach") == 2, "both roles have noticed")
        assert process.terminate().code == 0


@pytest.fixture
def postgres() -> Iterator[EmbeddedPostgres]:
    """A server that the test may take away: what it has committed, it still has when it is back."""
    with EmbeddedPostgres() as server:
        server.create_database("inventory")
        yield server


def test_what_is_in_hand_while_the_database_is_away_is_put_back_for_others(
    saga: Saga, nats: EmbeddedNats, postgres: EmbeddedPostgres
) -> None:
    settings: dict[str, Any] = {"SAGA_INVENTORY_DATABASE_URL": postgres.url("inventory").replace("+asyncpg", "")}
    assert saga("db", "upgrade", "inventory", **settings).code == 0
    with saga.running("inventory", **settings) as process:
        postgres.kill()
        command(nats)
        process.until(lambda: in_hand(nats) == 1, "it has a message in hand")
        process.until(lambda: says(process, "the database is out of reach"), "it waits for the database")
        assert process.terminate().code == 0
    postgres.start()
    with saga.running("inventory", **settings) as other:  # it would wait an hour for what was not put back
        listed = ("dlq", "ls", "--role", "inventory", "--json")
        other.until(lambda: len(json.loads(saga(*listed, **settings).out or "[]")) == 1, "another one has done it")
