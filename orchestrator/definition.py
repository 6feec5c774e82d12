"""Saga definitions as data: steps, their undo, the pivot, what comes after. No I/O.

The three fields of `Saga` are the theory (Garcia-Molina & Salem, "Sagas", 1987; Mehrotra et al., "A transaction
model for multidatabase systems", 1992): *reversible* (compensatable) steps can be undone, the *pivot* is the point
of no return, *retriable* steps come after it and must go through in the end. What the theory forbids does not
type-check (the words are in `steps`). What the type checker cannot see is refused at construction with a sentence
that says what to change.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import cached_property, wraps
from hashlib import sha256
from typing import Any, Final, Generic, TypeVar, get_type_hints

from orchestrator.reads import reads, supplied_fields, supplies
from orchestrator.steps import (
    MUST_SUCCEED,
    Action,
    After,
    Before,
    Child,
    Delay,
    IfUnknown,
    InvalidDefinition,
    Otherwise,
    Parallel,
    Policy,
    Reversible,
    SagaData,
    SagaEnded,
    Signal,
    StartSaga,
    Step,
    UndoSaga,
    Wait,
    child,
    delay,
    parallel,
    reversible,
    reversible_each,
    step,
    step_each,
    supplied,
    wait_for,
)
from outbox.contracts import Command, Message, kebab_case

__all__ = [
    "MUST_SUCCEED", "Action", "InvalidDefinition", "Kind", "Policy", "Rate", "Saga", "SagaData", "SagaEnded", "Signal",
    "StepSpec", "child", "delay", "parallel", "reversible", "reversible_each", "step", "step_each", "supplied",
    "wait_for",
]  # fmt: skip

D = TypeVar("D", bound=SagaData)

LONGEST_NAME: Final = 60
"""Characters of a saga's or a step's name, so that every id that is made of them fits its column."""


class Kind(StrEnum):
    """What may happen to a step: undone, undone never but refused maybe, or neither."""

    REVERSIBLE = "reversible"
    PIVOT = "pivot"
    RETRIABLE = "retriable"


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` sagas begin in every stretch of `per`, evenly spread, give or take a fifth of a second."""

    count: int
    per: timedelta = timedelta(seconds=1)

    def __post_init__(self) -> None:
        if self.count < 1 or self.per <= timedelta(0):
            raise InvalidDefinition(f"a rate needs count >= 1 and per > 0, not {self.count} per {self.per}")

    @property
    def spacing(self) -> timedelta:
        """From one beginning to the next."""
        return self.per / self.count


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step as the machine sees it: named, placed, and checked.

    With `items` it stands for one instance per item: `name[0]`, `name[1]`, …; its functions then take the item too.
    `command` is None for what sends none: a wait (which has a `signal`) and a delay (which is `lasting`).
    """

    name: str
    kind: Kind
    stage: int
    action: Action = Action.COMMAND
    do: Callable[..., Command[Any]] | None = None
    undo: Callable[..., Command[Any]] | None = None
    then: Callable[[Any, Any], SagaData] | None = None
    when: Callable[[Any], bool] | None = None
    items: Callable[[Any], Sequence[Any]] | None = None
    limit: int | None = None
    policy: Policy = MUST_SUCCEED
    undo_policy: Policy = MUST_SUCCEED
    if_unknown: IfUnknown = "undo"
    command: type[Command[Any]] | None = None
    undo_command: type[Command[Any]] | None = None
    signal: type[Signal] | None = None
    timeout: timedelta | None = None
    otherwise: Otherwise = "stick"
    lasting: Callable[[Any], timedelta] | None = None
    child: "Saga[Any] | None" = None

    @property
    def participant(self) -> str:
        """Who carries the step out; empty for a wait or a delay."""
        return self.command.participant if self.command else ""

    @property
    def answer(self) -> type[Message] | None:
        """What the data of an answer must be."""
        return self.signal or (self.command.reply if self.command else None)

    @property
    def functions(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        """(`do`, function) and so on: the definition's own functions that read its data, `then` excepted."""
        found = {"do": self.do, "undo": self.undo, "when": self.when, "items": self.items, "lasting": self.lasting}
        return ((name, function) for name, function in found.items() if function is not None)


def base_name(instance: str) -> str:
    """The name in the definition of a step's instance: `book-room[2]` -> `book-room`."""
    return instance.partition("[")[0]


