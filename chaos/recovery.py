"""How soon after a fault sagas ended again as they did before it. From the samples alone; no I/O.

Before it: the average over ten seconds, but no less than half of the average over the whole run, because the fault
before may not be over. Again: from then on, over three seconds, at least half as many. A fault that nobody noticed has
recovered when it came. While nobody could look (the database was away), nobody knows, so nothing has recovered: what
had ended by the next look may have ended all at once.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from chaos.record import Fault, Sample

BEFORE: Final = 10.0
AFTER: Final = 3.0
SHARE: Final = 0.5
UNSEEN: Final = 2.0
"""Seconds between two samples; when it is longer, somebody could not look, who does so once a second."""


def recovered(faults: Sequence[Fault], samples: Sequence[Sample], until: float) -> tuple[Fault, ...]:
    """The faults, each with the time from which it went on; orders came in until `until`."""
    if not samples:
        return tuple(faults)
    curve = _Curve(samples)
    usual = curve.rate(samples[0].at, until)
    return tuple(fault.model_copy(update={"recovered_at": _when(fault, curve, usual)}) for fault in faults)


def _when(fault: Fault, curve: "_Curve", usual: float) -> float | None:
    before = max(curve.rate(max(curve.first, fault.at - BEFORE), fault.at), SHARE * usual)
    times = [fault.at, *(at for at in curve.times if at > fault.at)]
    wanted = SHARE * before
    seen = (at for at in times if curve.is_seen(at, at + AFTER))
    return next((at for at in seen if curve.rate(at, at + AFTER) >= wanted), None)


class _Curve:
    """How many sagas had ended at any time, drawn between the samples."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.times = [sample.at for sample in samples]
        self._ended = [sample.completed + sample.compensated for sample in samples]
        self.first = self.times[0]

    def is_seen(self, start: float, end: float) -> bool:
        """Whether somebody looked all the while."""
        first, last = bisect_right(self.times, start) - 1, bisect_left(self.times, end)
        if first < 0 or last == len(self.times):
            return False
        looks = self.times[first : last + 1]
        return all(after - before <= UNSEEN for before, after in pairwise(looks))

    def rate(self, start: float, end: float) -> float:
        """Sagas that ended in a second."""
        return (self._at(end) - self._at(start)) / (end - start) if end > start else 0.0

    def _at(self, time: float) -> float:
        after = bisect_right(self.times, time)
        if after == 0:
            return float(self._ended[0])
        if after == len(self.times):
            return float(self._ended[-1])
        since, span = time - self.times[after - 1], self.times[after] - self.times[after - 1]
        return self._ended[after - 1] + (self._ended[after] - self._ended[after - 1]) * since / span
