"""The command line as a person or a script meets it: every command a process of its own, on real parts.

What only reads, or only adds sagas, shares one `saga dev`; what stops, breaks or plants something has its own folder.
"""

import asyncio
import json
import os
import pty
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from orchestrator.cli.exits import Exit
from orchestrator.cli.schema import upgrade_all
from orchestrator.composition import seed_accounts, seed_stock
from orchestrator.definition import Policy
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.engine import Engine
from orchestrator.queries import Queries
from orchestrator.settings import ROLES, Settings
from orchestrator.tables import messaging
from outbox.clock import DatabaseClock
from outbox.database import Database
from outbox.faults import NoFaults
from outbox.unit_of_work import Outbox
from tests.support.cli import COMMAND, Saga, as_lines, processes_of
from tests.support.world import an_order, definitions_with

STEPS: Final = ["open-order", "reserve-stock", "authorise-payment", "capture-payment", "sell-stock", "confirm-order"]
STOCK: Final = "sku,quantity\nlamp,100000\nsold-out,0\n"
ACCOUNTS: Final = "customer_id,balance\nada,1000000.00\nbob,5\n"
NOBODY: Final = {
    "SAGA_NATS_URL": "nats://127.0.0.1:1",
    "SAGA_ORCHESTRATOR_DATABASE_URL": "postgresql://somebody:hunter2@127.0.0.1:1/orders",
}
"""Where nothing listens."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saga]:
    """A `saga dev` with stock and accounts, for tests that leave it as it is."""
    saga = Saga(tmp_path_factory.mktemp("shared"))
    with saga.dev():
        seed(saga)
        yield saga


@pytest.fixture
def own(tmp_path: Path) -> Saga:
    """An empty folder, where nothing runs."""
    folder = tmp_path / "own"
    folder.mkdir()
    return Saga(folder, SAGA_OUTBOX_GRACE="0.5")


def seed(saga: Saga) -> None:
    """Bring in what `an_order` asks for."""
    (saga.folder / "stock.csv").write_text(STOCK)
    (saga.folder / "accounts.csv").write_text(ACCOUNTS)
    result = saga("seed", "--stock", "stock.csv", "--accounts", "accounts.csv")
    assert (result.code, result.out, result.err) == (0, "", "seeded 2 articles and 2 accounts\n")


def prepare(saga: Saga) -> None:
    """Databases with stock and accounts, and nothing that runs."""

    async def write() -> None:
        settings = Settings(data_dir=saga.data_dir)
        await upgrade_all(settings)
        await seed_stock(settings, {"lamp": 100_000})
        await seed_accounts(settings, {"ada": Decimal(1_000_000)}, "EUR")

    saga.data_dir.mkdir()
    asyncio.run(write())


def place(saga: Saga, *options: str, **changes: Any) -> str:
    """Place one order and wait for its end. Returns the saga's id."""
    result = saga.start(an_order(**changes), options=("--wait", *options))
    assert result.code in (0, 5), result.err
    return result.out.strip()


# --- one saga --------------------------------------------------------------------------------------------------


def test_an_order_that_completes_can_be_followed_from_everywhere(shared: Saga, tmp_path: Path) -> None:
    order = an_order(quantity=3, price="9.99")
    followed = shared.start(order, options=["--follow", "--json", "--key", "first"])
    *log, end = followed.json_lines()
    saga_id = end["saga_id"]
    expected = {"outcome": "started", "saga_id": saga_id, "status": "completed", "reason": None}
    assert (followed.code, end) == (0, expected)
    asked_and_done = [(kind, step) for step in STEPS for kind in ("asked", "done")]
    assert [(entry["kind"], entry.get("step")) for entry in log] == [
        ("started", None),
        *asked_and_done,
        ("completed", None),
    ]
    assert {entry["saga_id"] for entry in log} == {saga_id}
    assert shared("log", saga_id, "--json").json_lines() == log
    printed = shared("log", "first").out.splitlines()
    assert [line.split()[2:4] for line in printed[1:-1]] == [list(pair) for pair in asked_and_done]

    elsewhere = Saga(tmp_path)
    shown = elsewhere("get", "first", "--data-dir", str(shared.data_dir))
    head, *_, table = shown.out.partition("\n\n")
    assert head.splitlines()[0].split() == [saga_id, "place-order", "v1", "completed"]
    assert [line.split()[:4] for line in table.splitlines()[1:]] == [
        ["open-order", "reversible", "order", "done"],
        ["reserve-stock", "reversible", "inventory", "done"],
        ["authorise-payment", "reversible", "payment", "done"],
        ["capture-payment", "pivot", "payment", "done"],
        ["sell-stock", "retriable", "inventory", "done"],
        ["confirm-order", "retriable", "order", "done"],
    ]

    seen = shared("get", saga_id[:-1].lower(), "--json").json()  # the beginning of an id is enough
    assert (seen["id"], seen["key"], seen["status"], seen["reason"]) == (saga_id, "first", "completed", None)
    assert [(step["name"], step["attempts"], step["note"]) for step in seen["steps"]] == [(s, 1, None) for s in STEPS]
    assert {name: seen["data"][name] for name in order} == order


