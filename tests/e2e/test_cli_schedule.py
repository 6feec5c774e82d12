"""`saga schedule` as a person or a script meets it: every command a process of its own, some against a `saga dev`."""

import asyncio
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.schema import upgrade_all
from orchestrator.settings import Settings
from tests.support.cli import Saga, as_lines
from tests.support.world import an_order

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saga]:
    """A `saga dev` with stock and accounts."""
    saga = Saga(tmp_path_factory.mktemp("shared"))
    with saga.dev():
        (saga.folder / "stock.csv").write_text("sku,quantity\nlamp,100000\n")
        (saga.folder / "accounts.csv").write_text("customer_id,balance\nada,1000000.00\n")
        assert saga("seed", "--stock", "stock.csv", "--accounts", "accounts.csv").code == 0
        yield saga


@pytest.fixture
def still(tmp_path: Path) -> Saga:
    """Databases, and nothing that runs."""
    saga = Saga(tmp_path, SAGA_NATS_URL="nats://127.0.0.1:1")
    saga.data_dir.mkdir()
    asyncio.run(upgrade_all(Settings(data_dir=saga.data_dir)))
    return saga


def create(saga: Saga, name: str, *options: str, cron: str = "0 3 * * *", **changes: Any) -> dict[str, Any]:
    """Keep a schedule whose input is an order, read from a file."""
    (saga.folder / "order.json").write_text(as_lines(an_order() | {"order_id": f"{name} {{scheduled_at}}"} | changes))
    result = saga("schedule", "create", name, "place-order", "--cron", cron, "-i", "order.json", "--json", *options)
    assert result.code == 0, result.err
    created: dict[str, Any] = result.json()
    return created


def shown(saga: Saga, name: str) -> dict[str, Any]:
    """What `show` says of a schedule."""
    found: dict[str, Any] = saga("schedule", "show", name, "--json").json()
    return found


def until(look: Callable[[], Any], what: str) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + 30
    while not look():
        assert time.monotonic() < deadline, f"not within 30 s: {what}"


def make_due(saga: Saga, name: str, at: datetime) -> None:
    """Let a time have come that nobody has dealt with."""
    with closing(sqlite3.connect(saga.data_dir / "orchestrator.db", timeout=15)) as connection, connection:
        moment = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"
        connection.execute("UPDATE schedules SET next_at = ? WHERE name = ?", (moment, name))


# --- the whole life of a schedule ----------------------------------------------------------------------------------


def test_a_running_orchestrator_starts_what_is_due(shared: Saga) -> None:
    create(shared, "due", "--missed", "once")
    last = datetime.now(UTC).replace(hour=3, minute=0, second=0, microsecond=0)
    make_due(shared, "due", last - 5 * DAY)
    until(lambda: [run["status"] for run in shown(shared, "due")["runs"]] == ["completed"], "the saga has completed")

    found = shown(shared, "due")
    [run] = found["runs"]
    assert datetime.fromisoformat(run["scheduled_at"]) in (last, last - DAY)
    saga = shared("get", f"due@{run['scheduled_at']}", "--json").json()
    assert (saga["id"], saga["data"]["order_id"]) == (run["saga_id"], f"due {run['scheduled_at']}")
    assert (found["late"], found["problem"]) == (False, None)
    assert datetime.fromisoformat(found["next_at"]) > datetime.now(UTC)


def test_a_trigger_and_a_backfill_are_carried_out(shared: Saga) -> None:
    create(shared, "by-hand", "--timezone", "Europe/Berlin")
    triggered = shared("schedule", "trigger", "by-hand", "--json")
    run = triggered.json()
    assert (triggered.code, run["outcome"], run["key"]) == (0, "started", f"by-hand@{run['scheduled_at']}")

    stretch = ("by-hand", "--from", "2026-03-28", "--to", "2026-03-30")  # Berlin's own days
    keys = [f"by-hand@2026-03-{time}:00:00Z" for time in ("28T02", "29T01", "30T01")]
    rehearsed = shared("schedule", "backfill", *stretch, "--dry-run", "--json")
    assert [(one["key"], one["outcome"]) for one in rehearsed.json_lines()] == [(key, "would start") for key in keys]
    assert rehearsed.err == "3 would start\n"
    filled = shared("schedule", "backfill", *stretch)
    assert [line.split()[1] for line in filled.out.splitlines()] == ["started"] * 3
    assert (filled.code, filled.err) == (0, "3 started\n")
    again = shared("schedule", "backfill", *stretch)
    assert (again.code, again.err) == (0, "3 existing\n")

    until(
        lambda: [one["status"] for one in shown(shared, "by-hand")["runs"]] == ["completed"] * 4,
        "all sagas have completed",
    )
    times = [f"by-hand@{one['scheduled_at']}" for one in shown(shared, "by-hand")["runs"]]
    assert times == [run["key"], *reversed(keys)]


