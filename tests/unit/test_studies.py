"""The studies: what is kept of a run, what the page shows of it, and that no figure on the page was typed."""

import json
import platform
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import typer.main

from benchmarks.errors import RunFailed
from benchmarks.options import Options
from benchmarks.peers.runner import names
from benchmarks.studies import numbers
from benchmarks.studies.__main__ import DOCS, main
from benchmarks.studies.catalogue import STUDIES
from benchmarks.studies.page import render, rendered
from benchmarks.studies.plots import draw
from benchmarks.studies.runs import Run, falls_behind, in_short, of_bench, of_peer
from benchmarks.studies.scale import PEERS, Scale
from benchmarks.studies.store import FOLDER, PAGE, Results, about, load, save
from benchmarks.studies.study import good
from benchmarks.studies.tables import FAILED, NOT_MADE, part
from orchestrator.cli.main import app

SAGA: Final[Any] = typer.main.get_command(app)
ABOUT: Final = {
    "measured": "2026-01-02",
    "seconds": 480,
    "quick": False,
    "machine": {"cpu": "Abacus 3", "cores": 2, "memory_mib": 24105, "kernel": "Linux 6.1"},
    "versions": {"Amends": "0.1.0", "Python": "3.11.7"},
}
FIGURES: Final = {"sagas": 1000, "p50_ms": 12.34, "p99_ms": 56.7, "cpu_ms": 1.234}
HISTORY: Final = Results(
    ABOUT,
    [
        {"history": 0, "sagas_per_second": 2000.0, **FIGURES},
        {"history": 100_000, "sagas_per_second": 1900.4, **FIGURES},
        {"history": 1_000_000, "error": "2 violations, the first of books: 3 are missing"},
    ],
)
PEER_ROWS: Final = [
    {"steps": 3, "system": "Amends", "sagas_per_second": 3000.0, **FIGURES},
    {"steps": 3, "system": "Restate", "sagas_per_second": 60.0, "version": "1.7", "in_flight": 50, **FIGURES},
    {"steps": 3, "system": "DBOS", "sagas_per_second": 100.0, "version": "3.4", "in_flight": 16, **FIGURES},
    {"steps": 5, "system": "Amends", "sagas_per_second": 700.0, **FIGURES},
    {"steps": 5, "system": "Restate", "error": "it did not end"},
]
LATENCY_ROWS: Final = [
    {"system": "Amends", "rate": rate, "p50_ms": 4.0, "p99_ms": 9.0, "sagas_per_second": float(rate)}
    for rate in (10, 50, 200)
]
DRAWN: Final = {
    "history": HISTORY,
    "peers": Results(ABOUT, PEER_ROWS),
    "latency": Results(ABOUT, LATENCY_ROWS),
    "throughput": Results(
        ABOUT,
        [
            {
                "saga": "three steps",
                "how": "PostgreSQL",
                "sagas_per_second": 2000.0,
                "roof_per_second": 8000.0,
                **FIGURES,
            }
        ],
    ),
}

# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_shows_what_was_measured_and_nothing_else() -> None:
    page = (DOCS / PAGE).read_text(encoding="utf-8")
    assert page == rendered(page, DOCS), "the page and the results differ: run `python -m benchmarks.studies --redraw`"


def test_the_page_has_a_place_for_every_study() -> None:
    page = (DOCS / PAGE).read_text(encoding="utf-8")
    assert re.findall(r"<!-- study: (\S+) -->", page) == list(STUDIES)


def test_every_study_that_was_made_has_its_plot() -> None:
    kept = {name: results for name in STUDIES if (results := load(DOCS, name))}
    made = {name for name, results in kept.items() if good(results.rows)}
    assert made == {file.stem for file in (DOCS / FOLDER).glob("*.svg")}


def test_prose_stays_and_what_is_between_the_marks_is_replaced(tmp_path: Path) -> None:
    def page(history: str, sync: str) -> str:
        marked = [
            f"<!-- study: {name} -->\n{text}<!-- end -->" for name, text in (("history", history), ("sync", sync))
        ]
        return f"Before.\n\n{marked[0]}\n\nBetween.\n\n{marked[1]}\n\nAfter.\n"

    save(tmp_path, "history", HISTORY)
    (tmp_path / PAGE).write_text(page("stale 1,234\n", ""))

    render(tmp_path)

    found = (tmp_path / PAGE).read_text()
    assert found == page(part(STUDIES["history"], HISTORY), f"{NOT_MADE}\n")
    assert rendered(found, tmp_path) == found


