"""What the log of a saga says. Entries go to JSON and back unchanged; folded, they are the saga's state. No I/O."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter

from orchestrator.model import Caller


@dataclass(frozen=True, slots=True)
class Started:
    """The saga was accepted. `by` and `reason`: who ordered a fork, and why."""

    definition: str
    version: int
    fingerprint: str
    data: dict[str, Any]
    steps: list[str]
    waits: bool = False
    begins_at: datetime | None = None
    deadline_at: datetime | None = None
    caller: Caller | None = None
    fork_of: str | None = None
    taken_over: list[str] = field(default_factory=list)
    by: str | None = None
    reason: str | None = None
    kind: Literal["started"] = "started"


@dataclass(frozen=True, slots=True)
class Begun:
    """The saga waited, and begins. `deadline_at` is counted from now."""

    deadline_at: datetime | None = None
    kind: Literal["begun"] = "begun"


@dataclass(frozen=True, slots=True)
class Expanded:
    """A step's items were counted: it stands for these instances from now on."""

    step: str
    instances: list[str]
    kind: Literal["expanded"] = "expanded"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A step's condition does not hold, or it has no items: there is nothing to do."""

    step: str
    kind: Literal["skipped"] = "skipped"


@dataclass(frozen=True, slots=True)
class SignalReceived:
    """A signal came."""

    step: str
    outcome: Literal["done", "refused"]
    data: dict[str, Any]
    by: str
    kind: Literal["signal-received"] = "signal-received"


@dataclass(frozen=True, slots=True)
class Asked:
    """A step's command was sent, or its wait begins. Without a `due_at` it waits for ever.

    `no_return`: it is the pivot, so that the deadline no longer counts.
    """

    step: str
    round: int
    attempt: int
    tries: int
    due_at: datetime | None
    no_return: bool = False
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
    due_at: datetime | None
    kind: Literal["undo-asked"] = "undo-asked"


@dataclass(frozen=True, slots=True)
class Undone:
    """Nothing of a step is left."""

    step: str
    kind: Literal["undone"] = "undone"


@dataclass(frozen=True, slots=True)
class Dropped:
    """A wait or a delay no longer counts: the saga turns back, and there is nothing to undo but time."""

    step: str
    kind: Literal["dropped"] = "dropped"


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


@dataclass(frozen=True, slots=True)
class CancelOrdered:
    """A person ordered the saga to turn back."""

    by: str
    reason: str
    kind: Literal["cancel-ordered"] = "cancel-ordered"


@dataclass(frozen=True, slots=True)
class Paused:
    """A person ordered that nothing more is sent."""

    by: str
    reason: str
    kind: Literal["paused"] = "paused"


@dataclass(frozen=True, slots=True)
class Resumed:
    """A person let the saga go on."""

    by: str
    reason: str
    kind: Literal["resumed"] = "resumed"


@dataclass(frozen=True, slots=True)
class DoneByHand:
    """A person answers for it that a step is done. `data` as in `Done`, `no_return` as in `Asked`."""

    step: str
    by: str
    reason: str
    data: dict[str, Any] | None = None
    no_return: bool = False
    kind: Literal["done-by-hand"] = "done-by-hand"


@dataclass(frozen=True, slots=True)
class UndoneByHand:
    """A person answers for it that nothing of a step is left."""

    step: str
    by: str
    reason: str
    kind: Literal["undone-by-hand"] = "undone-by-hand"


@dataclass(frozen=True, slots=True)
class UndoOrdered:
    """Whoever started the saga wants it undone, and to be told."""

    caller: Caller
    kind: Literal["undo-ordered"] = "undo-ordered"


Entry = (
    Started
    | Begun
    | Expanded
    | Skipped
    | SignalReceived
    | Asked
    | Done
    | RefusedStep
    | GivenUp
    | UndoAsked
    | Undone
    | Dropped
    | UndoRefused
    | CompensationStarted
    | Completed
    | Compensated
    | Stuck
    | RetryOrdered
    | CancelOrdered
    | Paused
    | Resumed
    | DoneByHand
    | UndoneByHand
    | UndoOrdered
)

ENTRIES: Final[TypeAdapter[list[Entry]]] = TypeAdapter(list[Annotated[Entry, Field(discriminator="kind")]])
"""The entries of one decision, to and from JSON."""
