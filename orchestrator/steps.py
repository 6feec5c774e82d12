"""The words in which a saga is written: `reversible`, `step`, `parallel`, their `_each`, `child`, `wait_for`, `delay`.

Every word makes a value that says what it may stand for: something *before* the pivot (`Before`), the pivot or
something *after* it (`After`), or both. So what the theory forbids does not type-check. No I/O.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from outbox.contracts import Command, Message, Reply, kebab_case

if TYPE_CHECKING:
    from orchestrator.definition import Saga


class InvalidDefinition(Exception):
    """A saga that the theory does not allow, or that cannot be read as data. Says what to change."""


class SagaData(BaseModel):
    """What a saga knows: its input, and what replies have added.

    `saga_id` is minted when the saga is accepted. Ids for the participants are built from it and never from a
    reply: after a timeout there is no reply, and the undo must still name what it undoes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    saga_id: str = ""


def supplied() -> Any:
    """A field of SagaData that is no input: some step's `then` supplies it. It is None until then.

    A step that reads such a field before a stage that supplies it is refused at construction.
    """
    return Field(default=None, json_schema_extra={"supplied": True})


class Signal(Message):
    """What a person or a webhook tells a saga that waits for it: an approval, a payment that came in.

    The type names the step: `class ManagerApproval(Signal)` is awaited by the step `manager-approval`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.type = kebab_case(cls.__name__)


D = TypeVar("D", bound=SagaData)
C = TypeVar("C", bound=SagaData)
D_contra = TypeVar("D_contra", bound=SagaData, contravariant=True)
R = TypeVar("R", bound=Reply)
G = TypeVar("G", bound=Signal)
S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)
T = TypeVar("T")

IfUnknown = Literal["undo", "stick"]
"""What becomes of a reversible step that stays without an answer: it is undone, or a person decides."""

Otherwise = Literal["refuse", "proceed", "stick"]
"""What becomes of a wait whose signal does not come: like a refusal, as if it had come, or a person decides."""


class Action(StrEnum):
    """What a step does when its turn comes."""

    COMMAND = "command"
    WAIT = "wait"
    DELAY = "delay"


@dataclass(frozen=True, slots=True)
class Policy:
    """How long to wait for an answer, and how often to ask again.

    The wait after the n-th asking is `timeout * factor ** (n - 1)`, at most `cap`, give or take `jitter` (a fraction).
    What was refused and must succeed is asked again after `first_delay * factor ** (n - 1)`, likewise; without
    a `first_delay` it is the timeout. `attempts` counts all askings; None asks for ever. A refusal with one of the
    codes `not_retried` is not asked again: the step is stuck at once.
    """

    timeout: timedelta = timedelta(seconds=5)
    attempts: int | None = 6
    factor: float = 2.0
    cap: timedelta = timedelta(seconds=60)
    jitter: float = 0.1
    first_delay: timedelta | None = None
    not_retried: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.timeout <= timedelta(0) or self.cap < self.timeout:
            raise InvalidDefinition(f"a policy needs 0 < timeout <= cap, not timeout={self.timeout}, cap={self.cap}")
        if self.first_delay is not None and not timedelta(0) < self.first_delay <= self.cap:
            raise InvalidDefinition(f"a policy needs 0 < first_delay <= cap, not {self.first_delay}, cap={self.cap}")
        if (self.attempts is not None and self.attempts < 1) or self.factor < 1 or not 0 <= self.jitter < 1:
            raise InvalidDefinition("a policy needs attempts >= 1, factor >= 1 and 0 <= jitter < 1")

    def wait(self, tries: int, seed: str) -> timedelta:
        """How long to wait after the asking number `tries` (from 1). The jitter comes from `seed`, not from chance."""
        return self._grown(self.timeout, tries, seed)

    def pause(self, tries: int, seed: str) -> timedelta:
        """How long to leave alone what was refused at the asking number `tries` (from 1), and must succeed."""
        return self._grown(self.first_delay or self.timeout, tries, seed)

    def is_spent(self, tries: int) -> bool:
        """Whether a step that was asked `tries` times is not asked again."""
        return self.attempts is not None and tries >= self.attempts

    @property
    def longest(self) -> timedelta | None:
        """How long it takes at most until the policy is spent; None: for ever."""
        if self.attempts is None:
            return None
        waits = (self._base(self.timeout, tries) for tries in range(1, self.attempts + 1))
        return timedelta(seconds=sum(waits) * (1 + self.jitter))

    def _grown(self, first: timedelta, tries: int, seed: str) -> timedelta:
        chance = int.from_bytes(sha256(f"{seed}:{tries}".encode()).digest()[:4]) / 2**32
        return timedelta(seconds=self._base(first, tries) * (1 + self.jitter * (2 * chance - 1)))

    def _base(self, first: timedelta, tries: int) -> float:
        try:
            growth = self.factor ** (tries - 1)
        except OverflowError:
            growth = math.inf
        return min(self.cap.total_seconds(), first.total_seconds() * growth)


MUST_SUCCEED = Policy(attempts=12)
"""For what may not be given up lightly: the pivot, retriable steps and undos."""

CHILD = Policy(
    timeout=timedelta(minutes=1), attempts=None, cap=timedelta(minutes=10), not_retried=frozenset({"compensated"})
)
"""For child sagas: they come to an end by themselves, so they are asked how they are for as long as it takes. One that
was compensated after the parent's pivot is not begun anew for ever: a person decides.
"""


# --- what may stand where --------------------------------------------------------------------------------------


class Before(Generic[D_contra]):
    """Whatever may stand before the pivot."""

    __slots__ = ()


class After(Generic[D_contra]):
    """Whatever may stand after the pivot."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Reversible(Before[D_contra], Generic[D_contra]):
    """A step with its undo. Make it with `reversible()` or `reversible_each()`."""

    do: Callable[..., Command[Any]]
    undo: Callable[..., Command[Any]]
    then: Callable[[D_contra, Any], SagaData] | None
    policy: Policy
    undo_policy: Policy
    when: Callable[[D_contra], bool] | None = None
    if_unknown: IfUnknown = "undo"
    items: Callable[[D_contra], Sequence[Any]] | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Step(After[D_contra], Generic[D_contra]):
    """The pivot, or a step after it. Make it with `step()` or `step_each()`."""

    do: Callable[..., Command[Any]]
    then: Callable[[D_contra, Any], SagaData] | None
    policy: Policy
    when: Callable[[D_contra], bool] | None = None
    items: Callable[[D_contra], Sequence[Any]] | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Child(Before[D_contra], After[D_contra], Generic[D_contra]):
    """Another saga as a step. Make it with `child()`."""

    saga: "Saga[Any]"
    data_of: Callable[[D_contra], SagaData]
    then: Callable[[D_contra, Any], SagaData] | None
    policy: Policy
    undo_policy: Policy
    when: Callable[[D_contra], bool] | None


