"""Chance, out of one seed: what goes wrong, when, and to whom. Everything that is random asks here.

Which kinds of trouble a schedule has at all, and how often, is drawn as well (swarm testing: Groce et al. 2012): a
schedule that has everything at once hides what one that has only late acknowledgements and a slow replica shows.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final, TypeVar

T = TypeVar("T")

STEADY: Final[Mapping[str, tuple[float, float]]] = {
    "process-crashed": (0.001, 0.02),
    "process-paused": (0.001, 0.01),
    "process-slow": (0.005, 0.05),
    "connection-reset": (0.001, 0.02),
    "commit-unanswered": (0.005, 0.08),
    "publish-lost": (0.01, 0.2),
    "publish-unanswered": (0.01, 0.2),
    "message-forgotten": (0.01, 0.15),
    "message-doubled": (0.01, 0.25),
    "message-late": (0.01, 0.2),
    "message-overtaken": (0.05, 0.4),
    "acknowledgement-lost": (0.01, 0.25),
    "request-lost": (0.01, 0.3),
    "delivery-lost": (0.01, 0.2),
    "delivery-slow": (0.01, 0.2),
}
"""What may happen wherever it can, and how often it does at least and at most."""

SUDDEN: Final = (
    "broker-away",
    "broker-wiped",
    "broker-rolled-back",
    "stream-lost",
    "consumer-lost",
    "database-away",
    "clock-jumped",
    "clock-skewed",
    "role-away",
    "role-flapping",
    "role-slow",
    "process-killed",
    "process-frozen",
    "process-stopped",
    "garbage-sent",
)
"""What happens at a moment, to somebody."""


class Fate:
    """The chance of one schedule, and the record of what it brought."""

    def __init__(self, seed: int, now: Callable[[], float], *, tracing: bool = False) -> None:
        self.random = Random(seed)
        self.fired: Counter[str] = Counter()
        self.is_active = True
        self.lines: list[str] | None = [] if tracing else None
        self._now = now
        self.jitter = self.random.choice((0.02, 0.1, 0.1, 0.5))
        """At how many boundaries others get a turn."""

        self._rates = {kind: self._rate(low, high) for kind, (low, high) in STEADY.items()}

    def strikes(self, kind: str) -> bool:
        """Whether this kind of trouble happens here and now. If so it is counted."""
        rate = self._rates[kind]
        if not rate or not self.is_active or self.random.random() >= rate:
            return False
        self.count(kind)
        return True

    def count(self, kind: str, detail: str = "") -> None:
        """Something has gone wrong."""
        self.fired[kind] += 1
        if self.lines is not None:
            self.note(f"!! {kind} {detail}".rstrip())

    def note(self, line: str) -> None:
        """Something has happened."""
        if self.lines is not None:
            self.lines.append(f"{self._now():10.4f}  {line}")

    def some(self, kinds: Sequence[T], most: int) -> list[T]:
        """A few of these, at random."""
        return self.random.sample(kinds, self.random.randint(0, min(most, len(kinds))))

    def _rate(self, low: float, high: float) -> float:
        """Of two schedules one has none of it; the others have little more often than much."""
        if self.random.random() < 0.5:
            return 0.0
        return float(low * (high / low) ** self.random.random())
