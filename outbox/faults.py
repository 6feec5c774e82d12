"""Named crash points: the places where a process may die, so that a test can make it die there.

A process passes `<role>.<point>`; the points of every role are listed in `POINTS`. In production
the points cost one call of an empty function.
"""

import os
import signal
from dataclasses import dataclass, field
from typing import Final, Protocol

POINTS: Final = (
    "received",  # a batch is in hand, nothing is written yet
    "before-commit",  # all is written, nothing is committed
    "committed",  # committed, neither published nor acknowledged
    "published",  # the broker has the messages, the outbox still holds them
    "before-ack",  # the broker may deliver the batch again
    "acked",  # all is said and done
)


class Faults(Protocol):
    """Is told of every crash point that is passed."""

    def reach(self, point: str) -> None:
        """`point` has been reached: return to go on."""
        ...


class NoFaults:
    """What production runs with."""

    def reach(self, point: str) -> None:
        """Goes on."""


@dataclass
class CrashAt:
    """Kills this process with SIGKILL when `point` is reached for the `hit`-th time."""

    point: str
    hit: int = 1
    _reached: dict[str, int] = field(default_factory=dict)

    def reach(self, point: str) -> None:
        """Dies, or counts and goes on."""
        self._reached[point] = self._reached.get(point, 0) + 1
        if point == self.point and self._reached[point] == self.hit:
            os.kill(os.getpid(), signal.SIGKILL)


def faults_from(text: str) -> Faults:
    """`""` -> no faults; `"orchestrator.committed:3"` -> crash when that point is reached for the third time."""
    if not text:
        return NoFaults()
    point, _, hit = text.partition(":")
    if point.partition(".")[2] not in POINTS or not (hit or "1").isdecimal():
        raise ValueError(f"{text!r} is not a crash point: write <role>.<point>[:<hit>], point one of {POINTS}")
    return CrashAt(point, int(hit or 1))
