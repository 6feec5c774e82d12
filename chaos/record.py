"""The record of one chaos run: what was asked for, what really happened, and what was found. No I/O.

It is the seam between the run, which writes it, and the report (terminal, JSON, HTML), which only reads it. All times
are seconds since the run began.
"""

from datetime import datetime
from typing import Final

from pydantic import BaseModel, ConfigDict


class Recorded(BaseModel):
    """A fact of a run: it does not change any more."""

    model_config = ConfigDict(frozen=True)


class Fault(Recorded):
    """A fault that has really fired: who was hit, and when. What was planned and did not happen is none."""

    kind: str
    """`kill`, `pause`, `store-wipe`, `store-rollback`, `database-restart`, `cut`, …"""

    target: str
    """A process (`orchestrator-2`), a server (`nats-1`, `postgres`), or a line between two (`order-1>nats-1`)."""

    at: float
    until: float
    """When it was taken back: the process started again, the line mended. For what only lasts a moment: `at`."""

    recovered_at: float | None = None
    """When sagas ended again after it as they did before it; None when the run was over first."""

    detail: str = ""


class Sample(Recorded):
    """One look at the orchestrator's database. The numbers count from the beginning of the run."""

    at: float
    started: int
    completed: int
    compensated: int
    stuck: int

    @property
    def in_flight(self) -> int:
        """Neither ended nor stuck."""
        return self.started - self.completed - self.compensated - self.stuck


class Invariant(Recorded):
    """One claim that was held against the databases after the run, and how many things it was held against."""

    name: str
    sentence: str
    checked: int


class Violation(Recorded):
    """A claim that does not hold."""

    invariant: str
    message: str
    saga_id: str | None = None
    rows: tuple[str, ...] = ()


class Record(Recorded):
    """Everything about one run."""

    scenario: str
    seed: int
    reproduce: str
    """The one command that runs it again."""

    began: datetime
    duration: float
    """For how long orders came in and faults fired, without set-up and without the wait for the last saga."""

    settled_after: float | None
    """Seconds from the last fault until every saga had ended; None when some never did."""

    database: str
    brokers: int
    processes: dict[str, int]
    """Replicas by role."""

    samples: tuple[Sample, ...]
    faults: tuple[Fault, ...]
    sagas: dict[str, int]
    """How many there are by status, after the run."""

    invariants: tuple[Invariant, ...]
    violations: tuple[Violation, ...]

    @property
    def fired(self) -> dict[str, int]:
        """Faults by kind, in the order of the alphabet."""
        kinds = sorted({fault.kind for fault in self.faults})
        return {kind: sum(fault.kind == kind for fault in self.faults) for kind in kinds}

    @property
    def verdict(self) -> str:
        """`PASSED`, or a sentence that says why the run is a failed one."""
        if self.violations:
            return f"{len(self.violations):,} violation{'s' if len(self.violations) > 1 else ''}"
        if not self.faults:
            return "no fault has fired, so nothing was shown"
        if not self.sagas.get("completed"):
            return "no saga has completed, so nothing was shown"
        if self.settled_after is None:
            return "not every saga was seen to end, so nothing was proved"
        if not any(one.checked for one in self.invariants):
            return "no invariant was held against anything, so nothing was proved"
        return PASSED


PASSED: Final = "no violations"
