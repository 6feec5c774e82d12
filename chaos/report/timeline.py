"""What the page draws of a run, in seconds of the run: windows of samples, and a lane of faults for each kind.

A page has about a thousand pixels. What is finer than that is gathered, so that neither its size nor its looks depend
on how long the run was: samples into windows, of which a rate is the mean and what is in flight the most; faults of a
crowded lane into marks that say how many they stand for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from chaos.record import Fault, Record, Sample
from chaos.report import figures, words
from chaos.report.figures import Kind

WINDOWS: Final = 720
FEW: Final = 60
SAGAS: Final = 5
"""So many end in a window at least, in the mean: of fewer a rate would only be noise."""

FINEST: Final = 0.001
"""Seconds. What happened in less time than this is no rate; in a moment it would be an infinite one."""

MARKS: Final = 400
"""In one lane."""

ROWS: Final = 3
"""Marks that would cover each other stand in rows, at most so many to a lane."""


@dataclass(frozen=True, slots=True)
class Window:
    """What samples saw between two moments. Rates are sagas a second."""

    at: float
    until: float
    started: float
    completed: float
    compensated: float
    in_flight: int
    """The most that a sample saw."""

    stuck: int
    """At its end."""

    @property
    def ended(self) -> float:
        """Sagas a second, either way."""
        return self.completed + self.compensated


def windows(samples: Sequence[Sample], most: int | None = None) -> list[Window]:
    """The samples, gathered into windows of about the same length. Counts begin with 0 when the run does."""
    ordered = sorted(samples, key=lambda sample: sample.at)
    if not ordered:
        return []
    most = most or min(WINDOWS, max(FEW, ordered[-1].completed // SAGAS))
    length = ordered[-1].at / most
    before, gathered = Sample(at=0, started=0, completed=0, compensated=0, stuck=0), list[Sample]()
    found: list[Window] = []
    for sample in ordered:
        gathered.append(sample)
        is_over = len(found) + 1 < most and sample.at >= (len(found) + 1) * length
        if sample.at > before.at and (is_over or sample is ordered[-1]):  # which closes the last one
            found.append(_window(before, gathered))
            before, gathered = sample, []
    return found


def _window(before: Sample, gathered: Sequence[Sample]) -> Window:
    last = gathered[-1]
    seconds = max(last.at - before.at, FINEST)
    return Window(
        before.at,
        last.at,
        (last.started - before.started) / seconds,
        (last.completed - before.completed) / seconds,
        (last.compensated - before.compensated) / seconds,
        max(sample.in_flight for sample in gathered),
        last.stuck,
    )


@dataclass(frozen=True, slots=True)
class Mark:
    """A fault, or several of a crowded lane; `recovered` is None when there was no recovery after one of them."""

    faults: tuple[Fault, ...]

    @property
    def at(self) -> float:
        """When the first struck."""
        return min(fault.at for fault in self.faults)

    @property
    def until(self) -> float:
        """When the last was taken back."""
        return max(max(fault.until, fault.at) for fault in self.faults)

    @property
    def recovered(self) -> float | None:
        """When all were recovered from."""
        moments = [fault.recovered_at for fault in self.faults if fault.recovered_at is not None]
        return max(self.until, *moments) if len(moments) == len(self.faults) else None

    @property
    def told(self) -> str:
        """In a line."""
        return words.fault(self.faults[0]) if len(self.faults) == 1 else words.together(self.faults)


@dataclass(frozen=True, slots=True)
class Lane:
    """All faults of one kind."""

    kind: Kind
    marks: tuple[tuple[Mark, int], ...]
    """Each with the row that it stands in, from 0."""

    @property
    def rows(self) -> int:
        """How many it takes."""
        return max(row for _, row in self.marks) + 1


def lanes(record: Record) -> list[Lane]:
    """One for each kind that fired."""
    end = figures.last_moment(record)
    return [Lane(kind, tuple(_in_rows(list(_marks(kind.faults, end)), end))) for kind in figures.kinds(record.faults)]


def _marks(faults: Sequence[Fault], end: float) -> Iterator[Mark]:
    if len(faults) <= MARKS:
        yield from (Mark((fault,)) for fault in faults)
        return
    together: dict[int, list[Fault]] = {}
    for fault in faults:
        together.setdefault(int(fault.at / end * MARKS), []).append(fault)
    yield from (Mark(tuple(near)) for near in together.values())


def _in_rows(marks: Sequence[Mark], end: float) -> Iterator[tuple[Mark, int]]:
    """Into the first row that is free; into the one that is free soonest when none is."""
    taken = [-1.0]
    for mark in marks:
        row = next((row for row, until in enumerate(taken) if until < mark.at), None)
        if row is None and len(taken) < ROWS:
            row = len(taken)
            taken.append(-1.0)
        if row is None:
            row = taken.index(min(taken))
        taken[row] = end if mark.recovered is None else mark.recovered
        yield mark, row


STEPS: Final = (0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)


def ticks(end: float, most: int = 7) -> list[float]:
    """Round times, from 0, with no more than so many steps between them."""
    step = next((step for step in STEPS if end / step <= most), max(end / most, STEPS[-1]))
    return [number * step for number in range(int(end / step) + 1)]


def round_up(value: float) -> float:
    """The top of an axis: the next of 1, 2, 4, 5, 8 times a power of ten, so that its half is round as well."""
    power = 1.0
    while power * 10 <= value:
        power *= 10
    return next(float(factor * power) for factor in (1, 2, 4, 5, 8, 10) if factor * power >= value)
