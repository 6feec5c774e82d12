"""What happens to a saga: answers, timers, signals, and what people order. Immutable values, no I/O."""

from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.model import Caller


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
class Signalled:
    """A person or a webhook tells a saga what one of its steps waits for: yes, with data, or no, with `{"reason"}`."""

    step: str
    outcome: Literal["done", "refused"]
    data: dict[str, Any]
    by: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """A saga that waited may begin."""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The time that the whole saga had is over."""


@dataclass(frozen=True, slots=True)
class UndoRequested:
    """Whoever started the saga wants it undone."""

    caller: Caller


@dataclass(frozen=True, slots=True)
class Retried:
    """A person wants what is stuck to be tried again."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A person wants the saga to turn back.

    `pivot_did_not_happen` is a person's word for it, when the pivot was asked, is stuck, and the participant
    was looked at: without it a saga that has asked its pivot does not turn back.
    """

    by: str
    reason: str
    pivot_did_not_happen: bool = False


@dataclass(frozen=True, slots=True)
class PauseOrdered:
    """A person wants no more commands to be sent."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class ResumeOrdered:
    """A person lets a paused saga go on."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """A person answers for a step: it is done, with this reply, or on the way back: it is undone.

    Without a `step`: every step that is stuck.
    """

    by: str
    reason: str
    step: str | None = None
    reply: dict[str, Any] = field(default_factory=dict)


Order = Retried | Cancelled | PauseOrdered | ResumeOrdered | Resolved
"""What a person may want of a saga. Each is in the log with who and why."""

Event = Answered | TimedOut | Signalled | Admitted | DeadlinePassed | UndoRequested | Order
