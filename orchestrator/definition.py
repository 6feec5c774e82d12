"""Saga definitions as data: steps, their undo, the pivot, what comes after. No I/O.

The three fields of `Saga` are the theory (Garcia-Molina & Salem, "Sagas", 1987; Mehrotra et al., "A transaction
model for multidatabase systems", 1992): *reversible* (compensatable) steps can be undone, the *pivot* is the point
of no return, *retriable* steps come after it and must go through in the end. What the theory forbids does not
type-check: `reversible` wants steps made by `reversible()`, the pivot and what follows want `step()`. What the type
checker cannot see is refused at construction with a sentence that says what to change.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from hashlib import sha256
from typing import Any, Generic, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict

from outbox.contracts import Command, Reply, kebab_case


class SagaData(BaseModel):
    """What a saga knows: its input, and what replies have added.

    `saga_id` is minted when the saga is accepted. Ids for the participants are built from it and never from a
    reply: after a timeout there is no reply, and the undo must still name what it undoes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    saga_id: str = ""


D = TypeVar("D", bound=SagaData)
D_contra = TypeVar("D_contra", bound=SagaData, contravariant=True)
R = TypeVar("R", bound=Reply)
S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)


class InvalidDefinition(Exception):
    """A saga that the theory does not allow, or that cannot be read as data. Says what to change."""


class Kind(StrEnum):
    """What may happen to a step: undone, undone never but refused maybe, or neither."""

    REVERSIBLE = "reversible"
    PIVOT = "pivot"
    RETRIABLE = "retriable"


@dataclass(frozen=True, slots=True)
class Policy:
    """How long to wait for an answer, and how often to ask again.

    The wait after the n-th asking is `timeout * factor ** (n - 1)`, at most `cap`, give or take `jitter`
    (a fraction). `attempts` counts all askings; None asks for ever.
    """

    timeout: timedelta = timedelta(seconds=5)
    attempts: int | None = 6
    factor: float = 2.0
    cap: timedelta = timedelta(seconds=60)
    jitter: float = 0.1

    def __post_init__(self) -> None:
        if self.timeout <= timedelta(0) or self.cap < self.timeout:
            raise InvalidDefinition(f"a policy needs 0 < timeout <= cap, not timeout={self.timeout}, cap={self.cap}")
        if (self.attempts is not None and self.attempts < 1) or self.factor < 1 or not 0 <= self.jitter < 1:
            raise InvalidDefinition("a policy needs attempts >= 1, factor >= 1 and 0 <= jitter < 1")

    def wait(self, tries: int, seed: str) -> timedelta:
        """How long to wait after the asking number `tries` (from 1). The jitter comes from `seed`, not from chance."""
        try:
            growth = self.factor ** (tries - 1)
        except OverflowError:
            growth = math.inf
        seconds = min(self.cap.total_seconds(), self.timeout.total_seconds() * growth)
        chance = int.from_bytes(sha256(f"{seed}:{tries}".encode()).digest()[:4]) / 2**32
        return timedelta(seconds=seconds * (1 + self.jitter * (2 * chance - 1)))

    def is_spent(self, tries: int) -> bool:
        """Whether a step that was asked `tries` times is not asked again."""
        return self.attempts is not None and tries >= self.attempts


MUST_SUCCEED = Policy(attempts=12)
"""For what may not be given up lightly: the pivot, retriable steps and undos."""


@dataclass(frozen=True, slots=True)
class Reversible(Generic[D_contra]):
    """A step before the pivot, with its undo. Make it with `reversible()`."""

    do: Callable[[D_contra], Command[Any]]
    undo: Callable[[D_contra], Command[Any]]
    then: Callable[[D_contra, Any], SagaData] | None
    policy: Policy
    undo_policy: Policy


@dataclass(frozen=True, slots=True)
class Step(Generic[D_contra]):
    """The pivot, or a step after it. Make it with `step()`."""

    do: Callable[[D_contra], Command[Any]]
    then: Callable[[D_contra, Any], SagaData] | None
    policy: Policy


@dataclass(frozen=True, slots=True)
class Parallel(Generic[S_co]):
    """Steps that are asked together. Make it with `parallel()`."""

    steps: tuple[S_co, ...]


def reversible(
    do: Callable[[D], Command[R]],
    *,
    undo: Callable[[D], Command[Any]],
    then: Callable[[D, R], D] | None = None,
    policy: Policy = Policy(),
    undo_policy: Policy = MUST_SUCCEED,
) -> Reversible[D]:
    """A step that can be undone. `then` takes what the saga wants to keep out of the reply."""
    return Reversible(do, undo, then, policy, undo_policy)


