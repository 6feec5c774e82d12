"""Orders, signals and queries on the command line.

The stories run as processes on real parts. What only varies the words runs the commands in this process, on a real
database without a broker, because a process costs most of a second.
"""

import asyncio
import json
import os
import pty
import shlex
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from typer.exceptions import TyperException

from orchestrator.cli.exits import Exit, exit_code
from orchestrator.cli.main import app
from orchestrator.definition import Policy
from orchestrator.registry import Definitions
from orchestrator.sagas.place_order import place_order
from tests.support.cli import COMMAND, Result, Saga
from tests.support.sagas import FAMILY
from tests.support.servers import SqliteDatabases
from tests.support.world import Desk, World, an_order, answer, definitions_with

MODULES: Final = "orchestrator.sagas.place_order,tests.support.sagas"
NOBODY: Final = "nats://127.0.0.1:1"
ONCE: Final = Policy(timeout=timedelta(milliseconds=1), attempts=1, jitter=0)
IMPATIENT: Final = definitions_with(ONCE, sagas=[place_order, *FAMILY])
"""The same sagas, so impatient that they are stuck as soon as somebody looks at their timers."""

TILL: Final = '''
from orchestrator.definition import Rate, Saga
from tests.support.sagas import Bill, authorise, capture, reversible, step, void


def customer(data: Bill) -> str:
    """Who pays."""
    return data.customer_id


def broken(data: Bill) -> int:
    return 1 // 0


till = Saga("till", Bill, [reversible(authorise, undo=void)], step(capture),
            max_in_flight=2, rate=Rate(10), queries=[customer, broken])
'''
"""A saga that is limited, and that can be asked."""


class Here:
    """The command line, run in this process."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capture = capture

    def __call__(self, *arguments: str) -> Result:
        """Run a command to its end, as `main` does."""
        self._capture.readouterr()
        code, problem = _run(arguments)
        out, err = self._capture.readouterr()
        return Result(int(code), out, err + problem)

    def start(self, saga: str, *options: str, **data: Any) -> Result:
        """`saga start`, with this input."""
        (self.folder / "input.json").write_text(json.dumps(data))
        return self("start", saga, "-i", str(self.folder / "input.json"), *options)

    def get(self, saga: str) -> Any:
        """`saga get --json`."""
        return self("get", saga, "--json").json()

    def status(self, saga: str) -> str:
        """Where a saga is."""
        return str(self.get(saga)["status"])


def _run(arguments: Sequence[str]) -> tuple[int, str]:
    try:
        code = app(list(arguments), standalone_mode=False)
        return (code if isinstance(code, int) else Exit.OK), ""
    except TyperException as error:
        return Exit.USAGE, error.format_message()
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        return code, f"saga: {error}"


def execute(here: Here, role: str, statement: str, values: Sequence[Any] = ()) -> list[Any]:
    """One statement on a role's database."""
    with closing(sqlite3.connect(here.folder / f"{role}.db")) as connection, connection:
        return connection.execute(statement, values).fetchall()


@asynccontextmanager
async def orchestrator(folder: Path, definitions: Definitions = IMPATIENT) -> AsyncIterator[Desk]:
    """A desk on the database that the command line finds in this folder."""
    async with World(SqliteDatabases(folder), roles=["orchestrator"], definitions=definitions) as world:
        yield world.desk()


async def done(desk: Desk, saga_id: str, *steps: str) -> None:
    """These steps are answered one after the other."""
    for step in steps:
        data = {"authorisation_code": "7"} if step == "authorise-payment" else {}
        reply = answer(f"{saga_id}/{step}/do")
        await desk.receive(reply.model_copy(update={"data": data}))


async def until_stuck(desk: Desk) -> None:
    """Nobody answers any more."""
    for _ in range(10):
        await asyncio.sleep(0.005)
        await desk.engine.fire_timers()


async def stuck_on_the_way_back(desk: Desk, key: str) -> str:
    """Its first step has no answer, and neither has the undo of it."""
    saga_id = (await desk.start(an_order(), key)).saga_id
    await until_stuck(desk)
    return saga_id