def test_a_trigger_prints_the_id_of_its_saga(shared: Saga) -> None:
    create(shared, "printed")
    result = shared("schedule", "trigger", "printed")
    assert (result.code, result.err) == (0, "")
    assert result.out.strip() == shown(shared, "printed")["runs"][0]["saga_id"]


# --- keeping and looking -------------------------------------------------------------------------------------------


def test_what_was_created_is_listed_and_shown(still: Saga) -> None:
    (still.folder / "order.json").write_text(as_lines(an_order()))
    arguments = ("place-order", "--cron", "0 3 * * *", "--timezone", "Europe/Berlin", "-i", "order.json")
    created = still("schedule", "create", "nightly", *arguments)
    assert (created.code, created.out) == (0, "")
    assert created.err.startswith("schedule nightly is kept; its next time is 20")
    assert " 03:00 CE" in created.err

    header, row = still("schedule", "ls").out.splitlines()
    assert header.split() == ["schedule", "saga", "state", "next", "cron", "time", "zone"]
    assert row.split()[:3] == ["nightly", "place-order", "on"]
    assert row.endswith("  0 3 * * *  Europe/Berlin")

    told = still("schedule", "show", "nightly")
    assert told.out.splitlines()[0] == "nightly  place-order  on"
    assert told.out.count(" 03:00 CE") == 5
    assert told.err == "no runs yet\n"
    found = shown(still, "nightly")
    assert (found["definition"], found["missed"], found["paused"], len(found["upcoming"])) == (
        "place-order",
        "once",
        False,
        5,
    )
    assert still("schedule", "ls", "--json").json()[0]["name"] == "nightly"


def test_the_input_may_come_from_a_pipe(still: Saga) -> None:
    order = an_order()
    arguments = ("create", "piped", "place-order", "--cron", "0 3 * * *", "-i", "-", "--json")
    result = still("schedule", *arguments, input=as_lines(order))
    assert (result.code, result.json()["input"]) == (0, order)


def test_a_name_is_taken_until_it_is_replaced_or_removed(still: Saga) -> None:
    create(still, "nightly")
    (still.folder / "order.json").write_text(as_lines(an_order()))
    again = ("schedule", "create", "nightly", "place-order", "--cron", "0 4 * * *", "-i", "order.json")
    taken = still(*again)
    assert (taken.code, taken.out) == (4, "")
    assert "--replace" in taken.err
    assert still(*again, "--replace").code == 0
    assert shown(still, "nightly")["cron"] == "0 4 * * *"
    assert still("schedule", "rm", "nightly").err == "schedule nightly is removed\n"
    assert still("schedule", "rm", "nightly").code == 3
    assert still("schedule", "ls").err == "no schedules yet\n"


