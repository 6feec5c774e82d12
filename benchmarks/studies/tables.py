"""Tables for the page, and what stands under them: when and on what it was measured, and which runs have failed."""

from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.studies import numbers
from benchmarks.studies.runs import Row
from benchmarks.studies.store import FOLDER, Results
from benchmarks.studies.study import Column, Rows, Study, good

NOT_MADE: Final = "*Not measured yet.*"
FAILED: Final = "**failed**"


def part(study: Study, results: Results | None) -> str:
    """All that the page shows of a study, in Markdown."""
    if results is None:
        return f"{NOT_MADE}\n"
    return "\n".join([*_table(study.columns, results.rows), "", *_under(study, results)])


def _table(columns: Sequence[Column], rows: Rows) -> Iterator[str]:
    yield _line([column.heading for column in columns])
    yield _line(["---" if column.is_label else "---:" for column in columns])
    for row in rows:
        yield _line(list(_cells(columns, row, rows)))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(columns: Sequence[Column], row: Row, rows: Rows) -> Iterator[str]:
    """A row that failed has its labels, and the news in place of the first figure."""
    told = False
    for column in columns:
        if column.is_label or "error" not in row:
            yield column.show(row, rows).replace("|", "\\|")
        else:
            yield "" if told else FAILED
            told = True


def _under(study: Study, results: Results) -> Iterator[str]:
    rows = good(results.rows)
    for sentence in study.remark(rows):
        yield f"{sentence}  "
    for row in results.rows:
        if "error" in row:
            yield f"{FAILED}: {name_of(study, row)}: {row['error']}  "
    yield f"<sub>{_caption(results)}</sub>\n"
    if rows:
        yield f"![{study.what}]({FOLDER}/{study.name}.svg)\n"


def name_of(study: Study, row: Row) -> str:
    """A run, in words: `steps 3, system DBOS`."""
    labels = (column for column in study.columns if column.is_label)
    return ", ".join(f"{column.heading} {column.show(row, [row])}" for column in labels)


def _caption(results: Results) -> str:
    about, machine = results.about, results.about["machine"]
    runs = f"{len(results.rows)} runs in {numbers.time(about['seconds'])}"
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    memory = f"{machine['memory_mib'] / 1024:.0f} GiB"
    parts = f"{machine['cores']} cores of {machine['cpu']}, {memory}, {machine['kernel']}"
    trial = "A quick trial, no measurement. " if about["quick"] else ""
    return f"{trial}{about['measured']}, {runs}. {versions}. {parts}."