def item_index(instance: str) -> int | None:
    """Which item an instance is for: `book-room[2]` -> 2; None for a step that is only one."""
    _, bracket, rest = instance.partition("[")
    return int(rest.removesuffix("]")) if bracket else None


@dataclass(frozen=True)
class Saga(Generic[D]):
    """A saga definition. Raises InvalidDefinition at construction.

    A saga whose `pivot` is None has no point of no return: it can be undone as a whole, even after it has completed, by
    the saga whose child it is. `deadline` counts from the beginning; when it passes before the pivot was asked
    the saga turns back. Beyond `max_in_flight` or `rate` a saga is accepted and waits; those with the
    highest `priority` (a number, or a function of the data) begin first. `labels` are what it can be found by.
    `queries` are functions of the data that `saga query` answers with.
    """

    name: str
    data: type[D]
    reversible: Sequence[Before[D] | Parallel[Before[D]]]
    pivot: Step[D] | Child[D] | None
    retriable: Sequence[After[D] | Parallel[After[D]]] = ()
    version: int = 1
    deadline: timedelta | None = None
    max_in_flight: int | None = None
    rate: Rate | None = None
    priority: int | Callable[[D], int] = 0
    labels: Callable[[D], Mapping[str, str]] | None = None
    queries: Sequence[Callable[[D], Any]] = ()
    stages: tuple[tuple[StepSpec, ...], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", self.name) or len(self.name) > LONGEST_NAME:
            raise InvalidDefinition(
                f"saga name {self.name!r}: use lower-case words joined by hyphens, at most {LONGEST_NAME} characters"
            )
        if self.max_in_flight is not None and self.max_in_flight < 1:
            raise InvalidDefinition(f"saga {self.name}: max_in_flight is {self.max_in_flight}; at least 1 may run")
        if self.pivot is None and self.retriable:
            raise self._wrong("it has retriable steps and no pivot; make one of them the pivot, or all reversible")
        object.__setattr__(self, "stages", tuple(self._stages()))
        if not self.stages:
            raise self._wrong("it has no steps; give it one")
        if len(self.steps) != sum(len(stage) for stage in self.stages):
            raise self._wrong("two steps have the same name; a step is named after its function, so rename one")
        self._check_times()
        self._check_data()

    @cached_property
    def steps(self) -> dict[str, StepSpec]:
        """Every step by name, in the order of the stages."""
        return {spec.name: spec for stage in self.stages for spec in stage}

    def spec_of(self, instance: str) -> StepSpec:
        """The step that an instance is one of. Raises KeyError."""
        return self.steps[base_name(instance)]

    @cached_property
    def pivot_name(self) -> str | None:
        """The name of the pivot, if there is one."""
        return next((spec.name for spec in self.steps.values() if spec.kind is Kind.PIVOT), None)

    @cached_property
    def participants(self) -> frozenset[str]:
        """Who takes part."""
        return frozenset(spec.participant for spec in self.steps.values() if spec.participant)

    @property
    def is_limited(self) -> bool:
        """Whether a saga of this kind may have to wait before it begins."""
        return self.max_in_flight is not None or self.rate is not None

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the structure does: names, kinds, order, commands. Twelve hexadecimal digits."""
        structure = [[_structure(spec) for spec in stage] for stage in self.stages]
        return sha256(json.dumps([self.name, self.version, structure]).encode()).hexdigest()[:12]

    # --- from what was written to what the machine sees ------------------------------------------------------------

    def _stages(self) -> Iterator[tuple[StepSpec, ...]]:
        number = 0
        parts: tuple[tuple[Kind, Sequence[Any]], ...] = (
            (Kind.REVERSIBLE, self.reversible),
            (Kind.PIVOT, () if self.pivot is None else (self.pivot,)),
            (Kind.RETRIABLE, self.retriable),
        )
        for kind, part in parts:
            for item in part:
                if kind is Kind.PIVOT and isinstance(item, Parallel):
                    raise self._wrong(
                        "the pivot is one step, for there is one point of no return; "
                        "make one of the parallel steps reversible or retriable"
                    )
                steps = item.steps if isinstance(item, Parallel) else (item,)
                if not steps:
                    raise self._wrong("a parallel group is empty; give it steps or remove it")
                yield tuple(self._spec(one, kind, number) for one in steps)
                number += 1

    def _spec(self, one: Any, kind: Kind, stage: int) -> StepSpec:
        match one:
            case Reversible() if kind is Kind.REVERSIBLE:
                spec = self._reversible(one, stage)
            case Step() if kind is not Kind.REVERSIBLE:
                spec = self._step(one, kind, stage)
            case Child():
                spec = self._child(one, kind, stage)
            case Wait() if kind is not Kind.PIVOT:
                spec = self._wait(one, kind, stage)
            case Delay() if kind is not Kind.PIVOT:
                lasting = one.lasting if callable(one.lasting) else _always(one.lasting)
                spec = StepSpec(one.name, kind, stage, Action.DELAY, lasting=lasting, when=one.when)
            case _:
                remedy = "give it an undo with reversible(…, undo=…)" if kind is Kind.REVERSIBLE else "use step(…)"
                raise self._wrong(f"step {_called(one)} cannot stand in `{kind}`; {remedy}")
        if len(spec.name) > LONGEST_NAME:
            raise self._wrong(f"the name of step {spec.name} has more than {LONGEST_NAME} characters; shorten it")
        if spec.limit is not None and spec.limit < 1:
            raise self._wrong(f"the limit of step {spec.name} is {spec.limit}; at least 1 may be asked at a time")
        return spec

    def _reversible(self, one: Reversible[D], stage: int) -> StepSpec:
        return StepSpec(
            name=kebab_case(_name(one.do)),
            kind=Kind.REVERSIBLE,
            stage=stage,
            do=one.do,
            undo=one.undo,
            then=one.then,
            when=one.when,
            items=one.items,
            limit=one.limit,
            policy=one.policy,
            undo_policy=one.undo_policy,
            if_unknown=one.if_unknown,
            command=self._command_of(one.do),
            undo_command=self._command_of(one.undo),
        )

    def _step(self, one: Step[D], kind: Kind, stage: int) -> StepSpec:
        if kind is Kind.PIVOT and (one.items is not None or one.when is not None):
            raise self._wrong("the pivot is one step, and never skipped; give it neither items nor `when`")
        return StepSpec(
            name=kebab_case(_name(one.do)),
            kind=kind,
            stage=stage,
            do=one.do,
            then=one.then,
            when=one.when,
            items=one.items,
            limit=one.limit,
            policy=one.policy,
            command=self._command_of(one.do),
        )

    def _child(self, one: Child[D], kind: Kind, stage: int) -> StepSpec:
        if kind is Kind.REVERSIBLE and one.saga.pivot is not None:
            raise self._wrong(
                f"its child {one.saga.name} has a pivot, so it cannot be undone as a whole; "
                "put it at the pivot or after it, or take its pivot away (pivot=None)"
            )
        if kind is Kind.PIVOT and one.when is not None:
            raise self._wrong("the pivot is never skipped; give it no `when`")
        undo = _undo_child(one) if kind is Kind.REVERSIBLE else None
        return StepSpec(
            name=one.saga.name,
            kind=kind,
            stage=stage,
            do=_start_child(one),
            undo=undo,
            then=one.then,
            when=one.when,
            policy=one.policy,
            undo_policy=one.undo_policy,
            command=StartSaga,
            undo_command=None if undo is None else UndoSaga,
            child=one.saga,
        )

    def _wait(self, one: Wait[D], kind: Kind, stage: int) -> StepSpec:
        name = one.signal.type
        if kind is Kind.RETRIABLE and one.otherwise == "refuse":
            raise self._wrong(
                f"step {name} comes after the pivot, where nothing turns back: `otherwise` is proceed or stick"
            )
        if one.timeout is None and one.otherwise is not None:
            raise self._wrong(f"step {name} says what to do otherwise, and waits for ever; give it a timeout")
        if one.timeout is not None and one.timeout <= timedelta(0):
            raise self._wrong(f"the timeout of step {name} is {one.timeout}; it must be more than nothing")
        return StepSpec(
            name=name,
            kind=kind,
            stage=stage,
            action=Action.WAIT,
            then=one.then,
            when=one.when,
            signal=one.signal,
            timeout=one.timeout,
            otherwise=one.otherwise or ("refuse" if kind is Kind.REVERSIBLE else "stick"),
        )

    def _command_of(self, build: Callable[..., Command[Any]]) -> type[Command[Any]]:
        name = _name(build)
        try:
            returned = get_type_hints(build).get("return")
        except (NameError, AttributeError, TypeError) as error:
            raise self._wrong(f"the annotations of {name} cannot be read: {error}") from error
        if not (isinstance(returned, type) and issubclass(returned, Command) and hasattr(returned, "participant")):
            raise self._wrong(
                f"{name} must be annotated with the command type that it returns, "
                f"as in `def {name}(data: {self.data.__name__}) -> SomeCommand`"
            )
        return returned

    # --- what the type checker cannot see --------------------------------------------------------------------------

    def _check_times(self) -> None:
        if self.deadline is None:
            return
        if self.deadline <= timedelta(0):
            raise self._wrong(f"its deadline is {self.deadline}; it must be more than nothing")
        for spec in self.steps.values():
            timeout = spec.timeout if spec.action is Action.WAIT else spec.policy.timeout
            counts = spec.kind is not Kind.RETRIABLE and spec.action is not Action.DELAY
            if counts and timeout is not None and timeout > self.deadline and spec.child is None:
                raise self._wrong(
                    f"step {spec.name} waits {timeout} for an answer, and the deadline of the whole saga is "
                    f"{self.deadline}; shorten the one or lengthen the other"
                )

    def _check_data(self) -> None:
        """A step may read a supplied field only when an earlier stage supplies it; what counts at the start, none."""
        missing = set(supplied_fields(self.data))
        for part, function in (("labels", self.labels), ("priority", self.priority)):
            read = reads(function, self.data) if callable(function) else None
            for name in sorted((read or frozenset()) & missing):
                raise self._wrong(
                    f"its `{part}` reads `{name}`, and no step has supplied that when the saga starts; "
                    "use fields of the input"
                )
        for stage in self.stages:
            for spec in stage:
                self._check_reads(spec, missing)
            missing -= _supplied_by(stage, missing)

    def _check_reads(self, spec: StepSpec, missing: Iterable[str]) -> None:
        for part, function in spec.functions:
            if part == "undo":
                continue  # see lint: it may be written so that it does without
            for name in sorted((reads(function, self.data) or frozenset()) & set(missing)):
                raise self._wrong(
                    f"the `{part}` of step {spec.name} reads `{name}`, and no step before it supplies that; "
                    f"give an earlier step a `then` that sets `{name}`, or make it a field of the input"
                )

    def _wrong(self, problem: str) -> InvalidDefinition:
        return InvalidDefinition(f"saga {self.name}: {problem}")


def _supplied_by(stage: Sequence[StepSpec], missing: set[str]) -> set[str]:
    found: set[str] = set()
    for then in (spec.then for spec in stage if spec.then is not None):
        known = supplies(then)
        found |= missing if known is None else known
    return found


def _structure(spec: StepSpec) -> list[Any]:
    commands = [command.type if command else None for command in (spec.command, spec.undo_command)]
    plain = [spec.name, spec.kind, *commands]
    special = [
        spec.action.value if spec.action is not Action.COMMAND else None,
        "each" if spec.items else None,
        "when" if spec.when else None,
    ]
    return plain + ([special] if any(special) else [])


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", repr(function))


def _called(one: Any) -> str:
    """What a step is called by whoever wrote it, also where it may not stand."""
    match one:
        case Wait():
            return one.signal.type
        case Delay():
            return one.name
        case _:
            return kebab_case(_name(getattr(one, "do", type(one))))


def _always(lasting: timedelta) -> Callable[[Any], timedelta]:
    return lambda _data: lasting


def _start_child(one: Child[Any]) -> Callable[[Any], StartSaga]:
    @wraps(one.data_of)  # what it reads is what `data_of` reads
    def start(data: Any) -> StartSaga:
        return StartSaga(saga=one.saga.name, input=_input(one.data_of(data)))

    return start


def _undo_child(one: Child[Any]) -> Callable[[Any], UndoSaga]:
    @wraps(one.data_of)
    def undo(data: Any) -> UndoSaga:
        return UndoSaga(saga=one.saga.name, input=_input(one.data_of(data)))

    return undo


def _input(data: SagaData) -> dict[str, Any]:
    return data.model_dump(mode="json", exclude={"saga_id"} | supplied_fields(type(data)))
