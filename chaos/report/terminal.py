"""A run on the terminal: the verdict first, then what was thrown at it, what came out, and how to do it again."""

from collections.abc import Iterator
from typing import Final

from rich.console import Console, RenderableType
from rich.text import Text

from chaos.record import Record, Violation
from chaos.report import figures, words
from chaos.report.figures import Held, Kind
from chaos.report.words import printable, time
from orchestrator.cli import console

SHOWN: Final = 20
"""Violations; the JSON has them all."""

SLOWEST: Final = 5
STYLES: Final[dict[words.Tone, str]] = {"good": "bold green", "doubtful": "bold yellow", "bad": "bold red"}
MARKS: Final[dict[words.Tone, str]] = {"good": "✓", "doubtful": "?", "bad": "✗"}


def show(record: Record, on: Console) -> None:
    """Everything that a person wants to see of a run. The command is one line, to be pasted, however long it is."""
    for piece in tables(record):
        on.print(piece)
    on.print(f"\nseed {record.seed}; to run it again:")
    on.print(f"  {printable(record.reproduce)}", markup=False, soft_wrap=True)


def tables(record: Record) -> Iterator[RenderableType]:
    """What was found, piece by piece: all but the command."""
    tone = words.tone(record)
    yield Text(f"{MARKS[tone]} {words.verdict(record)}", STYLES[tone])
    yield from map(Text, words.story(record))
    yield from (Text(doubt, "yellow") for doubt in words.doubts(record))
    if record.violations:
        yield from _violations(record.violations)
    if record.faults:
        yield ""
        yield _faults(record)
        yield ""
        yield _slowest(record)
    if claims := figures.held(record):
        yield ""
        yield _table(("invariant", "held against", "broken"), map(_held, claims))


def _faults(record: Record) -> console.PlainTable:
    headings = ("fault", "fired", "lasted", "median recovery", "worst", "unrecovered")
    return _table(headings, map(_kind, figures.kinds(record.faults)))


def _kind(kind: Kind) -> tuple[str, ...]:
    unrecovered = f"{kind.unrecovered:,}" if kind.unrecovered else ""
    return kind.name, f"{kind.fired:,}", time(kind.lasted), time(kind.recovery), time(kind.worst), unrecovered


def _slowest(record: Record) -> console.PlainTable:
    rows = (
        (f"{fault.kind} {fault.target}", words.clock(fault.at), time(figures.recovery(fault)))
        for fault in figures.slowest(record.faults)[:SLOWEST]
    )
    return _table(("slowest to recover from", "at", "recovered after"), rows)


def _held(claim: Held) -> tuple[str, ...]:
    return claim.name, f"{claim.checked:,}", f"{claim.broken:,}" if claim.broken else ""


def _table(headings: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> console.PlainTable:
    """The first column is whatever somebody called it: it is folded, where the figures are not."""
    cells = (map(printable, row) for row in rows)
    return console.table(headings, cells, right=headings[1:], wrapped=headings[:1])


def _violations(violations: tuple[Violation, ...]) -> Iterator[Text]:
    yield Text("")
    for one in violations[:SHOWN]:
        of_saga = f" (saga {one.saga_id})" if one.saga_id else ""
        yield Text(printable(f"violation: {one.invariant}{of_saga}: {one.message}"), "red")
        yield from (Text(printable(f"    {row}")) for row in one.rows)
    if len(violations) > SHOWN:
        yield Text(f"… and {len(violations) - SHOWN:,} more: --json has them all")
