"""The skeleton of a definition: its shape, with stubs for its functions, and what they would decide left open. No I/O.

What a definition's own functions say (does a condition hold, how many items are there) is a *choice*. The explorer
takes every choice when the machine asks for it; a test fixes them: `given(skeleton(book_trip)).started(items={…})`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from pydantic import Field

from orchestrator.definition import Action, Policy, Saga, SagaData, Signal, StepSpec
from outbox.contracts import Command, Reply

NEVER: Final = "never"
"""The code of a refusal that is not retried."""

AGES: Final = timedelta(days=3650)

Choice = bool | int
"""Whether a step's condition holds, or how many items it has."""


class StubReply(Reply):
    """Any reply: the explorer looks at outcomes only."""


class StubSignal(Signal):
    """Any signal."""


class Stub(Command[StubReply], participant="explorer"):
    """Any command."""


class Undecided(BaseException):
    """A choice is asked for that is not made yet.

    Not an Exception: the machine takes those for mistakes of the definition, and this is none.
    """

    def __init__(self, step: str, values: tuple[Choice, ...]) -> None:
        super().__init__(step)
        self.step = step
        self.values = values


class Choices(SagaData):
    """What the definition's functions would say: whether a step's condition holds, and how many items it has.

    What is not chosen holds, or has `many` items, unless it is `left_open`: then it is asked for.
    """

    conditions: dict[str, bool] = Field(default={})
    items: dict[str, int] = Field(default={})
    many: int = 2
    left_open: bool = False

    def holds(self, step: str) -> bool:
        """Whether a step's condition holds."""
        return bool(self._chosen(self.conditions, step, (True, False)))

    def count(self, step: str) -> int:
        """How many items a step has."""
        return self._chosen(self.items, step, (self.many, 0))

    def choosing(self, step: str, value: Choice) -> "Choices":
        """The same, and one choice more."""
        made = self.conditions if isinstance(value, bool) else self.items
        return self.model_copy(update={"conditions" if isinstance(value, bool) else "items": {**made, step: value}})

    def _chosen(self, choices: Mapping[str, Choice], step: str, values: tuple[Choice, ...]) -> Choice:
        if step not in choices and self.left_open:
            raise Undecided(step, values)
        return choices.get(step, values[0])


def skeleton(definition: Saga[Any], *, attempts: int = 2, items: int = 2) -> Saga[Any]:
    """The same stages, kinds, waits and conditions; stubs for functions, and policies that are spent after `attempts`.

    What is asked for ever is still asked for ever. A limit is kept as one that bites: below the number of `items`. A
    deadline is kept as one that passes only when it is said to.
    """
    bare = replace(definition, data=Choices, deadline=None if definition.deadline is None else AGES)
    stages = tuple(tuple(_stripped(spec, attempts, items) for spec in stage) for stage in definition.stages)
    object.__setattr__(bare, "stages", stages)
    vars(bare).pop("steps", None)
    return bare


def _stripped(spec: StepSpec, attempts: int, items: int) -> StepSpec:
    sends = spec.action is Action.COMMAND
    return replace(
        spec,
        do=_stub if sends else None,
        undo=None if spec.undo is None else _stub,
        then=None,
        when=None if spec.when is None else _condition(spec.name),
        items=None if spec.items is None else _counted(spec.name),
        limit=None if spec.limit is None else max(1, min(spec.limit, items - 1)),
        policy=_short(spec.policy, attempts),
        undo_policy=_short(spec.undo_policy, attempts),
        command=Stub if sends else None,
        undo_command=None if spec.undo is None else Stub,
        signal=None if spec.signal is None else StubSignal,
        lasting=None if spec.lasting is None else _a_while,
        child=None,
    )


def _short(policy: Policy, attempts: int) -> Policy:
    not_retried = frozenset({NEVER}) if policy.not_retried else frozenset[str]()
    limit = None if policy.attempts is None else attempts
    return Policy(timeout=timedelta(seconds=1), attempts=limit, jitter=0, not_retried=not_retried)


def _stub(_data: SagaData, _item: int | None = None) -> Stub:
    return Stub()


def _a_while(_data: SagaData) -> timedelta:
    return timedelta(seconds=1)


def _condition(step: str) -> Callable[[Choices], bool]:
    return lambda data: data.holds(step)


def _counted(step: str) -> Callable[[Choices], range]:
    return lambda data: range(data.count(step))
