"""The words of the state machine: the state of a saga, what happens to it, and what its log says. No I/O.

`machine` is the grammar. Everything here is an immutable value that goes to JSON and back unchanged.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter

# --- the state of a saga -----------------------------------------------------------------------------------------


class Phase(StrEnum):
    """Which way a saga is going, or how it ended."""

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


@dataclass(frozen=True, slots=True)
class StepState:
    """One step of one saga.

    `attempt` counts every asking in the present direction, `tries` those under the present policy (a person's retry
    starts it anew), `round` the command ids. `stuck` is why nothing more happens by itself.
    """

    status: StepStatus = StepStatus.PENDING
    round: int = 1
    attempt: int = 0
    tries: int = 0
    due_at: datetime | None = None
    stuck: str | None = None


@dataclass(frozen=True, slots=True)
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

    @property
    def stuck(self) -> str | None:
        """Why a person must act; None when nobody has to."""
        return next((f"{name}: {step.stuck}" for name, step in self.steps.items() if step.stuck), None)

    @property
    def status(self) -> str:
        """`running`, `compensating`, `completed`, `compensated` or `stuck`."""
        return "stuck" if self.stuck else self.phase.value

    @property
    def due_at(self) -> datetime | None:
        """When the next timer fires."""
        due = [step.due_at for step in self.steps.values() if step.due_at is not None]
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


# --- what happens to a saga ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answered:
    """A participant has answered a command. `data` is the reply's data, or `{"code", "reason"}` of a refusal."""

    command_id: str
    outcome: Literal["done", "refused"]
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The wait for an answer to one attempt of a command is over."""

    command_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Retried:
    """A person wants what is stuck to be tried again."""

    by: str
    reason: str


Event = Answered | TimedOut | Retried

# --- what is written in the log --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The saga was accepted."""

    definition: str
    version: int
    fingerprint: str
    data: dict[str, Any]
    steps: list[str]
    kind: Literal["started"] = "started"


@dataclass(frozen=True, slots=True)
class Asked:
    """A step's command was sent."""

    step: str
    round: int
    attempt: int
    tries: int
    due_at: datetime
    kind: Literal["asked"] = "asked"


@dataclass(frozen=True, slots=True)
class Done:
    """A step is done. `data` is what the saga knows from now on; None when the reply added nothing."""

    step: str
    data: dict[str, Any] | None = None
    kind: Literal["done"] = "done"


@dataclass(frozen=True, slots=True)
class RefusedStep:
    """A step was refused. `due_at` is when it is asked again, where it must succeed."""

    step: str
    code: str
    reason: str
    due_at: datetime | None = None
    kind: Literal["refused"] = "refused"


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A reversible step stayed without an answer until its policy was spent."""

    step: str
    kind: Literal["given-up"] = "given-up"


@dataclass(frozen=True, slots=True)
class UndoAsked:
    """A step's undo was sent."""

    step: str
    round: int
    attempt: int
    tries: int
    due_at: datetime
    kind: Literal["undo-asked"] = "undo-asked"


@dataclass(frozen=True, slots=True)
class Undone:
    """Nothing of a step is left."""

    step: str
    kind: Literal["undone"] = "undone"


@dataclass(frozen=True, slots=True)
class UndoRefused:
    """An undo was answered "no". It is asked again at `due_at`."""

    step: str
    code: str
    reason: str
    due_at: datetime | None
    kind: Literal["undo-refused"] = "undo-refused"


@dataclass(frozen=True, slots=True)
class CompensationStarted:
    """The way back began, for this reason."""

    reason: str
    kind: Literal["compensation-started"] = "compensation-started"


@dataclass(frozen=True, slots=True)
class Completed:
    """Every effect is there."""

    kind: Literal["completed"] = "completed"


@dataclass(frozen=True, slots=True)
class Compensated:
    """No effect is left."""

    kind: Literal["compensated"] = "compensated"


@dataclass(frozen=True, slots=True)
class Stuck:
    """Nothing more happens to a step by itself: a person must act."""

    step: str
    reason: str
    kind: Literal["stuck"] = "stuck"


@dataclass(frozen=True, slots=True)
class RetryOrdered:
    """A person ordered what is stuck to be tried again."""

    by: str
    reason: str
    kind: Literal["retry-ordered"] = "retry-ordered"


Entry = (
    Started
    | Asked
    | Done
    | RefusedStep
    | GivenUp
    | UndoAsked
    | Undone
    | UndoRefused
    | CompensationStarted
    | Completed
    | Compensated
    | Stuck
    | RetryOrdered
)

ENTRIES: Final[TypeAdapter[list[Entry]]] = TypeAdapter(list[Annotated[Entry, Field(discriminator="kind")]])
"""The entries of one decision, to and from JSON."""

SAGA: Final[TypeAdapter[Saga]] = TypeAdapter(Saga)
"""The state of a saga, to and from JSON."""
