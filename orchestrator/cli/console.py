"""What is printed, and where: data on stdout, all else on stderr; colours and bars only on a terminal."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import orjson
from rich.console import Console
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


WRAPPED: Final = ("reason", "note", "value", "")
"""Columns of prose; the others are kept on one line."""

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


def table(columns: Iterable[str], rows: Iterable[Iterable[str | Text]], *, right: Iterable[str] = ()) -> Table:
    """A plain table; columns named in `right` are aligned to the right."""
    built = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in set(right) else "left"
        built.add_column(column, justify=justify, overflow="fold", no_wrap=column not in WRAPPED)
    for row in rows:
        built.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))  # data is not markup
    return built


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
