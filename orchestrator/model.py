"""The state of a saga: an immutable value that goes to JSON and back unchanged. No I/O.

What happens to a saga is in `events`, what its log says in `entries`; `machine` is the grammar.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal, TypeVar

from pydantic import TypeAdapter


class Phase(StrEnum):
    """Which way a saga is going, or how it ended."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"


ENDED: Final = frozenset({Phase.COMPLETED, Phase.COMPENSATED})


class StepStatus(StrEnum):
    """What we know of a step."""

    PENDING = "pending"
    ASKED = "asked"
    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    UNDOING = "undoing"
    UNDO_REFUSED = "undo-refused"
    UNDONE = "undone"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class StepState:
    """One step of one saga.

    `attempt` counts every asking in the present direction, `tries` those under the present policy (a person's retry
    starts it anew), `round` the command ids. `stuck` is why nothing more happens by itself, `by_hand` that a person has
    answered for it, `refusal` why a participant last said no.
    """

    status: StepStatus = StepStatus.PENDING
    round: int = 1
    attempt: int = 0
    tries: int = 0
    due_at: datetime | None = None
    stuck: str | None = None
    by_hand: bool = False
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who wants to be told how a saga ends: the command that asked for it, and the subject for the answer."""

    command_id: str
    replyto: str
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Received:
    """A signal that has come before its turn."""

    outcome: Literal["done", "refused"]
    data: dict[str, Any]


@dataclass(frozen=True)
class Saga:
    """The state of one saga: what its log says, folded."""

    id: str
    definition: str
    version: int
    fingerprint: str
    data: dict[str, Any]
    steps: dict[str, StepState]
    phase: Phase = Phase.RUNNING
    failure: str | None = None
    begins_at: datetime | None = None
    deadline_at: datetime | None = None
    paused: str | None = None
    signals: dict[str, Received] = field(default_factory=dict)
    caller: Caller | None = None
    undoer: Caller | None = None
    fork_of: str | None = None

    @property
    def stuck(self) -> str | None:
        """Why a person must act; None when nobody has to."""
        return next((f"{name}: {step.stuck}" for name, step in self.steps.items() if step.stuck), None)

    @property
    def status(self) -> str:
        """`waiting`, `running`, `compensating`, `completed`, `compensated`, `stuck` or `paused`."""
        if self.phase in ENDED:
            return self.phase.value
        return "paused" if self.paused else "stuck" if self.stuck else self.phase.value

    @property
    def due_at(self) -> datetime | None:
        """When the next timer fires. A paused saga has none; when one that waits may begin is not a timer."""
        if self.paused or self.phase is Phase.WAITING:
            return None
        due = [step.due_at for step in self.steps.values() if step.due_at is not None]
        if self.deadline_at is not None and self.phase is Phase.RUNNING:
            due.append(self.deadline_at)
        return min(due, default=None)

    def command_id(self, step: str) -> str:
        """The id of the command that is out for this step, in the direction that its status says."""
        state = self.steps[step]
        going_back = state.status in (StepStatus.UNDOING, StepStatus.UNDO_REFUSED)
        return command_id(self.id, step, "undo" if going_back else "do", state.round)


Direction = Literal["do", "undo"]


def command_id(saga_id: str, step: str, direction: Direction, round: int = 1) -> str:
    """The stable id of a command: the same for every attempt."""
    base = f"{saga_id}/{step}/{direction}"
    return base if round == 1 else f"{base}/{round}"


V = TypeVar("V", StepState, Saga)


def changed(value: V, **fields: Any) -> V:
    """The same value with other fields: `dataclasses.replace` at a tenth of its price, for what happens at every event.

    It is why these two have no slots. Nothing is checked: the fields must be theirs.
    """
    after = object.__new__(type(value))
    after.__dict__.update(value.__dict__, **fields)
    return after


SAGA: Final[TypeAdapter[Saga]] = TypeAdapter(Saga)
"""The state of a saga, to and from JSON."""
