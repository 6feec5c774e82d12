"""What follows from a record. A figure that cannot be told is None, never 0."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from chaos.record import Fault, Record, Sample


def lasted(fault: Fault) -> float:
    """Seconds until the fault was taken back."""
    return max(0.0, fault.until - fault.at)


def recovery(fault: Fault) -> float | None:
    """Seconds from when it struck until sagas ended as before; None when the run was over first."""
    return None if fault.recovered_at is None else max(0.0, fault.recovered_at - fault.at)


def after_its_end(fault: Fault) -> float | None:
    """The part of the recovery after the fault was taken back: 0 when others had stepped in by then."""
    return None if fault.recovered_at is None else max(0.0, fault.recovered_at - fault.until)


@dataclass(frozen=True, slots=True)
class Kind:
    """All faults of one kind."""

    name: str
    faults: tuple[Fault, ...]

    @property
    def fired(self) -> int:
        """How often it happened."""
        return len(self.faults)

    @property
    def targets(self) -> int:
        """How many different ones were hit."""
        return len({fault.target for fault in self.faults})

    @property
    def lasted(self) -> float:
        """The median."""
        return median(lasted(fault) for fault in self.faults)

    @property
    def recoveries(self) -> list[float]:
        """Of those that were recovered from, the shortest first."""
        return sorted(told for fault in self.faults if (told := recovery(fault)) is not None)

    @property
    def recovery(self) -> float | None:
        """The median."""
        return median(self.recoveries) if self.recoveries else None

    @property
    def worst(self) -> float | None:
        """The longest recovery."""
        return max(self.recoveries, default=None)

    @property
    def worst_after_its_end(self) -> float | None:
        """The longest that recovery took once the fault was taken back."""
        return max((told for fault in self.faults if (told := after_its_end(fault)) is not None), default=None)

    @property
    def unrecovered(self) -> int:
        """After how many the run was over first."""
        return self.fired - len(self.recoveries)


def kinds(faults: Iterable[Fault]) -> list[Kind]:
    """In the order of the alphabet, as `Record.fired` has them."""
    found: dict[str, list[Fault]] = {}
    for fault in sorted(faults, key=lambda fault: (fault.kind, fault.at)):
        found.setdefault(fault.kind, []).append(fault)
    return [Kind(name, tuple(of_kind)) for name, of_kind in found.items()]


def slowest(faults: Iterable[Fault]) -> list[Fault]:
    """Those with the longest recovery first; before them those from which there was none."""
    return sorted(faults, key=lambda fault: (fault.recovered_at is not None, -(recovery(fault) or 0.0), fault.at))


@dataclass(frozen=True, slots=True)
class Held:
    """A claim, and how it fared."""

    name: str
    sentence: str
    checked: int
    broken: int


def held(record: Record) -> list[Held]:
    """The invariants; last those that only a violation tells of."""
    broken = Counter(violation.invariant for violation in record.violations)
    listed = [Held(one.name, one.sentence, one.checked, broken.pop(one.name, 0)) for one in record.invariants]
    return [*listed, *(Held(name, "", 0, count) for name, count in broken.items())]


def checked(record: Record) -> int:
    """How many things invariants were held against."""
    return sum(one.checked for one in record.invariants)


ENDED = ("completed", "compensated")


def total(sagas: dict[str, int]) -> int:
    """Of any status."""
    return sum(sagas.values())


def not_ended(record: Record) -> dict[str, int]:
    """Sagas by status that neither completed nor were compensated."""
    return {status: count for status, count in record.sagas.items() if count and status not in ENDED}


def idle(record: Record) -> int:
    """Faults that struck when no saga was in flight, and none came before the next look: they tried nothing."""
    return sum(_is_idle(record.samples, fault.at) for fault in record.faults)


def _is_idle(samples: Sequence[Sample], at: float) -> bool:
    place = bisect_right(samples, at, key=lambda sample: sample.at)
    if place == 0:
        return False
    before, after = samples[place - 1], samples[min(place, len(samples) - 1)]
    return not before.in_flight and after.started == before.started


def last_moment(record: Record) -> float:
    """Until when there is anything to draw: samples and recoveries go on after the last order."""
    moments = [record.duration, *(sample.at for sample in record.samples)]
    for fault in record.faults:
        moments += [fault.until, fault.recovered_at or fault.at]
    return max(moments)
