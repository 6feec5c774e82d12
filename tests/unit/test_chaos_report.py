"""The report of a chaos run: what follows from a record, in figures, in sentences, on a terminal and in JSON."""

import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from rich.console import Console

from chaos.record import Fault, Invariant, Record, Sample, Violation
from chaos.report import figures, terminal, words
from chaos.report.data import NoRecord, load, to_json
from orchestrator.cli.main import main
from tests.support.chaos_runs import an_hour, broken, calm, chaos_run, empty, records, unsettled


def fault(at: float, until: float, recovered_at: float | None, kind: str = "kill", target: str = "order-1") -> Fault:
    return Fault(kind=kind, target=target, at=at, until=until, recovered_at=recovered_at)


def shown(record: Record, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    terminal.show(record, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def saga(*arguments: str) -> int:
    """Run the command in this process. Returns its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["saga", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


def cells(text: str, first: str) -> list[str]:
    """Of the first line that begins with this, as they are told apart by spaces."""
    line = next(line for line in text.splitlines() if line.startswith(first))
    return line.removeprefix(first).split()


# --- figures ----------------------------------------------------------------------------------------------------------


def test_recovery_counts_from_when_the_fault_struck() -> None:
    [kind] = figures.kinds([fault(10, 12, 15), fault(20, 28, 24), fault(50, 51, None)])
    assert kind.recoveries == [4, 5]
    assert (kind.recovery, kind.worst, kind.unrecovered) == (4.5, 5, 1)
    assert kind.worst_after_its_end == 3, "of the first; the second was recovered from while it lasted"
    assert kind.lasted == 2


def test_without_a_recovery_none_is_made_up() -> None:
    [kind] = figures.kinds([fault(50, 51, None)])
    assert (kind.recovery, kind.worst, kind.worst_after_its_end, kind.unrecovered) == (None, None, None, 1)


def test_kinds_are_those_that_fired() -> None:
    record = an_hour()
    assert {kind.name: kind.fired for kind in figures.kinds(record.faults)} == record.fired
    assert list(record.fired) == [kind.name for kind in figures.kinds(record.faults)]
    assert sum(record.fired.values()) == 1500


def test_what_was_never_recovered_from_comes_first_among_the_slowest() -> None:
    quick, slow, never = fault(1, 1, 2), fault(2, 2, 9), fault(3, 3, None)
    assert figures.slowest([quick, slow, never]) == [never, slow, quick]


def test_a_violation_of_what_is_not_listed_is_told_as_well() -> None:
    record = chaos_run(
        invariants=[Invariant(name="stock", sentence="It is constant.", checked=3)],
        violations=[Violation(invariant=name, message="no") for name in ("stock", "stock", "liveness")],
    )
    assert [(claim.name, claim.checked, claim.broken) for claim in figures.held(record)] == [
        ("stock", 3, 2),
        ("liveness", 0, 1),
    ]


# --- sentences --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0:00.0"), (59.96, "1:00.0"), (90, "1:30.0"), (3700.25, "1:01:40.2"), (-1, "0:00.0")]
)
def test_times_of_a_run_read_like_a_clock(seconds: float, said: str) -> None:
    assert words.clock(seconds) == said


def test_faults_that_struck_when_nothing_was_in_flight_have_tried_little() -> None:
    looks = [(0, 0, 0), (1, 10, 0), (2, 10, 10), (3, 10, 10), (4, 10, 10), (5, 12, 10)]  # at, started, completed
    samples = [Sample(at=at, started=began, completed=ended, compensated=0, stuck=0) for at, began, ended in looks]
    idle, at_work, before_more = fault(2.5, 3.0, None), fault(1.5, 2.0, None), fault(4.5, 5.0, None)
    run = chaos_run(samples=samples)
    counts = [figures.idle(run.model_copy(update={"faults": (one,)})) for one in (idle, at_work, before_more)]
    assert counts == [1, 0, 0]
    mostly = run.model_copy(update={"faults": (idle, idle, at_work)})
    assert "2 of 3 faults struck when no saga was in flight: more orders help." in list(words.doubts(mostly))


def test_a_passed_run_may_leave_doubts() -> None:
    assert words.tone(chaos_run()) == "good"
    assert list(words.doubts(chaos_run())) == []
    assert list(words.doubts(unsettled())) == ["Not every saga has ended: 38 running, 12 stuck."]
    untried = chaos_run(invariants=[*chaos_run().invariants, Invariant(name="refunds", sentence="", checked=0)])
    assert words.tone(untried) == "doubtful"
    assert list(words.doubts(untried)) == ["The invariant refunds was held against nothing."]


@pytest.mark.parametrize(
    "record",
    [
        broken(),
        calm(),
        empty(),
        unsettled(),
        chaos_run().model_copy(update={"sagas": {"compensated": 9}}),
        chaos_run(settled_after=None),
        chaos_run(invariants=[]),
        chaos_run(invariants=[Invariant(name="refunds", sentence="", checked=0)]),
    ],
    ids=lambda one: one.verdict,
)
def test_a_failed_run_is_shown_as_one(record: Record) -> None:
    assert words.tone(record) == "bad"


def test_nothing_is_told_of_a_last_fault_that_never_was() -> None:
    assert "after the last fault" in " ".join(words.story(chaos_run()))
    assert "last fault" not in " ".join(words.story(calm()))


def test_a_run_that_has_proved_nothing_says_why() -> None:
    assert unsettled().verdict == "not every saga was seen to end, so nothing was proved"
    assert chaos_run(invariants=[]).verdict == "no invariant was held against anything, so nothing was proved"


def test_one_violation_is_one() -> None:
    assert chaos_run(violations=broken().violations[:1]).verdict == "1 violation"
    assert broken().verdict == "3 violations"


def test_what_cannot_be_seen_is_shown_as_its_escape() -> None:
    said = words.printable("a\x1b[31m\u202e\x00\nb é ✓")
    assert said == "a\\x1b[31m\\u202e\\x00\nb é ✓"


# --- the terminal -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [an_hour(), broken(), calm(), unsettled(), empty()], ids=lambda one: one.verdict)
def test_at_80_columns_nothing_is_cut(record: Record) -> None:
    narrow, wide = shown(record), shown(record, 1000)
    assert max(map(len, narrow.splitlines())) <= 80  # the command is shorter here
    assert narrow.split() == wide.split()


def test_the_terminal_says_what_the_record_says() -> None:
    record = an_hour()
    text = shown(record)
    assert text.startswith("✓ No violations\n")
    for kind in figures.kinds(record.faults):
        assert cells(text, f"{kind.name} ")[0] == f"{kind.fired}"
    for one in record.invariants:
        assert cells(text, f"{one.name} ") == [f"{one.checked:,}"]
    assert f"\nseed {record.seed}; to run it again:\n  {record.reproduce}\n" in text
    assert f"{record.sagas['completed']:,} completed, {record.sagas['compensated']:,} compensated" in text


def test_the_terminal_shows_each_violation_with_its_saga_and_rows() -> None:
    text = shown(broken(), 200)
    for violation in broken().violations:
        assert violation.message in text
        assert (violation.saga_id or "") in text
        assert all(f"    {row}\n" in text for row in violation.rows)


def test_of_very_many_violations_the_terminal_shows_the_first_and_how_many_more() -> None:
    text = shown(chaos_run(violations=broken().violations[:1] * (terminal.SHOWN + 1234)))
    assert text.count("violation: ") == terminal.SHOWN
    assert "… and 1,234 more" in text


def test_the_command_stays_on_one_line() -> None:
    long = "saga chaos run mix " + "--very-long-option " * 20
    assert long.strip() in shown(chaos_run(reproduce=long.strip()))


@settings(deadline=None)
@given(records)
def test_whatever_a_record_says_nothing_of_it_moves_the_terminal(record: Record) -> None:
    assert all(char.isprintable() or char == "\n" for char in shown(record))


# --- JSON -------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(records)
def test_the_json_is_the_record_and_what_follows_from_it(record: Record) -> None:
    written = json.loads(json.dumps(to_json(record)))
    assert Record.model_validate(written) == record
    assert written["fired"] == record.fired
    assert written["verdict"] == record.verdict


def test_the_json_tells_the_recovery_by_kind() -> None:
    record = chaos_run(faults=0).model_copy(
        update={"faults": (fault(1, 2, 4), fault(5, 6, 6), fault(7, 8, None), fault(9, 9, None, "cut"))}
    )
    assert to_json(record)["recovery"] == {
        "cut": {"median": None, "worst": None, "unrecovered": 1},
        "kill": {"median": 2, "worst": 3, "unrecovered": 1},
    }


def test_a_file_that_is_no_record_is_refused_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    with pytest.raises(NoRecord, match=r"run\.json: No such file"):
        load(file)
    file.write_text('{"scenario": "mix"}')
    with pytest.raises(NoRecord, match=r"run\.json is not the JSON of a chaos run: seed: Field required"):
        load(file)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("record", "status"), [(chaos_run(), 0), (broken(), 8), (calm(), 1)])
def test_a_kept_run_can_be_read_again(
    record: Record, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, html = tmp_path / "run.json", tmp_path / "run.html"
    file.write_text(json.dumps(to_json(record)))
    assert saga("chaos", "show", str(file), "--html", str(html)) == status
    assert words.verdict(record) in capsys.readouterr().out
    assert f'<span id="verdict">{words.verdict(record)}</span>' in html.read_text()


def test_a_run_that_is_not_there_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert saga("chaos", "show", str(tmp_path / "none.json")) == 1
    assert capsys.readouterr().err == f"saga: {tmp_path / 'none.json'}: No such file or directory\n"