def test_a_saga_that_is_undone_exits_5_and_says_why(shared: Saga) -> None:
    waited = shared.start(an_order(customer="bob"), options=["--wait", "--json"])
    assert waited.code == 5
    assert (waited.json()["outcome"], waited.json()["status"]) == ("started", "compensated")
    assert "authorise-payment was refused" in waited.json()["reason"]

    followed = shared.start(an_order(sku="sold-out"), options=["--follow"])
    saga_id, *lines = followed.out.splitlines()
    assert (followed.code, followed.err) == (
        5,
        "compensated: reserve-stock was refused: 1 of sold-out wanted, 0 available\n",
    )
    assert [line.split()[1:4] for line in lines if "undo" in line] == [
        [saga_id, "undo-asked", "open-order"],
        [saga_id, "undone", "open-order"],
    ]

    shown = shared("get", saga_id)
    assert "reserve-stock was refused: " in shown.out
    assert shown.out.splitlines()[0].endswith("  compensated")


def test_a_key_is_one_saga_and_another_order_under_it_is_a_conflict(shared: Saga) -> None:
    order = an_order()
    first = shared.start(order, options=["--key", "k-1", "--wait", "--json"])
    again = shared.start(order, options=["--key", "k-1", "--wait", "--json"])
    other = shared.start(an_order(), options=["--key", "k-1", "--wait", "--json"])
    saga_id = first.json()["saga_id"]
    existing = {"outcome": "existing", "saga_id": saga_id, "status": "completed", "reason": None}
    assert (again.code, again.json()) == (0, existing)
    assert (other.code, other.json()) == (4, existing | {"outcome": "conflict"})
    assert f"the key is taken by saga {saga_id}" in other.err

    retried = shared("retry", "k-1", "--reason", "it cannot hurt")
    assert (retried.code, saga_id in retried.err) == (4, True)


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"order_id": ', "not JSON"),
        ('{"order_id": "o-1"}', "customer_id: Field required"),
        (as_lines(an_order(quantity=-1)), "lines.0.quantity: "),
        ("", "the input is empty"),
        (as_lines([an_order(), an_order()]), "NDJSON"),
    ],
    ids=["malformed", "field missing", "field bad", "empty", "array"],
)
def test_a_bad_order_is_refused_at_the_door(shared: Saga, text: str, problem: str) -> None:
    result = shared("start", "place-order", "-i", "-", input=text)
    assert (result.code, result.out) == (1, "")
    assert problem in result.err


@pytest.mark.parametrize(
    ("command", "code", "problem"),
    [
        ("start no-such-saga -i -", 3, "place-order"),
        ("start place-order -i no-such-file.json", 1, "no-such-file.json"),
        ("get 0NOSUCHSAGA", 3, "0NOSUCHSAGA"),
        ("start place-order", 2, "--input"),
        ("start place-order -i - --key a --key-field order_id", 2, "not both"),
        ("ls --no-such-option", 2, "--no-such-option"),
        ("ls --status done", 2, "completed"),
        ("ls --newer-than yesterday", 2, "5m"),
        ("run bakery", 2, "inventory"),
        ("no-such-command", 2, "no-such-command"),
    ],
)
def test_a_mistake_is_answered_with_a_sentence(shared: Saga, command: str, code: int, problem: str) -> None:
    result = shared(*command.split())
    assert (result.code, result.out) == (code, "")
    assert problem in result.err