def test_a_mark_of_a_study_that_there_is_not_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="wishes"):
        rendered("<!-- study: wishes -->\n<!-- end -->", tmp_path)


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_has_the_figures_the_failure_and_what_it_was_measured_on() -> None:
    assert part(STUDIES["history"], HISTORY).splitlines() == [
        "| ended before | sagas | sagas/s | p50, ms | p99, ms | CPU, ms a saga | of the first |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| 0 | 1,000 | 2,000 | 12.3 | 56.7 | 1.23 |  |",
        "| 100,000 | 1,000 | 1,900 | 12.3 | 56.7 | 1.23 | 0.95 |",
        "| 1,000,000 | **failed** |  |  |  |  |  |",
        "",
        "**failed**: ended before 1,000,000: 2 violations, the first of books: 3 are missing  ",
        "<sub>2026-01-02, 3 runs in 8 min. Amends 0.1.0, Python 3.11.7. 2 cores of Abacus 3, 24 GiB, Linux 6.1.</sub>",
        "",
        "![Sagas that have ended before](performance/history.svg)",
    ]


def test_a_quick_trial_is_not_taken_for_a_measurement() -> None:
    shown = part(STUDIES["history"], replace(HISTORY, about=ABOUT | {"quick": True}))
    assert "A quick trial, no measurement." in shown


def test_a_study_whose_runs_all_failed_has_a_table_and_no_picture() -> None:
    shown = part(STUDIES["history"], Results(ABOUT, [HISTORY.rows[2]]))
    assert FAILED in shown
    assert "![" not in shown


def test_peers_are_compared_with_us_at_the_same_number_of_steps_and_the_best_of_them_is_named() -> None:
    lines = part(STUDIES["peers"], Results(ABOUT, PEER_ROWS)).splitlines()
    assert [line.split(" | ")[-1].strip("| ") for line in lines[2:7]] == ["", "50", "30", "", ""]
    assert [line for line in lines if "the best of them" in line] == [
        "3 steps: Amends does 30 times what the best of them, DBOS, does.  "
    ]


def test_the_roof_is_compared_with_the_run_that_it_was_measured_in() -> None:
    row = next(line for line in part(STUDIES["throughput"], DRAWN["throughput"]).splitlines() if "three steps" in line)
    assert row.endswith("| 8,000 | 25% |")


@pytest.mark.parametrize(
    ("value", "shown"), [(12_345.6, "12,346"), (100.4, "100"), (99.95, "100.0"), (56.78, "56.8"), (1.234, "1.23")]
)
def test_figures_have_as_many_digits_as_are_significant(value: float, shown: str) -> None:
    assert numbers.rate(value) == shown