@dataclass(frozen=True, slots=True)
class Wait(Before[D_contra], After[D_contra], Generic[D_contra]):
    """A wait for a signal. Make it with `wait_for()`."""

    signal: type[Signal]
    then: Callable[[D_contra, Any], SagaData] | None
    timeout: timedelta | None
    otherwise: Otherwise | None
    when: Callable[[D_contra], bool] | None


@dataclass(frozen=True, slots=True)
class Delay(Before[D_contra], After[D_contra], Generic[D_contra]):
    """A wait for time to pass. Make it with `delay()`."""

    name: str
    lasting: timedelta | Callable[[D_contra], timedelta]
    when: Callable[[D_contra], bool] | None


@dataclass(frozen=True, slots=True)
class Parallel(Generic[S_co]):
    """Steps that are asked together. Make it with `parallel()`."""

    steps: tuple[S_co, ...]


def reversible(
    do: Callable[[D], Command[R]],
    *,
    undo: Callable[[D], Command[Any]],
    then: Callable[[D, R], D] | None = None,
    when: Callable[[D], bool] | None = None,
    policy: Policy = Policy(),
    undo_policy: Policy = MUST_SUCCEED,
    if_unknown: IfUnknown = "undo",
) -> Reversible[D]:
    """A step that can be undone. `then` takes what the saga wants to keep out of the reply.

    Without `when(data)` being true the step is skipped. When it stays without an answer until `policy` is spent it may
    have happened: the saga turns back and undoes it, or, with `if_unknown="stick"`, a person decides.
    """
    return Reversible(do, undo, then, policy, undo_policy, when, if_unknown)


