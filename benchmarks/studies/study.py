"""What a study is: its runs, the columns of its table, and what is drawn of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.studies.runs import Row, Run
from benchmarks.studies.scale import Scale

Rows = Sequence[Row]


@dataclass(frozen=True, slots=True)
class Column:
    """Of a table. `show` is given a row that has not failed, and all rows to compare it with."""

    heading: str
    show: Callable[[Row, Rows], str]
    keys: tuple[str, ...]
    """The figures that it is made of: what is shown nowhere is not kept."""

    is_label: bool = False
    """Whether it says which run it was, so that it is there when the run failed."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One of the plots that stand side by side."""

    key: str
    axis: str
    mark: str | None = None
    """A figure that is marked with a line over each bar."""


@dataclass(frozen=True, slots=True)
class Bars:
    """Groups of bars: a group for each value of `group`, in it a bar for each value of `series`."""

    panels: tuple[Panel, ...]
    group: str
    axis: str
    series: str | None = None
    log: bool = False
    marked: str = ""
    """What the mark is."""


@dataclass(frozen=True, slots=True)
class Lines:
    """A line for each value of `series`, over the numbers of `along`."""

    panels: tuple[Panel, ...]
    along: str
    axis: str
    series: str


@dataclass(frozen=True, slots=True)
class Study:
    """A question that runs answer."""

    name: str
    what: str
    """One line for whoever chooses among the studies; it is also the title of the plot."""

    runs: Callable[[Scale], list[Run]]
    columns: tuple[Column, ...]
    picture: Bars | Lines
    remark: Callable[[Rows], Sequence[str]] = lambda rows: ()
    """Sentences about all rows, for under the table; the rows are those that have not failed."""

    @property
    def keys(self) -> frozenset[str]:
        """The figures that are kept."""
        shown = {key for column in self.columns for key in column.keys}
        return frozenset(shown | {key for panel in self.picture.panels for key in (panel.key, panel.mark) if key})


def label(key: str, heading: str, show: Callable[[Any], str] = str) -> Column:
    """A column that says which run it was."""
    return Column(heading, lambda row, _: show(row[key]), (key,), is_label=True)


def figure(key: str, heading: str, show: Callable[[Any], str]) -> Column:
    """A column of a figure as it was measured."""
    return Column(heading, lambda row, _: "" if row.get(key) is None else show(row[key]), (key,))


def good(rows: Rows) -> list[Row]:
    """The rows that have figures."""
    return [row for row in rows if "error" not in row]