def test_a_pause_is_told_and_what_it_left_out_can_be_made_up_for(still: Saga) -> None:
    create(still, "nightly", cron="*/5 * * * *")
    assert still("schedule", "pause", "nightly", "--by", "ada").err == "nightly is paused\n"
    assert still("schedule", "pause", "nightly").err == "schedule nightly was paused already, by ada\n"
    listed = still("schedule", "ls")
    assert (listed.out.splitlines()[1].split()[2], listed.err) == ("paused", "nightly: paused by ada\n")
    assert shown(still, "nightly")["upcoming"] == []
    now = datetime.now(UTC)
    make_due(still, "nightly", now.replace(minute=now.minute // 5 * 5, second=0) - timedelta(minutes=10))

    resumed = still("schedule", "resume", "nightly")
    goes_on, left_out, command = resumed.err.splitlines()
    assert goes_on.startswith("schedule nightly goes on; its next time is ")
    assert left_out.startswith("left out is what has come since 20")
    arguments = shlex.split(command)
    backfill = arguments[arguments.index("schedule") :]
    assert backfill[:4] == ["schedule", "backfill", "nightly", "--from"]
    outcomes = [line.split()[1] for line in still(*backfill).out.splitlines()]
    assert outcomes in (["started"] * 3, ["started"] * 4)  # another one may have come meanwhile
    assert still("schedule", "resume", "nightly").err == "schedule nightly was not paused\n"


def test_what_is_late_says_why(still: Saga) -> None:
    create(still, "fine")
    create(still, "spoiled")
    long_ago = datetime(2026, 1, 1, 3, tzinfo=UTC)
    for name in ("fine", "spoiled"):
        make_due(still, name, long_ago)
    with closing(sqlite3.connect(still.data_dir / "orchestrator.db")) as connection, connection:
        connection.execute("UPDATE schedules SET definition = 'gone' WHERE name = 'spoiled'")

    listed = still("schedule", "ls")
    assert [line.split()[2] for line in listed.out.splitlines()[1:]] == ["late", "late"]
    assert listed.err.splitlines() == [
        "fine: no orchestrator has dealt with its time: see that one runs, and what it logs",
        "spoiled: there is no saga 'gone' among the definitions that are loaded here",
    ]
    assert [(one["late"], one["problem"] is None) for one in still("schedule", "ls", "--json").json()] == [
        (True, True),
        (True, False),
    ]


def test_without_nats_a_trigger_is_kept_with_a_warning(still: Saga) -> None:
    create(still, "nightly")
    result = still("schedule", "trigger", "nightly")
    assert result.code == 0
    assert "What is started is safe in the database" in result.err
    assert still("get", result.out.strip(), "--json").json()["status"] == "running"


def test_a_time_that_has_run_with_another_input_is_a_conflict(still: Saga) -> None:
    create(still, "nightly")
    stretch = ("schedule", "backfill", "nightly", "--from", "2026-01-01", "--to", "2026-01-02")
    assert still(*stretch).code == 0
    create(still, "nightly", "--replace", order_id="another")
    for options in ((), ("--dry-run",)):
        result = still(*stretch, *options)
        assert result.code == 4
        assert result.err.endswith("2 conflict\nconflict: the time has a saga with another input; it stays as it is\n")


# --- what is refused -----------------------------------------------------------------------------------------------

CREATE = ("create", "nightly", "place-order", "-i", "order.json", "--cron")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((*CREATE, "0 3 * *"), 2, "five fields"),
        ((*CREATE, "0 3 * * *", "--timezone", "Europe/Berln"), 2, "did you mean Europe/Berlin?"),
        ((*CREATE, "0 3 * * *", "--missed", "some"), 2, "some"),
        (("create", "No Name", *CREATE[2:], "0 3 * * *"), 2, "'No Name' is no name for a schedule"),
        (("create", "nightly", "nobody", *CREATE[3:], "0 3 * * *"), 3, "there is no saga 'nobody'"),
        (("create", "nightly", "place-order", "-i", "bad.json", "--cron", "0 3 * * *"), 1, "customer_id: "),
        (("create", "nightly", "place-order", "-i", "list.json", "--cron", "0 3 * * *"), 1, "not a JSON object"),
        (("create", "nightly", "place-order", "-i", "none.json", "--cron", "0 3 * * *"), 1, "cannot be read"),
        (("show", "nobody"), 3, "there is no schedule 'nobody': `saga schedule ls` lists them"),
        (("pause", "nobody"), 3, "there is no schedule"),
        (("resume", "nobody"), 3, "there is no schedule"),
        (("trigger", "nobody"), 3, "there is no schedule"),
        (("backfill", "nobody", "--from", "2026-01-01"), 3, "there is no schedule"),
        (("backfill", "kept", "--from", "yesterday"), 2, "--from 'yesterday' is no time: write it like 2026-03-29"),
        (("backfill", "kept", "--from", "0001-01-01"), 2, "is not between the years 1970"),
        (("backfill", "kept", "--from", "2026-02-01", "--to", "2026-01-31"), 2, "is later than --to 2026-01-31"),
        (("backfill", "kept", "--from", "2999-01-01"), 2, "--from 2999-01-01 is later than now"),
        (("backfill", "kept"), 2, "--from"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_sentence(
    refusing: Saga, arguments: tuple[str, ...], code: int, said: str
) -> None:
    result = refusing("schedule", *arguments)
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    with closing(sqlite3.connect(refusing.data_dir / "orchestrator.db")) as connection:
        assert connection.execute("SELECT name FROM schedules").fetchall() == [("kept",)]


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Saga:
    """Databases with one schedule, for tests that add nothing to them."""
    saga = Saga(tmp_path_factory.mktemp("refusing"))
    saga.data_dir.mkdir()
    asyncio.run(upgrade_all(Settings(data_dir=saga.data_dir)))
    create(saga, "kept")
    (saga.folder / "bad.json").write_text('{"order_id": "x"}')
    (saga.folder / "list.json").write_text("[]")
    return saga


def test_a_stretch_without_a_time_is_no_error(still: Saga) -> None:
    create(still, "nightly")
    nothing = still("schedule", "backfill", "nightly", "--from", "2026-01-01T04:00", "--to", "2026-01-01T05:00Z")
    assert (nothing.code, nothing.out) == (0, "")
    assert nothing.err.endswith("nightly has no time from 2026-01-01T04:00:00Z to 2026-01-01T05:00:00Z\n")
