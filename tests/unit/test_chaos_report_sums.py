"""Many chaos runs together: they are summed, none is passed over, and no figure on docs/reliability.md was typed."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from chaos.faults import STRIKES
from chaos.record import Fault, Record
from chaos.report import sums
from chaos.report.data import NoRecord, load, to_json
from tests.support.chaos_runs import HOSTILE, broken, chaos_run, records, unsettled

DOCS = Path(__file__).parents[2] / "docs"
RUNS = (chaos_run(1), chaos_run(2), unsettled(), broken())


def keep(docs: Path, runs: tuple[Record, ...]) -> None:
    (docs / sums.FOLDER).mkdir()
    for number, record in enumerate(runs):
        (docs / sums.FOLDER / f"{number}.json").write_text(json.dumps(to_json(record)))


def cells(markdown: str) -> list[list[str]]:
    """Of the rows under the heading."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in markdown.splitlines()]
    assert len({len(row) for row in rows}) == 1
    return [[cell.strip() for cell in row] for row in rows[2:]]


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_has_a_place_for_every_table() -> None:
    page = (DOCS / "reliability.md").read_text(encoding="utf-8")
    assert re.findall(r"<!-- drawn: chaos (\S+) -->", page) == [*sums.PARTS, "scenarios"]


def test_what_was_kept_says_nothing_that_does_not_follow_from_it() -> None:
    for file in (DOCS / sums.FOLDER).glob("*.json"):
        assert json.loads(file.read_text(encoding="utf-8")) == json.loads(json.dumps(to_json(load(file)))), file.name


def test_without_runs_a_table_says_so(tmp_path: Path) -> None:
    assert sums.part("runs", sums.kept(tmp_path)) == sums.NOT_RUN


def test_a_file_that_is_no_record_is_not_passed_over(tmp_path: Path) -> None:
    keep(tmp_path, RUNS)
    (tmp_path / sums.FOLDER / "9.json").write_text("[]")
    with pytest.raises(NoRecord, match=r"9\.json is not the JSON of a chaos run"):
        sums.kept(tmp_path)


# --- the sums ---------------------------------------------------------------------------------------------------------


def test_every_run_counts(tmp_path: Path) -> None:
    keep(tmp_path, RUNS)
    found = sums.kept(tmp_path)
    assert found.records == RUNS
    told = dict(cells(sums.part("sum", found)))
    assert told["runs"] == "4, 2 failed"
    assert told["time under fire"] == "13 min"
    assert told["faults fired"] == f"{sum(len(run.faults) for run in RUNS)}"
    assert told["… kill"] == f"{sum(run.fired['kill'] for run in RUNS)}"
    assert told["sagas"] == f"{sum(sum(run.sagas.values()) for run in RUNS):,}"
    assert told["… completed"] == f"{sum(run.sagas['completed'] for run in RUNS):,}"
    assert told["… stuck"] == "12"
    assert told["**violations**"] == "**3**"


def test_what_a_reader_asks_for_is_told_in_plain_words() -> None:
    counts = {"kill": 1000, "kill-broker": 30, "kill-database": 20, "database-restart": 7}
    counts |= {"store-wipe": 5, "store-delete": 4, "store-abandon": 2, "store-rollback": 9, "cut": 50}
    fired = [Fault(kind=kind, target="x", at=1, until=1) for kind, count in counts.items() for _ in range(count)]
    told = dict(cells(sums.part("sum", sums.Sum((chaos_run(faults=0),)))))
    assert {told[what] for what in sums.TOGETHER} == {"0"}
    halves = (chaos_run(faults=0).model_copy(update={"faults": tuple(half)}) for half in (fired[:600], fired[600:]))
    told = dict(cells(sums.part("sum", sums.Sum(tuple(halves)))))
    assert {what: told[what] for what in sums.TOGETHER} == {
        "SIGKILLs of our processes": "1,000",
        "faults that were a SIGKILL: to ours, to nats-server, to PostgreSQL": "1,050",
        "losses of the broker's whole store: wiped, deleted, abandoned": "11",
        "rollbacks of the broker's store": "9",
        "restarts of PostgreSQL: immediate shutdown, SIGKILL": "27",
    }


def test_what_is_told_together_are_kinds_that_there_are() -> None:
    assert {kind for of in sums.TOGETHER.values() for kind in of} <= set(STRIKES)


@settings(deadline=None, max_examples=50)
@given(some.lists(records, min_size=1, max_size=4))
def test_a_sum_is_the_sum(runs: list[Record]) -> None:
    found = sums.Sum(tuple(runs))
    faults = Counter(fault.kind for run in runs for fault in run.faults)
    assert found.fired == dict(faults)
    assert {kind.name: kind.fired for kind in found.kinds} == dict(faults)
    assert found.checked == sum(one.checked for run in runs for one in run.invariants)
    assert found.violations == sum(len(run.violations) for run in runs)
    assert sum(found.sagas.values()) == sum(sum(run.sagas.values()) for run in runs)


@settings(deadline=None, max_examples=50)
@given(some.lists(records, min_size=1, max_size=4))
def test_whatever_runs_say_a_row_is_a_row(runs: list[Record]) -> None:
    found = sums.Sum(tuple(runs))
    assert len(cells(sums.part("runs", found))) == len(runs)
    assert len(cells(sums.part("faults", found))) == len(found.fired)


def test_each_run_has_its_verdict_and_its_command() -> None:
    rows = cells(sums.part("runs", sums.Sum(RUNS)))
    assert [row[-2] for row in rows] == ["no violations"] * 2 + [f"**{run.verdict}**" for run in RUNS[2:]]
    assert [row[-1] for row in rows] == [f"`{run.reproduce}`" for run in RUNS]


def test_text_of_a_record_is_no_markup() -> None:
    shown = sums.part("runs", sums.Sum((chaos_run(scenario=HOSTILE, reproduce="saga `x` | y"),)))
    assert "<script>" not in shown.replace("\\<", "")
    assert "`` saga `x` \\| y ``" in shown
