"""What can be known of a saga and of what lies around it. Immutable values, no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from orchestrator.definition import Action

SETTINGS: Final = ("config", "show")
"""The arguments of `saga` that show where everything is looked for."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter that speaks of a command. `useless` when redriving it cannot help; `alike` speak of it as well."""

    id: str
    reason: str
    useless: bool = False
    alike: int = 0


@dataclass(frozen=True, slots=True)
class Failing:
    """A message whose handling raises errors: how often it has, how often it may, and the last one."""

    tries: int
    most: int
    reason: str


@dataclass(frozen=True, slots=True)
class Relative:
    """The saga that a step has started."""

    id: str
    status: str


@dataclass(frozen=True, slots=True)
class OpenStep:
    """A step that something is awaited of.

    `asked` counts the attempts of its present command, of which there are at most `attempts`; None: no end.
    """

    name: str
    action: Action
    participant: str | None
    undo: bool = False
    asked: int = 1
    attempts: int | None = None
    since: datetime | None = None
    last_asked_at: datetime | None = None
    due_at: datetime | None = None
    refusal: str | None = None
    """Why it was refused, when it is to be asked again."""

    unpublished_since: datetime | None = None
    """Its command is still in the orchestrator's outbox."""

    is_answered: bool | None = None
    """Whether the participant has an answer to it in its inbox; None: unknown."""

    is_answer_unpublished: bool = False
    letter: Letter | None = None
    """The participant has buried the command."""

    answer_letter: Letter | None = None
    """The orchestrator has buried the answer."""

    failing: Failing | None = None
    """The participant cannot handle the command, and tries it again."""

    answer_failing: Failing | None = None
    """The orchestrator cannot take the answer, and tries again."""

    child: Relative | None = None
    signal: tuple[str, ...] = ()
    """The command that gives the signal it waits for."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """Why a person must act, and the likeliest command."""

    step: str
    reason: str
    command: tuple[str, ...] = ()
    letter: Letter | None = None


@dataclass(frozen=True, slots=True)
class Paused:
    """Who paused a saga, why, and when."""

    by: str
    why: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Queue:
    """What a saga that waits to begin waits for. `next_at`: when its rate lets the next one begin.

    `window` is how many of its definition the installation lets be at work (SAGA_MAX_IN_FLIGHT), None: any number.
    """

    begins_at: datetime | None
    ahead: int = 0
    in_flight: int = 0
    max_in_flight: int | None = None
    next_at: datetime | None = None
    at_work: int = 0
    window: int | None = None

    @property
    def has_room(self) -> bool:
        """Whether neither its definition nor the installation holds it back."""
        is_ours = self.max_in_flight is None or self.in_flight < self.max_in_flight
        return is_ours and (self.window is None or self.at_work < self.window)


@dataclass(frozen=True, slots=True)
class Listeners:
    """One role, as the broker and its database tell of it.

    `waiting` and `in_hand` are messages at its consumer, None without one; `listeners` ask for more at this moment.
    `is_at_work`: somebody was given one, or has acknowledged one, lately. What the dead had in hand stays in hand.
    """

    role: str
    listeners: int = 1
    waiting: int | None = 0
    in_hand: int = 0
    is_at_work: bool = False
    database: str | None = None
    """Why its database could not be asked, as a clause."""

    is_ours: bool = True
    """Whether `saga run` runs it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything. `broker` is why NATS could not be asked, as a clause, and `broker_command` what then helps."""

    saga_id: str
    definition: str
    version: int
    fingerprint: str
    status: str
    now: datetime
    is_loaded: bool = True
    failure: str | None = None
    ended_at: datetime | None = None
    deadline_at: datetime | None = None
    is_compensating: bool = False
    paused: Paused | None = None
    stuck: Stuck | None = None
    queue: Queue | None = None
    steps: tuple[OpenStep, ...] = ()
    services: Mapping[str, Listeners] = field(default_factory=dict)
    broker: str | None = None
    broker_command: tuple[str, ...] = SETTINGS
