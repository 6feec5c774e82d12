"""What is printed, and where: data on stdout, all else on stderr; colours and bars only on a terminal."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import orjson
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

STYLES: Final = {
    "completed": "green",
    "compensated": "yellow",
    "running": "cyan",
    "compensating": "magenta",
    "stuck": "bold red",
    "done": "green",
    "undone": "yellow",
    "refused": "yellow",
    "asked": "cyan",
    "undoing": "magenta",
    "undo-refused": "red",
    "unknown": "red",
    "pending": "dim",
    "waiting": "dim",
    "paused": "bold yellow",
    "skipped": "dim",
    "signal-received": "cyan",
}


WRAPPED: Final = ("reason", "note", "value", "faults", "")
"""Columns of prose; the others are kept on one line."""

LEAST_PROSE: Final = 24
GAP: Final = 1
"""Columns of a terminal."""

WIDE: Final = 1000
"""In a pipe nothing is wrapped."""


class ReaderGone(Exception):
    """Nobody reads our output any more, as in `saga log | head`: there is nothing left to do."""


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Rich would make an error of it."""
        raise ReaderGone


def out() -> Console:
    """For data."""
    return _Output(file=sys.stdout, width=None if sys.stdout.isatty() else WIDE, highlight=False)


def err() -> Console:
    """For everything else."""
    return Console(file=sys.stderr, width=None if sys.stderr.isatty() else WIDE, highlight=False)


def say(message: str) -> None:
    """A line for a person."""
    err().print(message, markup=False)


def say_command(line: str, indent: str = "  ") -> None:
    """A command that is ready to be pasted: it stays on one line, however long."""
    err().print(f"{indent}{line}", markup=False, soft_wrap=True)


def paste(*arguments: str, data_dir: Path | None = None) -> str:
    """A command of ours, ready to be pasted into a shell."""
    elsewhere = () if data_dir is None else ("--data-dir", str(data_dir))
    return f"{command()} {shlex.join([*arguments, *elsewhere])}"


def print_json(value: Any) -> None:
    """One JSON value, on one line."""
    try:
        sys.stdout.write(orjson.dumps(value, default=str).decode() + "\n")
        sys.stdout.flush()
    except BrokenPipeError as error:  # Typer would make an error of it
        raise ReaderGone from error


def status_text(status: str) -> Text:
    """A status in its colour."""
    return Text(status, STYLES.get(status, ""))


def table(
    columns: Iterable[str],
    rows: Iterable[Iterable[str | Text]],
    *,
    right: Iterable[str] = (),
    spare: Iterable[str] = (),
    wrapped: Iterable[str] = WRAPPED,
    with_head: bool = True,
) -> "PlainTable":
    """A plain table; columns in `right` are aligned to the right, and what is in `wrapped` may take several lines.

    Where there is no room for all, those named in `spare` are left out, the first of them first.
    """
    cells = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]  # data is not markup
    return PlainTable(list(columns), cells, frozenset(right), tuple(spare), frozenset(wrapped), with_head)


@dataclass(frozen=True)
class PlainTable:
    """Never cut: what has no room is left out as a whole column, or goes on in the next line."""

    columns: list[str]
    rows: list[list[Text]]
    right: frozenset[str]
    spare: tuple[str, ...]
    wrapped: frozenset[str]
    with_head: bool

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        """As much of it as there is room for."""
        shown = self.fitting(options.max_width)
        has_room = self._least_width(shown) <= options.max_width
        built = Table(box=None, pad_edge=False, header_style="bold", show_header=self.with_head)
        for place in shown:
            name = self.columns[place]
            justify: Literal["left", "right"] = "right" if name in self.right else "left"
            on_one_line = has_room and name not in self.wrapped
            least = self._widths[place] if on_one_line else None
            built.add_column(name, justify=justify, overflow="fold", no_wrap=on_one_line, min_width=least)
        for row in self.rows:
            built.add_row(*(row[place] for place in shown))
        yield built

    def fitting(self, width: int) -> list[int]:
        """The places of the columns for which there is room."""
        shown, spare = list(range(len(self.columns))), list(self.spare)
        while spare and self._least_width(shown) > width:
            shown.remove(self.columns.index(spare.pop(0)))
        return shown

    def _least_width(self, shown: Sequence[int]) -> int:
        return sum(self._least(place) for place in shown) + GAP * (len(shown) - 1)

    def _least(self, place: int) -> int:
        width = self._widths[place]
        return min(width, LEAST_PROSE) if self.columns[place] in self.wrapped else width

    @cached_property
    def _widths(self) -> list[int]:
        widths = [cell_len(name) for name in self.columns]
        for row in self.rows:
            widths = [max(width, cell.cell_len) for width, cell in zip(widths, row, strict=True)]
        return widths


def progress(description: str, total: float | None) -> tuple[Progress, Any]:
    """A progress bar on stderr, silent in a pipe. `count` is a text that stands behind the bar."""
    console = err()
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
    ]
    bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    return bar, bar.add_task(description, total=total, count="")


def command() -> str:
    """How this program is called from here: `saga`, or `.venv/bin/saga` when it is not on the PATH."""
    called, found = Path(sys.argv[0]), shutil.which("saga")
    if called.name != "saga" or (found and Path(found).resolve() == called.resolve()):
        return "saga"
    return os.path.relpath(called)


def time_of_day(at: datetime) -> str:
    """A local time, to the millisecond."""
    return at.astimezone().strftime("%H:%M:%S.%f")[:-3]


def day(at: datetime) -> str:
    """A local date and time, to the second."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