@pytest.mark.parametrize(
    ("command", "settings", "code"),
    [
        ("ls", {}, 7),
        ("start place-order -i -", {}, 7),
        ("start place-order -i -", NOBODY, 7),
        ("verify", {"SAGA_ORCHESTRATOR_DATABASE_URL": "mysql://somebody:hunter2@127.0.0.1/orders"}, 2),
        ("ls", {"SAGA_ORCHESTRATOR_DATABASE_URL": "postgresql://somebody:hunter2@h:99x/x"}, 2),
    ],
)
def test_a_database_out_of_reach_exits_7_and_one_that_cannot_be_meant_2(
    own: Saga, command: str, settings: dict[str, str], code: int
) -> None:
    result = own(*command.split(), input=as_lines(an_order()), **settings)
    assert (result.code, result.out) == (code, "")
    assert "database" in result.err
    assert "hunter2" not in result.err
    assert not own.data_dir.exists()  # a look leaves nothing behind


# --- many sagas ------------------------------------------------------------------------------------------------


def test_bad_lines_are_told_with_their_numbers_and_the_others_go_on(shared: Saga) -> None:
    good = [an_order(), an_order(), an_order(sku="sold-out"), an_order()]
    lines: list[Any] = [
        "rubbish",
        good[0],
        "",
        [good[0]],
        "x" * 1_500_000,
        good[1],
        {"order_id": "o-1"},
        good[2],
        good[0] | {"saga_id": "mine"},
        '{"order_id": "o-1", ',
        good[3],
        "42",
    ]
    result = shared.start(*lines, options=["--key-field", "order_id", "--wait"])
    assert result.code == 1
    *problems, summary = result.err.splitlines()
    assert [problem.partition(": ")[0] for problem in problems] == [f"line {n}" for n in (1, 4, 5, 7, 9, 10, 12)]
    assert summary == "7 bad, 1 compensated, 3 completed, 4 started"
    saga_ids = result.out.splitlines()
    assert len(set(saga_ids)) == 4

    last = good[3] | {"lines": [{"sku": "lamp", "quantity": 7, "unit_price": "10.00"}]}
    again = shared.start(*good[:3], last, options=["--key-field", "order_id", "--json"])
    assert again.code == 4
    assert [(one["line"], one["outcome"], one["saga_id"]) for one in again.json_lines()] == [
        (1, "existing", saga_ids[0]),
        (2, "existing", saga_ids[1]),
        (3, "existing", saga_ids[2]),
        (4, "conflict", saga_ids[3]),
    ]
    assert "line 4: the key is taken" in again.err


def test_one_order_may_span_lines_and_a_file_may_hold_many(shared: Saga) -> None:
    pretty = shared("start", "place-order", "-i", "-", "--wait", input=json.dumps(an_order(), indent=2))
    assert (pretty.code, len(pretty.out.splitlines()), pretty.err) == (0, 1, "completed\n")

    (shared.folder / "orders.ndjson").write_text(as_lines(*(an_order() for _ in range(30))))
    many = shared("start", "place-order", "-i", "orders.ndjson", "--wait", "--json")
    assert (many.code, many.err) == (0, "30 completed, 30 started\n")
    started, ended = many.json_lines()[:30], many.json_lines()[30:]
    assert [one["line"] for one in started] == list(range(1, 31))
    assert {one["saga_id"] for one in ended} == {one["saga_id"] for one in started}
    assert {one["status"] for one in ended} == {"completed"}

    assert shared("start", "place-order", "-i", "orders.ndjson", "--follow").code == 2


def test_thousands_of_orders_stream_through_in_bounded_memory(own: Saga, nats: EmbeddedNats) -> None:
    assert own("db", "upgrade", "orchestrator").code == 0
    bulky = json.dumps({"order_id": "o-1", "note": "x" * 200_000})
    options = ("--in-flight", "0")  # nobody runs that would let them end
    with own.background("start", "place-order", "-i", "-", *options, SAGA_NATS_URL=nats.url) as process:
        used: list[int] = []
        for _ in range(100):
            process.feed(as_lines(*(an_order() for _ in range(50)), *[bulky] * 5))  # waits when it is ahead
            used.append(psutil.Process(process.pid).memory_info().rss)
        process.end_input()
        result = process.wait()
    assert (result.code, result.err.splitlines()[-1]) == (1, "500 bad, 5,000 started")
    assert len(set(result.out.splitlines())) == 5000
    assert max(used) - used[10] < 60 * 1024**2  # all the lines at once are 100 MiB