# --- plots ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWN)
def test_a_plot_is_the_same_whenever_it_is_drawn_and_says_what_it_shows(name: str, tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    file = tmp_path / FOLDER / f"{name}.svg"
    draw(STUDIES[name], DRAWN[name], tmp_path)
    first = file.read_text()
    draw(STUDIES[name], DRAWN[name], tmp_path)

    assert file.read_text() == first
    texts = {text.strip() for text in ET.fromstring(first).itertext()}
    assert STUDIES[name].what in texts
    assert {panel.axis for panel in STUDIES[name].picture.panels} <= texts
    assert not re.search(r"<dc:date>|matplotlib\.org", first)


def test_nothing_is_drawn_of_a_study_whose_runs_all_failed(tmp_path: Path) -> None:
    draw(STUDIES["history"], Results(ABOUT, [HISTORY.rows[2]]), tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_what_is_kept_is_a_line_for_each_run(tmp_path: Path) -> None:
    save(tmp_path, "history", HISTORY)
    lines = (tmp_path / FOLDER / "history.json").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [ABOUT, *HISTORY.rows]
    assert load(tmp_path, "history") == HISTORY


def test_the_machine_is_told_and_its_name_is_not() -> None:
    told = about(quick=True, seconds=1.2)
    assert {"cpu", "cores", "memory_mib", "kernel"} == set(told["machine"])
    assert {"Amends", "Python", "PostgreSQL", "SQLite", "nats-server"} == set(told["versions"])
    assert platform.node() not in json.dumps(told)


def test_a_run_that_broke_a_promise_has_no_figures() -> None:
    violation = {"check": "books", "message": "3 are missing"}
    with pytest.raises(RunFailed, match="2 violations, the first of books: 3 are missing"):
        of_bench({"violations": [violation, violation], "sagas_per_second": 1e6})


def test_a_peer_that_failed_has_no_figures() -> None:
    with pytest.raises(RunFailed, match="did the work wrong"):
        of_peer({"results": [{"peer": "x", "error": "x did the work wrong: 1 saga"}]})


def test_a_command_that_fails_is_told_by_what_it_said_last() -> None:
    with pytest.raises(RunFailed) as caught:
        Run({}, ("json.tool", "--nonsense"), of_bench).carry_out()
    short = in_short(str(caught.value))
    assert short.startswith("it ended with status 2: ")
    assert short.endswith("unrecognized arguments: --nonsense")


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (
            "x ended with status 1. The end of /somewhere/run.log:\n  Traceback",
            "x ended with status 1. The end of run.log:",
        ),
        ("10 sagas/s and 3 of 4", "10 sagas/s and 3 of 4"),
        ("", "no reason was given"),
    ],
)
def test_on_the_page_an_error_is_a_line_without_paths(error: str, short: str) -> None:
    assert in_short(error) == short


@pytest.mark.parametrize(
    ("row", "behind"),
    [
        ({"rate": 50, "sagas_per_second": 49.5}, False),
        ({"rate": 50, "sagas_per_second": 34.0}, True),
        ({"rate": 50, "error": "it ended"}, True),
        ({"sagas_per_second": 1.0}, False),
    ],
)
def test_who_ends_fewer_than_come_falls_behind(row: dict[str, Any], behind: bool) -> None:
    assert falls_behind(row) is behind


# --- the runs ---------------------------------------------------------------------------------------------------------


def runs_of(module: str, scale: Scale) -> list[Run]:
    return [run for study in STUDIES.values() for run in study.runs(scale) if run.command[0] == module]


def options_of(run: Run) -> Options:
    """As `saga bench` reads the words."""
    _, command, words = SAGA.resolve_command(SAGA.make_context("saga", list(run.command[1:])), list(run.command[1:]))
    given = command.make_context("bench", words).params
    assert given.pop("json")
    roof, in_flight = not given.pop("no_roof"), given.pop("in_flight") or 1000
    return Options(**given | {"data_dir": Path(given["data_dir"])}, roof=roof, in_flight=in_flight)


@pytest.mark.parametrize("quick", [True, False])
def test_the_runs_of_ours_are_what_the_benchmark_can_do(quick: bool) -> None:
    found = [options_of(run) for run in runs_of("orchestrator.cli", Scale(quick))]
    assert {(one.steps, one.database) for one in found} >= {(3, "sqlite"), (5, "postgresql"), (None, "postgresql")}
    assert {one.history for one in found} == ({0, 100, 1000} if quick else {0, 100_000, 1_000_000})
    assert max(one.orders for one in found) <= (200 if quick else 50_000)


def test_every_peer_is_measured() -> None:
    assert set(PEERS) == set(names())
    assert {run.command[1] for run in runs_of("benchmarks.peers", Scale())} == set(PEERS)


def test_runs_of_a_study_are_told_apart_by_their_labels() -> None:
    for study in STUDIES.values():
        labels = [tuple(run.labels.items()) for run in study.runs(Scale())]
        assert len(labels) == len(set(labels)), study.name
        shown = {key for column in study.columns if column.is_label for key in column.keys}
        assert shown == {key for run in study.runs(Scale()) for key in run.labels}


def test_what_there_is_can_be_listed_with_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(STUDIES)
    assert main(["--list", "sync"]) == 0
    assert sum("--sync-always" in line for line in capsys.readouterr().out.splitlines()) == 1


def test_a_study_that_there_is_not_is_refused_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["wishes"])
    assert ended.value.code == 2
    assert "there is no study 'wishes': choose from throughput, peers" in capsys.readouterr().err
