"""A file may hold more than participants can do: it waits, nothing piles up, and nothing is lost when it is stopped."""

import asyncio
import json
import sqlite3
import subprocess
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from orchestrator.cli.schema import upgrade_all
from orchestrator.composition import seed_accounts, seed_stock
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.settings import Settings
from tests.support.cli import COMMAND, Result, Saga, as_lines
from tests.support.desk import an_order

ORDERS: Final = 120
WINDOW: Final = 40
START: Final = ("start", "place-order", "--in-flight", str(WINDOW), "--key-field", "order_id")


@pytest.fixture
def own(tmp_path: Path, nats: EmbeddedNats) -> Saga:
    """Databases with stock and accounts, a broker, more orders than the window is large, and nothing that runs."""
    saga = Saga(tmp_path / "own", SAGA_NATS_URL=nats.url, SAGA_OUTBOX_GRACE="0.5")
    saga.data_dir.mkdir(parents=True)
    asyncio.run(prepare(saga))
    (saga.folder / "orders.ndjson").write_text(as_lines(*(an_order() for _ in range(ORDERS))))
    return saga


async def prepare(saga: Saga) -> None:
    """Tables, lamps, and money."""
    settings = Settings(data_dir=saga.data_dir)
    await upgrade_all(settings)
    await seed_stock(settings, {"lamp": 100_000})
    await seed_accounts(settings, {"ada": Decimal(10_000_000)}, "EUR")


def look(saga: Saga, query: str) -> list[Any]:
    """Look into the orchestrator's database."""
    with closing(sqlite3.connect(saga.data_dir / "orchestrator.db")) as database:
        return database.execute(query).fetchall()


def statuses(saga: Saga) -> dict[str, int]:
    """status -> how many sagas."""
    return dict(look(saga, "SELECT status, count(*) FROM sagas GROUP BY status"))


def most_at_work(saga: Saga) -> int:
    """How many sagas were under way at the same time, at the most: the log knows."""
    under_way, most = 0, 0
    for (text,) in look(saga, "SELECT entries FROM saga_log ORDER BY position"):
        kinds = [entry["kind"] for entry in json.loads(text)]
        under_way += ("started" in kinds) - ("completed" in kinds)
        most = max(most, under_way)
    return most


def last_line(result: Result) -> str:
    """What a command said last."""
    return result.err.splitlines()[-1]


# --- a participant that is away -------------------------------------------------------------------------------------


def test_while_a_participant_is_away_the_file_waits_and_then_all_of_it_completes(own: Saga) -> None:
    with own.running("orchestrator", "order", "payment") as others:
        with own.background(*START, "-i", "orders.ndjson", "--wait") as starting:
            starting.until_says("nobody runs inventory")
            assert statuses(own) == {"running": WINDOW}
            told = f"{WINDOW} of place-order are at work, and nobody runs inventory: the rest, from line {WINDOW + 1}, "
            assert told in starting.err

            with own.running("inventory") as inventory:
                result = starting.wait()
                assert inventory.terminate().code == 0
        assert others.terminate().code == 0
    assert (result.code, last_line(result)) == (0, f"{ORDERS} completed, {ORDERS} started")
    assert len(set(result.out.splitlines())) == ORDERS
    assert most_at_work(own) == WINDOW
    assert own("verify", "--json").json() == {"sagas": ORDERS, "violations": []}


def test_a_participant_that_hangs_holds_the_file_back_until_it_goes_on(own: Saga) -> None:
    with own.running("orchestrator", "order", "payment") as others, own.running("inventory") as inventory:
        psutil.Process(inventory.pid).suspend()
        with own.background(*START, "-i", "-", "--wait") as starting:
            starting.feed((own.folder / "orders.ndjson").read_text())
            starting.end_input()
            starting.until(lambda: statuses(own) == {"running": WINDOW}, "the window is full")
            starting.until_says("are at work")
            assert statuses(own) == {"running": WINDOW}

            psutil.Process(inventory.pid).resume()
            result = starting.wait()
        assert (inventory.terminate().code, others.terminate().code) == (0, 0)
    assert (result.code, last_line(result)) == (0, f"{ORDERS} completed, {ORDERS} started")
    assert most_at_work(own) == WINDOW


def test_a_wait_ends_in_time_although_nothing_goes_on(own: Saga) -> None:
    result = own(*START, "-i", "orders.ndjson", "--wait", "--timeout", "1")
    assert (result.code, len(result.out.splitlines())) == (124, WINDOW)
    summary, told = result.err.splitlines()
    assert summary == f"{WINDOW} started"
    assert "timed out after 1 s" in told
    assert told.endswith(f"; line {WINDOW + 1} and what follows was not started")
    assert statuses(own) == {"running": WINDOW}


# --- what is not held back --------------------------------------------------------------------------------------------


def test_without_a_limit_everything_is_accepted_although_nobody_runs(own: Saga) -> None:
    assert own.start(an_order()).code == 0
    result = own("start", "place-order", "-i", "orders.ndjson", "--in-flight", "0")
    assert (result.code, result.err) == (0, f"{ORDERS} started\n")
    assert own.start(an_order(), options=["--in-flight", "1"]).code == 0  # one order is no crowd
    assert statuses(own) == {"running": ORDERS + 2}


def test_what_is_to_begin_later_is_accepted_at_once(own: Saga) -> None:
    assert own.start(an_order()).code == 0
    result = own("start", "place-order", "-i", "orders.ndjson", "--in-flight", "1", "--at", "+1h")
    assert (result.code, last_line(result)) == (0, f"{ORDERS} started")
    assert statuses(own) == {"running": 1, "waiting": ORDERS}


# --- stopped in the middle --------------------------------------------------------------------------------------------


def test_after_ctrl_c_what_was_accepted_ends_and_the_rest_can_follow(own: Saga) -> None:
    with own.background(*START, "-i", "orders.ndjson") as starting:
        starting.until_says("nobody runs the orchestrator")
        stopped = starting.interrupt()
    assert (stopped.code, last_line(stopped)) == (
        130,
        f"stopped before line {WINDOW + 1}: {WINDOW} started; what was started goes on",
    )
    accepted = stopped.out.splitlines()
    assert len(set(accepted)) == WINDOW

    with own.running("orchestrator", "order", "inventory", "payment") as roles:
        rest = own(*START, "-i", "orders.ndjson", "--wait")
        assert roles.terminate().code == 0
    assert (rest.code, last_line(rest)) == (0, f"{ORDERS} completed, {WINDOW} existing, {ORDERS - WINDOW} started")
    assert rest.out.splitlines()[:WINDOW] == accepted
    assert own("verify", "--json").json() == {"sagas": ORDERS, "violations": []}


def test_a_reader_of_the_ids_who_leaves_stops_it_and_a_person_is_told(own: Saga) -> None:
    with subprocess.Popen(
        [*COMMAND, *START, "-i", "orders.ndjson"],
        cwd=own.folder,
        env=own.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()  # `saga start … | true`
        told = command.stderr.read().decode()
    assert command.returncode == 0
    assert told == f"stopped before line {WINDOW + 1}: {WINDOW} started; what was started goes on\n"
    assert statuses(own) == {"running": WINDOW}