async def stuck_at_the_pivot(desk: Desk, key: str) -> str:
    """Whether the money was taken is unknown."""
    saga_id = (await desk.start(an_order(), key)).saga_id
    await done(desk, saga_id, "open-order", "reserve-stock", "authorise-payment")
    await until_stuck(desk)
    return saga_id


async def waits_for_approval(desk: Desk, key: str) -> str:
    """A tour that somebody has to approve."""
    return (await desk.start({}, key, "everything")).saga_id


async def compensated(desk: Desk, key: str) -> str:
    """Nothing of it is left."""
    saga_id = (await desk.start(an_order(), key)).saga_id
    await desk.receive(answer(f"{saga_id}/open-order/do", "refused"))
    return saga_id


async def completed(desk: Desk, key: str) -> str:
    """All of it is there."""
    saga_id = (await desk.start(an_order(), key)).saga_id
    await done(desk, saga_id, "open-order", "reserve-stock", "authorise-payment", "capture-payment")
    await done(desk, saga_id, "sell-stock", "confirm-order")
    return saga_id


async def paying(desk: Desk, key: str) -> str:
    """The payment service has been asked, and has not answered yet."""
    saga_id = (await desk.start(an_order(), key)).saga_id
    await done(desk, saga_id, "open-order", "reserve-stock")
    return saga_id


Story = Callable[[Desk, str], Coroutine[Any, Any, str]]


def tell(folder: Path, *stories: tuple[Story, str]) -> list[str]:
    """Let these happen, in this order, each under its key. Returns the ids."""

    async def happen() -> list[str]:
        async with orchestrator(folder) as desk:
            return [await story(desk, key) for story, key in stories]

    return asyncio.run(happen())


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """The command line on an empty database, with nobody at the broker."""
    _environment(tmp_path, monkeypatch)
    tell(tmp_path)
    return Here(tmp_path, capsys)