def step(
    do: Callable[[D], Command[R]],
    *,
    then: Callable[[D, R], D] | None = None,
    policy: Policy = MUST_SUCCEED,
) -> Step[D]:
    """The pivot or a retriable step: it is never undone by guess, but asked again until it answers."""
    return Step(do, then, policy)


def parallel(*steps: S) -> Parallel[S]:
    """Ask these steps together, and go on when all of them are done."""
    return Parallel(steps)


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step as the machine sees it: named, placed, and checked."""

    name: str
    kind: Kind
    stage: int
    do: Callable[[Any], Command[Any]]
    undo: Callable[[Any], Command[Any]] | None
    then: Callable[[Any, Any], SagaData] | None
    policy: Policy
    undo_policy: Policy
    command: type[Command[Any]]
    undo_command: type[Command[Any]] | None


@dataclass(frozen=True)
class Saga(Generic[D]):
    """A saga definition. Raises InvalidDefinition at construction."""

    name: str
    data: type[D]
    reversible: Sequence[Reversible[D] | Parallel[Reversible[D]]]
    pivot: Step[D]
    retriable: Sequence[Step[D] | Parallel[Step[D]]] = ()
    version: int = 1
    stages: tuple[tuple[StepSpec, ...], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise InvalidDefinition(f"saga name {self.name!r}: use lower-case words joined by hyphens")
        object.__setattr__(self, "stages", tuple(self._stages()))
        if len(self.steps) != sum(len(stage) for stage in self.stages):
            raise InvalidDefinition(
                f"saga {self.name}: two steps have the same name; a step is named after its function, so rename one"
            )

    @cached_property
    def steps(self) -> dict[str, StepSpec]:
        """Every step by name, in the order of the stages."""
        return {spec.name: spec for stage in self.stages for spec in stage}

    @cached_property
    def participants(self) -> frozenset[str]:
        """Who takes part."""
        return frozenset(spec.command.participant for spec in self.steps.values())

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the structure does: names, kinds, order, commands. Twelve hexadecimal digits."""
        structure = [
            [
                [
                    spec.name,
                    spec.kind,
                    spec.command.type,
                    spec.undo_command.type if spec.undo_command else None,
                ]
                for spec in stage
            ]
            for stage in self.stages
        ]
        return sha256(json.dumps([self.name, self.version, structure]).encode()).hexdigest()[:12]

    def _stages(self) -> Iterator[tuple[StepSpec, ...]]:
        number = 0
        parts = (
            (Kind.REVERSIBLE, self.reversible),
            (Kind.PIVOT, (self.pivot,)),
            (Kind.RETRIABLE, self.retriable),
        )
        for kind, part in parts:
            for item in part:
                if kind is Kind.PIVOT and isinstance(item, Parallel):
                    raise InvalidDefinition(
                        f"saga {self.name}: the pivot is one step, for there is one point of no return; "
                        "make one of the parallel steps reversible or retriable"
                    )
                steps = item.steps if isinstance(item, Parallel) else (item,)
                if not steps:
                    raise InvalidDefinition(f"saga {self.name}: a parallel group is empty; give it steps or remove it")
                yield tuple(self._spec(one, kind, number) for one in steps)
                number += 1

    def _spec(self, one: Reversible[D] | Step[D], kind: Kind, stage: int) -> StepSpec:
        wanted = Reversible if kind is Kind.REVERSIBLE else Step
        name = kebab_case(getattr(getattr(one, "do", None), "__name__", "?"))
        if not isinstance(one, wanted):
            remedy = "give it an undo with reversible(…, undo=…)" if wanted is Reversible else "make it with step(…)"
            raise InvalidDefinition(f"saga {self.name}: step {name} cannot stand in `{kind}`; {remedy}")
        undo = one.undo if isinstance(one, Reversible) else None
        return StepSpec(
            name=name,
            kind=kind,
            stage=stage,
            do=one.do,
            undo=undo,
            then=one.then,
            policy=one.policy,
            undo_policy=one.undo_policy if isinstance(one, Reversible) else MUST_SUCCEED,
            command=self._command_of(one.do),
            undo_command=self._command_of(one.undo) if isinstance(one, Reversible) else None,
        )

    def _command_of(self, build: Callable[[D], Command[Any]]) -> type[Command[Any]]:
        name = getattr(build, "__name__", repr(build))
        try:
            returned = get_type_hints(build).get("return")
        except (NameError, AttributeError, TypeError) as error:
            raise InvalidDefinition(f"saga {self.name}: the annotations of {name} cannot be read: {error}") from error
        if not (isinstance(returned, type) and issubclass(returned, Command) and hasattr(returned, "participant")):
            raise InvalidDefinition(
                f"saga {self.name}: {name} must be annotated with the command type that it returns, "
                f"as in `def {name}(data: {self.data.__name__}) -> SomeCommand`"
            )
        return returned