# --- looking ---------------------------------------------------------------------------------------------------


def test_ls_filters(shared: Saga) -> None:
    both = shared.start(an_order(), an_order(customer="bob"), options=["--wait"])
    completed, compensated = both.out.split()
    assert both.code == 5

    def listed(*options: str) -> list[str]:
        result = shared("ls", "--json", *options)
        assert (result.code, result.err) == (0, "")
        return [one["id"] for one in result.json()]

    assert listed("--status", "completed", "--limit", "1") == [completed]
    recent = ["--type", "place-order", "--newer-than", "5m", "--limit", "1"]
    assert listed("--status", "compensated", "--status", "stuck", *recent) == [compensated]
    assert listed("--older-than", "1h") == []

    printed = shared("ls", "--limit", "2")
    head, *rows = printed.out.splitlines()
    assert head.split() == ["saga", "type", "status", "steps", "started", "took", "reason"]
    assert {tuple(row.split()[:4]) for row in rows} == {
        (completed, "place-order", "completed", "6/6"),
        (compensated, "place-order", "compensated", "0/6"),
    }
    assert "authorise-payment was refused: " in printed.out
    assert " completed" in printed.err


def test_the_log_is_followed_live_until_ctrl_c(shared: Saga) -> None:
    with shared.background("log", "-f", "--json") as following:
        saga_id = place(shared)

        def entries() -> list[str]:
            return [line for line in following.out.splitlines(keepends=True) if saga_id in line]

        following.until(
            lambda: [line for line in entries() if '"completed"' in line], "the end of the saga is followed"
        )
        result = following.interrupt()
    assert (result.code, result.err) == (130, "")
    assert len(entries()) == len(set(entries())) == 2 + 2 * len(STEPS)
    assert json.loads(entries()[-1])["kind"] == "completed"


def test_verify_names_the_saga_and_the_rows_of_a_violation(shared: Saga, own: Saga) -> None:
    saga_id = place(shared)
    assert shared("verify").code == 0  # it waits until what the broker has is in no outbox any more
    copy_databases(shared, own)
    clean = own("verify", "--json")
    [[sagas]] = behind_its_back(own, "orchestrator", "SELECT count(*) FROM sagas")
    assert (clean.code, clean.json(), clean.err) == (0, {"sagas": sagas, "violations": []}, "")

    behind_its_back(own, "inventory", "UPDATE stock SET sold = sold + 1 WHERE sku = 'lamp'")
    behind_its_back(own, "order", "UPDATE orders SET status = 'rejected' WHERE placement_id = ?", saga_id)
    dirty = own("verify", "--json")
    told = dirty.json()["violations"]
    assert (dirty.code, dirty.json()["sagas"]) == (8, sagas)
    assert sorted((one["check"], one["saga_id"], one["rows"]) for one in told) == [
        ("effects-match-outcome", saga_id, [f"sagas/{saga_id}"]),
        ("stock-is-constant", None, ["stock/lamp"]),
        ("stock-matches-reservations", None, ["stock/lamp"]),
    ]

    printed = own("verify")
    assert (printed.code, saga_id in printed.out, "rows: stock/lamp" in printed.out) == (8, True, True)
    assert "3 violations" in printed.err


def copy_databases(source: Saga, target: Saga) -> None:
    """What the databases hold at this moment."""
    target.data_dir.mkdir()
    for role in ROLES:
        with (
            closing(sqlite3.connect(source.data_dir / f"{role}.db")) as theirs,
            closing(sqlite3.connect(target.data_dir / f"{role}.db")) as ours,
        ):
            theirs.backup(ours)


def behind_its_back(saga: Saga, role: str, statement: str, *values: str) -> list[Any]:
    """Change a database behind everybody's back, or look into it."""
    with closing(sqlite3.connect(saga.data_dir / f"{role}.db")) as database, database:
        return database.execute(statement, values).fetchall()