def _environment(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "till_for_tests.py").write_text(TILL)
    patch.syspath_prepend(folder)
    patch.setenv("SAGA_DEFINITIONS", f"{MODULES},till_for_tests")
    patch.setenv("SAGA_NATS_URL", NOBODY)
    patch.setenv("SAGA_DATA_DIR", str(folder))


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One saga of each kind, for commands that change nothing."""
    folder = tmp_path_factory.mktemp("gallery")
    tell(folder, (waits_for_approval, "waits"), (compensated, "ended"), (completed, "completed"))
    tell(folder, (stuck_on_the_way_back, "back"), (stuck_at_the_pivot, "pivot"))
    tell(folder, (paying, "paying"))  # the last, or it would be stuck too
    return folder


@pytest.fixture
def gallery_here(gallery: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """The command line there."""
    _environment(gallery, monkeypatch)
    return Here(gallery, capsys)


WHY: Final = "--reason mended"


@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        (f"retry {WHY}", 2, "retry which saga? Give an ID, or a filter"),
        (f"retry back --status stuck {WHY}", 2, "give an ID or a filter, not both"),
        ("retry back", 2, "--reason"),
        ("retry back --reason …", 2, "--reason: say why"),
        (f"retry back {WHY} --by ''", 2, "--by is to be a text of 1 to 200 characters"),
        (f"retry ended {WHY}", 4, "is not retried: the saga has ended: compensated"),
        (f"retry waits {WHY}", 4, "is not retried: nothing is stuck"),
        (f"retry nobody {WHY}", 3, "there is no saga 'nobody'"),
        (f"retry --incident nothing {WHY} --yes", 3, "there is no incident 'nothing': `saga incidents` lists them"),
        (f"retry --type bakery {WHY} --yes", 3, "there is no saga 'bakery': there is place-order"),
        (f"retry --status done {WHY} --yes", 2, "'done' is no status: there is waiting, running"),
        (f"retry --label region=eu {WHY} --yes", 3, "no saga is there with status stuck, label region=eu"),
        (f"retry --label region {WHY} --yes", 2, "--label 'region': write it like region=eu"),
        (f"retry --status stuck {WHY}", 2, "retry 2 sagas (status stuck), at most 50 a second? There is nobody to ask"),
        (f"resume waits {WHY}", 4, "is not resumed: the saga is not paused"),
        (f"cancel back {WHY}", 4, "is not cancelled: the saga turns back already"),
        (f"cancel pivot {WHY}", 4, "its pivot capture-payment was asked and may have happened"),
        (f"skip pivot {WHY}", 2, "skip which step?"),
        (f"skip pivot bake-bread {WHY}", 3, "has no step 'bake-bread': it has open-order, "),
        (f"skip pivot sell-stock {WHY}", 4, "step sell-stock is not under way: pending"),
        (f"skip pivot capture-payment --step capture-payment {WHY}", 2, "give STEP or --step, not both"),
        (f"skip pivot capture-payment --reply [] {WHY}", 1, "--reply is not a JSON object but list"),
        (f"skip back open-order {WHY}", 4, "a step can only be resolved as undone"),
        (f"resolve back open-order --as done {WHY}", 4, "a step can only be resolved as undone"),
        (f"resolve pivot --as undone {WHY}", 4, "it does not turn back"),
        (
            f"resolve paying authorise-payment {WHY}",
            1,
            "authorisation_code: Field required; say what was answered: `saga skip ID STEP",
        ),
        (f"compensate pivot {WHY}", 2, "look at the participant whether the pivot happened"),
        (f"compensate back --pivot-did-not-happen {WHY}", 4, "is not turned back: the saga turns back already"),
        ("signal waits approval", 1, "by: Field required; give it with --data JSON"),
        ("signal waits approval --data {", 1, "--data is not JSON"),
        ("signal waits approval --data @nowhere.json", 1, "nowhere.json cannot be read: No such file"),
        ("signal waits approval --data {} --refuse late", 2, "give one of them"),
        ("signal waits approval --refuse …", 2, "--refuse: say why"),
        ("signal waits reserve-stop", 3, "everything has no step 'reserve-stop' that waits for a signal: there is app"),
        ("signal back approval", 3, "none of its steps does"),
        ("query waits total", 3, "everything has no query 'total': it has none"),
        ("fork waits --reason x", 4, "has not ended, it is running"),
        ("fork ended --from sell-stock --reason x", 4, "was compensated, so nothing is left to go on from"),
        ("fork ended --from bake-bread --reason x", 3, "has no step 'bake-bread': it has open-order, "),
        ("ls --type bakery", 3, "there is no saga 'bakery': there is place-order"),
        ("ls --label a=1 --label a=2", 2, "--label a is there twice"),
        (
            "start place-order -i - --at tomorrow",
            2,
            "'tomorrow' is no time: write it like 2026-07-01T08:00:00Z or +10m",
        ),
        ("start place-order -i - --at 2026-07-01T08:00", 2, "has no time zone: write 2026-07-01T08:00Z"),
        ("start place-order -i - --at 9999-12-31T23:59-10:00", 2, "is no time"),
        ("start place-order -i - --if-taken reject", 2, "give --key or --key-field too"),
    ],
)
def test_a_mistake_is_answered_with_a_sentence(gallery_here: Here, command: str, code: int, sentence: str) -> None:
    before = gallery_here("log", "--json").out
    result = gallery_here(*shlex.split(command))
    assert (result.code, result.out) == (code, "")
    assert sentence in result.err
    assert gallery_here("log", "--json").out == before


def test_sagas_whose_definition_is_gone_can_be_listed_but_not_ordered(
    gallery_here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGA_DEFINITIONS", "orchestrator.sagas.place_order")
    [seen] = gallery_here("ls", "--type", "everything", "--json").json()
    ordered = gallery_here("pause", seen["id"], "--reason", "lunch")
    assert (ordered.code, "name its module in SAGA_DEFINITIONS" in ordered.err) == (4, True)
    assert gallery_here("query", seen["id"]).code == 4


# --- what a person is told ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "count"), [("back", 2), ("pivot", 3), ("waits", 2), ("ended", 0)])
def test_every_command_that_get_shows_can_be_pasted_and_would_do_something(
    gallery_here: Here, key: str, count: int
) -> None:
    seen = gallery_here.get(key)
    commands = [one["command"] for one in seen["next"]]
    commands += [command for one in seen["awaits"] for command in one["commands"]]
    assert len(commands) == count
    printed = gallery_here("get", key)
    assert ("a person must act" in printed.err) == (seen["status"] == "stuck")
    for command in commands:
        assert command in printed.err
        program, *arguments = shlex.split(command.replace("…", "mended"))
        foreseen = gallery_here(*arguments, "--dry-run", "--json")
        assert (program, foreseen.code, foreseen.json()["outcome"]) == ("saga", 0, "done"), foreseen.err
    assert gallery_here.get(key)["status"] == seen["status"]


def test_what_a_dry_run_shows_is_what_happens_then(here: Here) -> None:
    [saga_id] = tell(here.folder, (stuck_on_the_way_back, "k"))
    order = ["retry", "k", "--reason", "the service is back", "--by", "ada"]
    printed = here(*order, "--dry-run")
    foreseen = here(*order, "--dry-run", "--json").json()
    assert here.status("k") == "stuck"

    head, would_send, sent, would_log, *logged = printed.out.splitlines()
    assert head == f"saga {saga_id}: it would be compensating"
    assert (would_send.strip(), would_log.strip()) == ("would be sent:", "would be logged:")
    assert sent.split()[:4] == [f"{saga_id}/open-order/undo", "attempt", "2", "saga.cmd.order.reject-order"]
    assert saga_id in sent.split()[4]
    assert [line.split()[0] for line in logged] == ["retry-ordered", "undo-asked"]
    assert logged[0].split(maxsplit=1)[1] == '{"by":"ada","reason":"the service is back"}'

    happened = here(*order, "--json").json()
    assert [entry["kind"] for entry in happened["entries"]] == ["retry-ordered", "undo-asked"]
    assert happened["commands"] == foreseen["commands"]
    assert (foreseen["dry_run"], happened["dry_run"], happened["status"]) == (True, False, "compensating")
    assert here(*order).code == 4


def test_without_a_broker_an_order_is_kept_and_says_so(here: Here) -> None:
    tell(here.folder, (waits_for_approval, "k"))
    result = here("pause", "k", "--reason", "lunch")
    assert result.code == 0
    assert "warning: NATS at" in result.err
    assert "What was ordered is in the database" in result.err
    log = here("log", "k").out
    assert "lunch (by " in log
    seen = here("get", "k")
    assert "paused by " in seen.out
    assert f"saga resume {here.get('k')['id']} --reason" in seen.err
    assert (here("resume", "k", "--reason", "back").code, here.status("k")) == (0, "running")


def test_the_instances_of_a_step_stand_together_and_many_are_counted(here: Here) -> None:
    async def tour(desk: Desk, key: str) -> str:
        return (await desk.start({"stops": ["lamp"] * 15}, key, "everything")).saga_id

    tell(here.folder, (tour, "k"))
    assert here("signal", "k", "approval", "--data", '{"by": "eve"}').code == 0
    rows = [line for line in here("get", "k").out.splitlines() if line.startswith(("reserve-stop", "  ["))]
    assert rows[0].split()[:7] == ["reserve-stop", "reversible", "inventory", "15:", "1", "asked,", "14"]
    assert [row.split()[0] for row in rows[1:]] == ["[0]"]
    assert "yes (by " in here("log", "k").out


# --- orders, one by one ----------------------------------------------------------------------------------------------


def test_a_step_is_skipped_with_the_reply_that_a_person_gives(here: Here) -> None:
    tell(here.folder, (paying, "k"))
    (here.folder / "reply.json").write_text('{"authorisation_code": "by phone"}')
    wrong = here("skip", "k", "authorise-payment", "--reason", "asked by phone")
    assert (wrong.code, "authorisation_code: Field required; give it with --reply" in wrong.err) == (1, True)
    reply = f"@{here.folder / 'reply.json'}"
    right = here("skip", "k", "authorise-payment", "--reply", reply, "--reason", "asked by phone", "--json")
    assert [one["id"].split("/")[1] for one in right.json()["commands"]] == ["capture-payment"]
    assert here.get("k")["data"]["authorisation_code"] == "by phone"


def test_a_pivot_that_did_not_happen_lets_the_saga_turn_back(here: Here) -> None:
    tell(here.folder, (stuck_at_the_pivot, "k"))
    result = here("compensate", "k", "--pivot-did-not-happen", "--reason", "the bank has no such capture")
    assert (result.code, here.status("k")) == (0, "compensating")
    assert "says that it did not happen: the bank has no such capture" in here("log", "k").out


def test_what_is_stuck_is_resolved_by_hand(here: Here) -> None:
    back, pivot = tell(here.folder, (stuck_on_the_way_back, "back"), (stuck_at_the_pivot, "pivot"))
    undone = here("resolve", "back", "--as", "undone", "--reason", "removed by hand", "--json").json()
    done = here("resolve", "pivot", "capture-payment", "--reason", "seen in the ledger", "--by", "ada", "--json").json()
    assert [(one["saga_id"], one["status"]) for one in (undone, done)] == [(back, "compensated"), (pivot, "running")]
    assert [one["kind"] for one in undone["entries"]] == ["undone-by-hand", "compensated"]
    assert [one["kind"] for one in done["entries"]] == ["done-by-hand", "asked"]
    [note] = [step["note"] for step in here.get("pivot")["steps"] if step["name"] == "capture-payment"]
    assert note == "by hand, ada: seen in the ledger"


def test_what_was_resolved_by_hand_is_not_redriven(here: Here) -> None:
    [saga_id] = tell(here.folder, (stuck_at_the_pivot, "k"))
    [body] = execute(here, "orchestrator", "SELECT body FROM outbox WHERE body LIKE '%/capture-payment/do%' LIMIT 1")
    here("resolve", "k", "--reason", "seen in the ledger")
    assert here("db", "upgrade", "payment").code == 0
    letter = ("saga.cmd.payment.capture-payment", "no handler", *body, 3, "2026-01-01", "d")
    columns = "subject, reason, body, deliveries, at, digest"
    execute(here, "payment", f"INSERT INTO dead_letters ({columns}) VALUES (?, ?, ?, ?, ?, ?)", letter)  # noqa: S608
    refused = here("dlq", "redrive", "--role", "payment", "--reason", "release 7")
    assert (refused.code, refused.out) == (4, "")
    assert f"payment/1 is not redriven: a person has answered for capture-payment of saga {saga_id}" in refused.err
    assert refused.err.endswith("; --force sends it all the same\n0 redriven, 1 not\n")
    forced = here("dlq", "redrive", "payment/1", "--reason", "it was the other order", "--force")
    assert (forced.code, forced.out) == (0, "payment/1\n")


def test_a_saga_runs_again_as_a_new_one(here: Here) -> None:
    [saga_id] = tell(here.folder, (completed, "k"))
    made = here("fork", "k", "--from", "sell-stock", "--reason", "a new printer", "--by", "ada", "--json").json()
    assert (made["fork_of"], made["steps"]) == (saga_id, ["sell-stock", "confirm-order"])
    assert f"fork of {saga_id}" in here("get", made["saga_id"]).out
    again = here("fork", "k", "--reason", "once more")
    assert (again.code, here.get(again.out.strip())["fork_of"]) == (0, None)


def test_a_saga_is_asked_what_it_knows(here: Here) -> None:
    saga_id = here.start("till", customer_id="bob").out.strip()
    assert [line.split() for line in here("query", saga_id).out.splitlines()] == [
        ["query"], ["customer", "Who", "pays."], ["broken"],
    ]  # fmt: skip
    assert here("query", saga_id, "customer").json() == "bob"
    failed = here("query", saga_id, "broken")
    assert (failed.code, failed.out) == (1, "")
    assert "the query broken of till failed: ZeroDivisionError" in failed.err


# --- starting ----------------------------------------------------------------------------------------------------


def test_a_saga_that_does_not_begin_at_once_says_why(here: Here) -> None:
    limited = here.start("till", "--label", "region=eu", "--priority", "7", "--at", "+2h")
    saga_id = limited.out.strip()
    assert limited.code == 0
    assert "it begins when it may: not before " in limited.err
    assert ", and at most 2 of till are in flight, and at most 10 in 1 s of till begin" in limited.err

    seen = here.get(saga_id)
    assert (seen["status"], seen["labels"], seen["priority"]) == ("waiting", {"region": "eu"}, 7)
    printed = here("get", saga_id).out
    for fact in ("labels region=eu", "priority 7", "begins at "):
        assert fact in printed
    found = here("ls", "--status", "waiting", "--label", "region=eu", "--json").json()
    assert [one["id"] for one in found] == [saga_id]
    assert here("ls", "--label", "region=us", "--json").json() == []

    past = here.start("hold-stock", "--at", "2026-01-01T00:00:00+01:00")
    assert here.status(past.out.strip()) == "waiting"  # until the orchestrator admits it
    assert "begins when there is room for it" in here("get", past.out.strip()).out


def test_a_key_that_is_taken_is_returned_refused_or_used_again_after_a_failure(here: Here) -> None:
    order = an_order()

    async def failed(desk: Desk, key: str) -> str:
        saga_id = (await desk.start(order, key)).saga_id
        await desk.receive(answer(f"{saga_id}/open-order/do", "refused"))
        return saga_id

    [saga_id] = tell(here.folder, (failed, "k"))
    assert here.start("place-order", "--key", "k", **order).out.strip() == saga_id
    rejected = here.start("place-order", "--key", "k", "--if-taken", "reject", **order)
    assert (rejected.code, f"the key is taken by saga {saga_id}\n" in rejected.err) == (4, True)
    anew = here.start("place-order", "--key", "k", "--if-taken", "after-failure", **order)
    assert (anew.code, anew.out.strip() == saga_id) == (0, False)
    bad = here.start("place-order", "--label", "Region=eu", **order)
    assert (bad.code, "the input is refused: label 'Region'" in bad.err) == (1, True)


# --- many at once ----------------------------------------------------------------------------------------------------


def test_all_of_one_incident_go_on_by_the_command_that_incidents_prints(here: Here) -> None:
    back, other, pivot = tell(
        here.folder, (stuck_on_the_way_back, "a"), (stuck_on_the_way_back, "b"), (stuck_at_the_pivot, "c")
    )
    first, second = here("incidents", "--json").json()
    assert [(one["sagas"], one["example"]) for one in (first, second)] == [(2, back), (1, pivot)]
    printed = here("incidents").out
    assert first["incident"] in printed
    assert f"  {first['command']}\n" in printed

    program, *order = shlex.split(first["command"].replace("…", "the service is back"))
    shown = here(*order, "--dry-run")
    assert (program, shown.code, shown.err) == ("saga", 0, "2 would be retried\n")
    result = here(*order, "--yes")
    assert (result.code, result.out.split()) == (0, sorted([back, other]))
    assert result.err.endswith("2 retried\n")
    assert [here.status(key) for key in "abc"] == ["compensating", "compensating", "stuck"]
    assert [one["incident"] for one in here("incidents", "--json").json()] == [second["incident"]]
    resolved = here("resolve", "--incident", second["incident"], "--step", "capture-payment", *WHY.split(), "-y")
    assert (resolved.code, here("incidents").err) == (0, "no saga is stuck\n")


def test_it_stops_when_as_many_fail_as_may_and_tells_which(here: Here) -> None:
    tell(here.folder, (stuck_at_the_pivot, "a"), (stuck_at_the_pivot, "b"), (stuck_at_the_pivot, "c"))
    order = ["cancel", "--status", "stuck", "--reason", "not wanted", "--yes", "--max-failures", "2"]
    stopped = here(*order)
    assert (stopped.code, stopped.out) == (4, "")
    *told, summary, end = [line for line in stopped.err.splitlines() if "warning" not in line]
    assert [line.partition(" is not cancelled: ")[2] for line in told] == [
        "its pivot capture-payment was asked and may have happened"
    ] * 2
    assert (summary, end[:31]) == ("0 cancelled, 2 not cancelled", "stopped: 2 could not be cancell")
    lines = here(*order, "--json").json_lines()
    assert [(one["outcome"], "may have happened" in one["why"]) for one in lines] == [("refused", True)] * 2


# --- on a terminal, and on real parts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("reply", "code", "status"), [("n", 130, "stuck"), ("y", 0, "compensating")])
def test_on_a_terminal_a_person_is_asked_how_many_it_may_be(here: Here, reply: str, code: int, status: str) -> None:
    tell(here.folder, (stuck_on_the_way_back, "k"))
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "retry", "--status", "stuck", "--reason", "mended"],
        env=Saga(here.folder).environment(
            SAGA_DEFINITIONS=MODULES, SAGA_NATS_URL=NOBODY, SAGA_DATA_DIR=str(here.folder)
        ),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        os.write(ours, f"{reply}\n".encode())
        _, told = command.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert "retry 1 saga (status stuck), at most 50 a second? [y/N]:" in told
    assert (command.returncode, here.status("k")) == (code, status)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Saga]:
    """A `saga dev` with stock, accounts and the sagas of the tests."""
    saga = Saga(tmp_path, SAGA_DEFINITIONS=MODULES)
    with saga.dev() as dev:
        (tmp_path / "stock.csv").write_text("sku,quantity\nlamp,100\n")
        (tmp_path / "accounts.csv").write_text("customer_id,balance\nada,1000.00\n")
        assert saga("seed", "--stock", "stock.csv", "--accounts", "accounts.csv").code == 0
        dev.until_says("ready")
        yield saga


def test_a_person_holds_up_approves_and_follows_a_family_of_sagas(shop: Saga) -> None:
    """The parent is paused before its child is approved; only when it is resumed does it go on."""
    (shop.folder / "sale.json").write_text('{"order_id": "o-1"}')
    start = ("start", "sell-on-approval", "-i", "sale.json", "--key", "parent", "--label", "region=eu")
    parent = shop(*start).out.strip()

    def child_of() -> str:
        children: dict[str, str] = shop("get", parent, "--json").json()["children"]
        return children.get("approved-hold", "")

    child = next(found for _ in range(60) if (found := child_of()))
    shown = shop("get", child)
    assert f"parent {parent} (running)" in shown.out
    [command] = [line.strip() for line in shown.err.splitlines() if "--data" in line]
    assert f"child {child} of step approved-hold (running)" in shop("get", parent).out

    assert shop("pause", "--label", "region=eu", "--reason", "lunch", "--yes").out.split() == [parent]
    approved = shop(*shlex.split(command.replace("…", "eve"))[1:], "--by", "eve")
    assert (approved.code, approved.err) == (0, f"saga {child} is signalled; its status is running\n")
    waited = shop(*start, "--wait", "--timeout", "3")
    assert waited.code == 124
    assert (shop("get", child, "--json").json()["status"], shop("ls", "-s", "paused", "--json").json()[0]["id"]) == (
        "completed",
        parent,
    )
    assert shop("resume", parent, "--reason", "back").code == 0
    ended = shop(*start, "--wait", "--json").json()
    assert (ended["saga_id"], ended["status"]) == (parent, "completed")
    assert shop("verify").code == 0
