"""The figures of docs/simulation.md: every run that was kept counts, once, and none was typed."""

import json
from pathlib import Path
from typing import Any

import pytest

from simulation.runner import Report
from simulation.sums import NOT_RUN, NoFigures, kept, table

DOCS = Path(__file__).parents[2] / "docs"


def keep(docs: Path, name: str, seed: int, **differently: Any) -> dict[str, Any]:
    report = Report(seed, schedules=10, sagas=21, virtual_seconds=3600.0)
    report.ends.update({"completed": 11, "compensated": 10})
    report.faults.update({"broker-away": 3, "process-crashed": 4})
    said = report.to_json() | differently
    (docs / "simulation").mkdir(exist_ok=True)
    (docs / "simulation" / name).write_text(json.dumps(said))
    return said


def cells(markdown: str) -> dict[str, str]:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.splitlines()[2:]]
    return {row[0]: row[1] for row in rows}


def test_the_page_shows_what_was_kept_and_nothing_else() -> None:
    page = (DOCS / "simulation.md").read_text(encoding="utf-8")
    between = f"<!-- drawn: runs of the simulation -->\n{table(kept(DOCS))}<!-- end of runs of the simulation -->"
    assert between in page, "page and runs differ: run `make docs`"


def test_every_run_that_was_kept_counts(tmp_path: Path) -> None:
    keep(tmp_path, "a.json", 100)
    found = {"seed": 105, "check": "every-saga-ends", "message": "…", "reproduce": "…"}
    keep(tmp_path, "b.json", 110, violations=[found])
    told = cells(table(kept(tmp_path)))
    assert (told["runs"], told["schedules"], told["virtual time, in hours"]) == ("2", "20", "2.0")
    assert told["… of runs without a violation"] == "10"
    assert (told["sagas"], told["… completed"], told["… compensated"]) == ("42", "22", "20")
    assert told["faults that fired, and what people did"] == "14"
    assert (told["… broker-away"], told["… process-crashed"]) == ("6", "8")
    assert told["**violations**"] == "**1**"


def test_a_schedule_counts_once(tmp_path: Path) -> None:
    keep(tmp_path, "a.json", 100)
    keep(tmp_path, "b.json", 109)
    with pytest.raises(NoFigures, match="from seed 100 and from seed 109 played the same schedules"):
        kept(tmp_path)


def test_a_file_that_no_run_has_printed_is_not_passed_over(tmp_path: Path) -> None:
    keep(tmp_path, "a.json", 100)
    (tmp_path / "simulation" / "b.json").write_text("[]")
    with pytest.raises(NoFigures, match=r"b\.json is not what `saga simulate --json` prints"):
        kept(tmp_path)


def test_without_runs_the_page_says_so(tmp_path: Path) -> None:
    assert table(kept(tmp_path)) == NOT_RUN