def test_ctrl_c_ends_a_command_without_a_word_also_while_it_is_being_loaded(shared: Saga) -> None:
    with subprocess.Popen(
        [*COMMAND, "log", "--follow"],
        cwd=shared.folder,
        env=shared.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as command:
        assert command.stderr is not None
        while not _is_being_loaded(command.pid):
            time.sleep(0.001)
        command.send_signal(signal.SIGINT)
        assert command.stderr.read() == b""
    assert command.returncode == -signal.SIGINT


def _is_being_loaded(pid: int) -> bool:
    """Python catches Ctrl-C as soon as it runs; a command of ours does not until it is loaded."""
    words = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "Sig" in line)
    has_begun = int(words["SigIgn"], 16) & 1 << (signal.SIGPIPE - 1)  # which Python ignores from its beginning
    return bool(has_begun) and not int(words["SigCgt"], 16) & 1 << (signal.SIGINT - 1)


def test_output_that_finds_no_room_is_told_in_a_sentence(shared: Saga) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "ls"],
            cwd=shared.folder,
            env=shared.environment(),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == Exit.ERROR
    assert done.stderr.decode().startswith(
        "saga: what it prints, or a file of its own, cannot be written: No space left"
    )


def test_a_data_dir_that_has_no_say_is_told(own: Saga) -> None:
    listed = own("ls", "--data-dir", "elsewhere", **NOBODY)
    assert "--data-dir does not say where the sagas are: SAGA_ORCHESTRATOR_DATABASE_URL does" in listed.err
    assert "hunter2" not in listed.err