def reversible_each(
    items: Callable[[D], Sequence[T]],
    do: Callable[[D, T], Command[R]],
    *,
    undo: Callable[[D, T], Command[Any]],
    then: Callable[[D, R], D] | None = None,
    when: Callable[[D], bool] | None = None,
    limit: int | None = None,
    policy: Policy = Policy(),
    undo_policy: Policy = MUST_SUCCEED,
    if_unknown: IfUnknown = "undo",
) -> Reversible[D]:
    """One step for each of `items(data)`, in parallel, at most `limit` of them at a time.

    The list is fixed when the step's turn comes: a `then` must not change it. No items, no step.
    """
    return Reversible(do, undo, then, policy, undo_policy, when, if_unknown, items, limit)


def step(
    do: Callable[[D], Command[R]],
    *,
    then: Callable[[D, R], D] | None = None,
    when: Callable[[D], bool] | None = None,
    policy: Policy = MUST_SUCCEED,
) -> Step[D]:
    """The pivot or a retriable step: it is never undone by guess, but asked again until it answers."""
    return Step(do, then, policy, when)


def step_each(
    items: Callable[[D], Sequence[T]],
    do: Callable[[D, T], Command[R]],
    *,
    then: Callable[[D, R], D] | None = None,
    when: Callable[[D], bool] | None = None,
    limit: int | None = None,
    policy: Policy = MUST_SUCCEED,
) -> Step[D]:
    """One retriable step for each of `items(data)`; see `reversible_each`."""
    return Step(do, then, policy, when, items, limit)


def child(
    saga: "Saga[C]",
    data_of: Callable[[D], C],
    *,
    then: Callable[[D, "SagaEnded"], D] | None = None,
    when: Callable[[D], bool] | None = None,
    policy: Policy = CHILD,
    undo_policy: Policy = CHILD,
) -> Child[D]:
    """Another saga as a step, named after it: done when it has completed, refused when it was compensated.

    Before the pivot the child must be one that has no pivot itself: then it can be undone as a whole, even
    after it has completed, and it is when its parent turns back.
    """
    return Child(saga, data_of, then, policy, undo_policy, when)


def wait_for(
    signal: type[G],
    *,
    then: Callable[[D, G], D] | None = None,
    timeout: timedelta | None = None,
    otherwise: Otherwise | None = None,
    when: Callable[[D], bool] | None = None,
) -> Wait[D]:
    """Wait until a signal comes, at most for `timeout` (None: for ever). A signal may come before its turn: it is kept.

    Whoever signals says yes or no; a no is like a refusal. When the time is over: `refuse` (the default
    before the pivot), `proceed` without the signal, or `stick` (the default after the pivot).
    """
    if signal is Signal:
        raise InvalidDefinition("wait_for(Signal): name the signal, with a subclass: `class ManagerApproval(Signal)`")
    return Wait(signal, then, timeout, otherwise, when)


def delay(
    name: str, lasting: timedelta | Callable[[D], timedelta], *, when: Callable[[D], bool] | None = None
) -> Delay[D]:
    """Let time pass. It survives every restart: the timer is in the database."""
    if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", name):
        raise InvalidDefinition(f"delay {name!r}: use lower-case words joined by hyphens")
    return Delay(name, lasting, when)


def parallel(*steps: S) -> Parallel[S]:
    """Ask these steps together, and go on when all of them are done."""
    return Parallel(steps)


# --- a saga as a participant -------------------------------------------------------------------------------------


class SagaEnded(Reply):
    """The saga that was started has completed. `result` is all that it knew in the end."""

    saga_id: str
    result: dict[str, Any]


class SagaUndone(Reply):
    """Nothing is left of the saga."""

    saga_id: str


class StartSaga(Command[SagaEnded], participant="orchestrator"):
    """Start a saga, and answer when it has ended. The id of the command is its key: asked twice, it is started once.

    A service that puts this into its own outbox starts a saga in the transaction in which it writes its own rows.
    """

    saga: str
    input: dict[str, Any]
    labels: dict[str, str] = Field(default_factory=dict)


class SignalTaken(Reply):
    """The signal has reached its saga, or had done so before."""


class SignalSaga(Command[SignalTaken], participant="orchestrator"):
    """Tell a saga what it waits for: how a webhook's service signals, out of its own outbox."""

    saga_id: str
    step: str
    outcome: Literal["done", "refused"] = "done"
    data: dict[str, Any] = Field(default_factory=dict)


class UndoSaga(Command[SagaUndone], participant="orchestrator"):
    """Undo what the StartSaga that this command undoes has done, or will never do."""

    saga: str
    input: dict[str, Any]
