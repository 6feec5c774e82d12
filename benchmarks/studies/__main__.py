"""`python -m benchmarks.studies`: makes the studies behind docs/performance.md, one run after another.

Nothing else may work on the machine meanwhile. Exit 1 when a run has failed: it is shown as such, and the others count.
"""

import argparse
import importlib.util
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.errors import RunFailed
from benchmarks.options import DATABASES
from benchmarks.studies import numbers, page
from benchmarks.studies.catalogue import STUDIES
from benchmarks.studies.runs import Row, Run, falls_behind, in_short
from benchmarks.studies.scale import Scale
from benchmarks.studies.store import PAGE, Results, about, load, save
from benchmarks.studies.study import Study

DOCS: Final = Path(__file__).parents[2] / "docs"
QUICK_DOCS: Final = "quick"
ADVICE: Final = (
    "The plots are drawn by matplotlib, which is not installed: pip install -c constraints.txt -e '.[bench]'"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. 1 when a run failed, 2 when it was asked for what there is not."""
    given = _parse(arguments)
    chosen = [STUDIES[name] for name in given.names or STUDIES]
    scale = Scale(given.quick, given.database, given.data_dir)
    docs = given.docs or (scale.folder / QUICK_DOCS if given.quick else DOCS)
    if given.list:
        _list(chosen, scale, docs, with_commands=bool(given.names))
        return 0
    if importlib.util.find_spec("matplotlib") is None:
        print(ADVICE, file=sys.stderr)
        return 2
    try:
        return _redraw(chosen, docs) if given.redraw else _make(chosen, scale, docs)
    except KeyboardInterrupt:
        print("\nStopped. The studies that were complete are kept.", file=sys.stderr)
        return 130


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.studies", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(STUDIES)}; all when none is given")
    parser.add_argument("--list", action="store_true", help="say what there is; with a NAME also what its runs are")
    parser.add_argument("--quick", action="store_true", help="tiny runs, to see that it works: not for the page")
    parser.add_argument("--redraw", action="store_true", help="no runs: render page and plots from what is kept")
    parser.add_argument(
        "--database", choices=DATABASES, default="postgresql", help="of the studies that are about none (postgresql)"
    )
    parser.add_argument(
        "--data-dir", type=Path, default=Path(".bench"), metavar="DIR", help="on a real disk, for the runs (.bench)"
    )
    parser.add_argument(
        "--docs", type=Path, metavar="DIR", help=f"where {PAGE} is (docs; with --quick a folder in the data folder)"
    )
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in STUDIES]:
        parser.error(f"there is no study {unknown[0]!r}: choose from {', '.join(STUDIES)}")
    return given


def _list(chosen: Sequence[Study], scale: Scale, docs: Path, *, with_commands: bool) -> None:
    for study in chosen:
        runs, kept = study.runs(scale), load(docs, study.name)
        took = f"last made in {numbers.time(kept.about['seconds'])}" if kept else "never made"
        print(f"{study.name:<12}{study.what} ({len(runs)} runs, {took})")
        for run in runs if with_commands else ():
            print(f"    python -m {shlex.join(run.command)}")


def _make(chosen: Sequence[Study], scale: Scale, docs: Path) -> int:
    failed = False
    for study in chosen:
        results = _carry_out(study, scale)
        save(docs, study.name, results)
        _show([study], docs)
        failed |= results.failed
        print(f"{study.name}: {numbers.time(results.about['seconds'])}", flush=True)
    return int(failed)


def _redraw(chosen: Sequence[Study], docs: Path) -> int:
    _show(chosen, docs)
    return 0


def _show(chosen: Sequence[Study], docs: Path) -> None:
    """The plots of these, and the page."""
    from benchmarks.studies import plots

    for study in chosen:
        if (results := load(docs, study.name)) is not None:
            plots.draw(study, results, docs)
    page.render(docs)


def _carry_out(study: Study, scale: Scale) -> Results:
    """Make all runs; those above a rung on which a system fell behind are passed over."""
    runs, rows, began = study.runs(scale), [], time.monotonic()
    behind: set[str] = set()
    for number, run in enumerate(runs, 1):
        name = ", ".join(f"{key} {value}" for key, value in run.labels.items())
        print(f"{study.name} {number}/{len(runs)}: {name} … ", end="", flush=True)
        if run.ladder in behind:
            print("passed over: it fell behind at a lower rate", flush=True)
            continue
        row = _row(study, run)
        rows.append(row)
        if run.ladder is not None and falls_behind(row):
            behind.add(run.ladder)
    return Results(about(quick=scale.quick, seconds=time.monotonic() - began), rows)


def _row(study: Study, run: Run) -> Row:
    began = time.monotonic()
    labels = dict(run.labels)
    try:
        found = run.carry_out()
    except RunFailed as error:
        print(f"FAILED ({numbers.time(time.monotonic() - began)})\n{error}", flush=True)
        return labels | {"error": in_short(str(error))}
    speed = numbers.rate(found["sagas_per_second"])
    print(f"{speed} sagas/s ({numbers.time(time.monotonic() - began)})", flush=True)
    return labels | {key: value for key, value in found.items() if key in study.keys and value is not None}


if __name__ == "__main__":
    sys.exit(main())