def test_colours_are_for_terminals_and_a_reader_may_leave(shared: Saga) -> None:
    place(shared)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "ls"],
        cwd=shared.folder,
        env=shared.environment(TERM="xterm-256color"),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    ) as command:
        os.close(theirs)
        printed = b""
        while chunk := _read(ours):
            printed += chunk
    os.close(ours)
    assert (command.returncode, b"\x1b[" in printed) == (0, True)

    for json_too in ([], ["--json"]):
        with subprocess.Popen(
            [*COMMAND, "log", *json_too],
            cwd=shared.folder,
            env=shared.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as command:
            assert command.stdout is not None
            assert command.stderr is not None
            command.stdout.close()  # `saga log | true`
            assert command.stderr.read() == b""
        assert command.returncode == 0


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux says that the other side has closed
        return b""


# --- databases, stock, settings --------------------------------------------------------------------------------


def test_db_upgrades_and_finds_drift(own: Saga) -> None:
    before = own("db", "current", "--json")
    assert (before.code, {one["current"] for one in before.json()}) == (0, {None})
    assert not own.data_dir.exists()

    upgraded = own("db", "upgrade")
    assert [line.split()[:2] for line in upgraded.err.splitlines()] == [[f"{role}:", "upgraded"] for role in ROLES]
    assert own("db", "upgrade").err.splitlines() == [f"{role}: nothing to do" for role in ROLES]
    after = own("db", "current", "--json").json()
    assert [(one["role"], one["current"].rpartition("_")[0]) for one in after] == [(role, role) for role in ROLES]
    assert {one["current"] == one["head"] for one in after} == {True}

    clean = own("db", "check", "--json")
    assert (clean.code, clean.json()) == (0, [{"role": role, "drift": []} for role in ROLES])
    behind_its_back(own, "inventory", "ALTER TABLE stock ADD COLUMN surprise TEXT")
    drifted = own("db", "check")
    assert drifted.code == 1
    assert [line.partition(":")[0] for line in drifted.out.splitlines() if "surprise" in line] == ["inventory"]


def test_a_database_without_tables_says_what_to_do(own: Saga) -> None:
    own.data_dir.mkdir()
    (own.data_dir / "orchestrator.db").touch()
    result = own("ls")
    assert (result.code, result.out) == (1, "")
    assert "saga db upgrade" in result.err


@pytest.mark.parametrize(
    ("option", "text", "problem"),
    [
        ("--stock", "sku,quantity\nlamp,1\nchair,many\n", "line 3: quantity 'many'"),
        ("--stock", "sku,quantity\nlamp,1\nlamp,2\n", "line 3: sku 'lamp'"),
        ("--stock", "article,quantity\nlamp,1\n", "sku,quantity"),
        ("--stock", f"sku,quantity\n{'x' * 200_000},1\n", "CSV"),
        ("--accounts", "customer_id,balance\nada,1.00\neve,-1.00\n", "line 3: balance '-1.00'"),
        ("--accounts", "customer_id,balance\nada,0.00001\n", "line 2: balance '0.00001'"),
    ],
)
def test_bad_csv_is_refused_as_a_whole(own: Saga, option: str, text: str, problem: str) -> None:
    (own.folder / "seed.csv").write_text(text)
    result = own("seed", option, "seed.csv")
    assert (result.code, result.out) == (1, "")
    assert problem in result.err


def test_seeding_twice_is_as_good_as_once(own: Saga) -> None:
    stock = "SELECT sku, seeded, available FROM stock ORDER BY sku"
    funding = "SELECT account, amount FROM postings WHERE account LIKE 'customer/%' ORDER BY account"
    assert own("db", "upgrade", "inventory", "payment").code == 0
    for _ in range(2):
        seed(own)
        assert behind_its_back(own, "inventory", stock) == [("lamp", 100_000, 100_000), ("sold-out", 0, 0)]
        assert behind_its_back(own, "payment", funding) == [("customer/ada", 10_000_000_000), ("customer/bob", 50_000)]

    behind_its_back(own, "inventory", "UPDATE stock SET sold = 8, available = 99992 WHERE sku = 'lamp'")
    (own.folder / "less.csv").write_text("sku,quantity\nlamp,7\n")
    refused = own("seed", "--stock", "less.csv")
    assert (refused.code, "8 sold" in refused.err) == (4, True)
    assert behind_its_back(own, "inventory", stock) == [("lamp", 100_000, 99_992), ("sold-out", 0, 0)]


def test_settings_are_shown_without_passwords(own: Saga) -> None:
    settings = {
        "SAGA_NATS_URL": "nats://me:hunter2@one:4222,nats://hunter2@two:4222",
        "SAGA_ORCHESTRATOR_DATABASE_URL": "postgresql://me:hunter2@three/orders",
    }
    shown = own("config", "show", "--json", **settings)
    assert (shown.code, "hunter2" in shown.out + shown.err) == (0, False)
    assert shown.json()["nats_url"] == "nats://me:***@one:4222,nats://***@two:4222"
    assert shown.json()["orchestrator_database_url"] == "postgresql://me:***@three/orders"
    assert shown.json()["order_database_url"] == f"sqlite:///{own.data_dir / 'order.db'}"

    printed = own("config", "show", **settings)
    assert "SAGA_ORCHESTRATOR_DATABASE_URL  postgresql://me:***@three/orders" in printed.out
    assert "hunter2" not in printed.out

    refused = own("config", "show", SAGA_POOL_SIZE="many")
    assert (refused.code, "SAGA_POOL_SIZE='many'" in refused.err) == (2, True)


async def test_a_stuck_saga_exits_6_says_what_to_do_and_goes_on_when_it_is_retried(own: Saga) -> None:
    """Nobody answers; the policies are made so short that even the undo is given up."""
    assert own("db", "upgrade").code == 0
    impatient = Policy(timeout=timedelta(milliseconds=1), attempts=1, jitter=0)
    definitions = definitions_with(impatient)
    database = Database(f"sqlite:///{own.data_dir / 'orchestrator.db'}")
    outbox = Outbox(database, messaging, clock=DatabaseClock(), faults=NoFaults(), role="orchestrator")
    engine = Engine(definitions, outbox, clock=outbox.clock)
    order = an_order()
    await engine.start([engine.request("place-order", order, "k")])
    while await engine.fire_timers() or await Queries(database, definitions).counts() != {"stuck": 1}:
        await asyncio.sleep(0.01)
    await database.close()

    waited = own("start", "place-order", "-i", "-", "--key", "k", "--wait", input=as_lines(order))
    assert (waited.code, "stuck: open-order: the undo stayed without an answer" in waited.err) == (6, True)
    shown = own("get", "k")
    assert f"saga retry {waited.out.strip()}" in shown.err
    retried = own("retry", "k", "--reason", "the service is back")
    assert (retried.code, own("ls", "--json").json()[0]["status"]) == (0, "compensating")


# --- processes -------------------------------------------------------------------------------------------------


def test_dev_keeps_its_broker_alive_is_alone_and_leaves_nothing(own: Saga) -> None:
    with own.dev() as dev:
        seed(own)
        second = own("dev")
        assert second.code == 1
        assert f"already running in .amends (process {dev.pid})" in second.err

        assert (own.data_dir / "dev.json").exists()
        [broker] = psutil.Process(dev.pid).children()
        broker.kill()
        assert own.start(an_order(), options=["--wait"]).code == 0
        dev.until(lambda: "NATS is back" in dev.err, "NATS is back")
        assert [child.pid for child in psutil.Process(dev.pid).children()] != [broker.pid]

        result = dev.terminate()
    assert (result.code, result.out) == (0, "")
    assert result.err.endswith("stopped; nothing is left running\n")
    assert not (own.data_dir / "dev.json").exists()
    assert processes_of(own.folder) == []
    assert own("verify", "--json").json() == {"sagas": 1, "violations": []}


def test_what_is_started_without_a_broker_goes_on_when_dev_comes(own: Saga) -> None:
    prepare(own)
    orders = [an_order(), an_order()]
    accepted = own.start(orders[0], options=["--key-field", "order_id"])
    assert (accepted.code, len(accepted.out.splitlines())) == (0, 1)
    assert accepted.err.startswith("warning: NATS at nats://127.0.0.1:4222 is out of reach")

    with own.background("start", "place-order", "-i", "-", "--key-field", "order_id", "--follow") as following:
        following.feed(as_lines(orders[1]))
        following.end_input()
        following.until_says("asked")
        interrupted = following.interrupt()
    assert (interrupted.code, "completed" in interrupted.out) == (130, False)

    with own.dev() as dev:
        ended = own.start(*orders, options=["--key-field", "order_id", "--wait"])
        assert (ended.code, ended.err) == (0, "2 completed, 2 existing\n")
        assert [accepted.out.strip(), interrupted.out.split()[0]] == ended.out.split()
        stopped = dev.interrupt()
    assert (stopped.code, stopped.out) == (0, "")
    assert not (own.data_dir / "dev.json").exists()
    assert processes_of(own.folder) == []


def test_a_wait_times_out_while_a_participant_is_down(own: Saga, nats: EmbeddedNats) -> None:
    prepare(own)
    own = Saga(own.folder, SAGA_NATS_URL=nats.url)
    order = an_order()
    with own.running("orchestrator", "order", "payment") as others:
        late = own.start(order, options=["--key", "k", "--wait", "--timeout", "1", "--json"])
        assert (late.code, late.json()["outcome"]) == (124, "started")
        assert "timed out after 1 s" in late.err
        [running] = own("ls", "--status", "running", "--json").json()
        assert (running["id"], running["done"]) == (late.json()["saga_id"], 1)

        with own.running("inventory") as inventory:
            ended = own.start(order, options=["--key", "k", "--wait", "--json"])
            assert (ended.code, ended.json()["status"]) == (0, "completed")
            assert (inventory.terminate().code, others.terminate().code) == (0, 0)
    assert processes_of(own.folder) == []


def test_the_demo_plays_out_and_leaves_nothing_running(own: Saga) -> None:
    result = own("demo", "--json")
    told = result.json()
    assert result.code == 0
    assert [(one["expected"], one["status"], one["ok"]) for one in told["scenarios"]] == [
        ("completed", "completed", True),
        ("compensated", "compensated", True),
        ("compensated", "compensated", True),
        ("completed", "completed", True),
        ("completed", "completed", True),
    ]
    assert {frozenset(one) for one in told["scenarios"]} == {
        frozenset({"name", "saga_id", "expected", "status", "ok"}),
    }
    assert told["verify"] == {"sagas": 5, "violations": []}
    assert processes_of(own.folder) == []
    seen = own("ls", "--data-dir", ".amends/demo", "--json").json()  # the data is left to be looked at
    assert [one["id"] for one in seen] == [one["saga_id"] for one in reversed(told["scenarios"])]
