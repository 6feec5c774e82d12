"""The states that a saga can be in, numbered, with what must be known of each again and again. No I/O.

Two states that differ only in what the machine does not look at (when something is due, how often what is done was
asked, who said why) are one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from orchestrator.definition import Action, Kind, Saga, StepSpec
from orchestrator.explorer.moves import DONE, DUE, LATER, REFUSED, START, Move, move_of
from orchestrator.explorer.promises import Broken, broken_in
from orchestrator.explorer.skeleton import Choices
from orchestrator.machine.tables import OUT, UNDO_UNDER_WAY
from orchestrator.model import ENDED, Phase, StepState, StepStatus
from orchestrator.model import Saga as State

FORGOTTEN: Final = frozenset({StepStatus.DONE, StepStatus.UNDONE, StepStatus.UNKNOWN, StepStatus.SKIPPED})
"""How often a step was asked no longer matters."""

NOBODY: Final = State("", "", 0, "", {}, {})
"""Before the beginning."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What must be known of a state again and again."""

    saga: State
    ended: bool
    stuck: bool
    listens: frozenset[str]
    """The waits for which a signal counts: they wait, or may yet."""

    asked_waits: frozenset[str]
    moves: tuple[Move, ...]
    """What can happen to it whatever the world is like."""

    orders: tuple[Move, ...]
    """What a person may want, whatever the truth is."""

    broken: Broken | None


class States:
    """Every state that was met."""

    def __init__(self, definition: Saga[Any]) -> None:
        self.facts: list[Facts] = []
        self._definition = definition
        self._numbers: dict[Any, int] = {}
        self._steps: dict[tuple[str, StepState], StepState] = {}
        self._data: dict[str, dict[str, Any]] = {}

    def number(self, saga: State, now: datetime, before: State = NOBODY) -> int:
        """The number of this state, new or not. What it shares with the state `before` it need not be looked at."""
        steps = {
            name: state if before.steps.get(name) is state else self._seen(name, state)
            for name, state in saga.steps.items()
        }
        data = saga.data if saga.data is before.data else self._same(saga.data)
        deadline = None if saga.deadline_at is None else START if saga.deadline_at <= now else LATER
        signals = tuple((name, saga.signals[name].outcome) for name in sorted(saga.signals))
        key = (saga.phase, saga.paused, deadline, signals, id(data), *steps, *map(id, steps.values()))
        number = self._numbers.setdefault(key, len(self.facts))
        if number == len(self.facts):
            seen = replace(saga, steps=steps, data=data, deadline_at=deadline, failure=None, undoer=None)
            self.facts.append(_facts(self._definition, seen))
        return number

    def knowing(self, saga: State, choices: Choices) -> State:
        """The same state, and what the definition's functions say."""
        return replace(saga, data=self._same(choices.model_dump(mode="json")))

    def _same(self, data: dict[str, Any]) -> dict[str, Any]:
        """The same value is the same object."""
        return self._data.setdefault(repr(data), data)

    def _seen(self, name: str, state: StepState) -> StepState:
        """A step's state without what no longer matters; the same value is the same object."""
        known = self._steps.get((name, state))
        if known is None:
            spec = self._definition.spec_of(name)
            policy = spec.undo_policy if state.status in UNDO_UNDER_WAY else spec.policy
            tries = 0 if state.status in FORGOTTEN else min(state.tries, policy.attempts or 1)
            round = state.round if spec.action is Action.COMMAND else 1
            due, stuck = None if state.due_at is None else DUE, "stuck" if state.stuck else None
            seen = StepState(state.status, round, tries, tries, due, stuck)
            known = self._steps[name, state] = self._steps.setdefault((name, seen), seen)
        return known


def _facts(definition: Saga[Any], saga: State) -> Facts:
    waits = [spec for spec in definition.steps.values() if spec.action is Action.WAIT]
    stuck = [name for name, state in saga.steps.items() if state.stuck]
    asked = {one.name for one in waits if saga.steps[one.name].status is StepStatus.ASKED}
    return Facts(
        saga=saga,
        ended=saga.phase in ENDED,
        stuck=bool(stuck),
        listens=frozenset(one.name for one in waits if _listens(saga, one)),
        asked_waits=frozenset(asked.difference(stuck)),
        moves=tuple(_moves(definition, saga)),
        orders=tuple(_orders(definition, saga, stuck)),
        broken=broken_in(definition, saga),
    )


def _listens(saga: State, wait: StepSpec) -> bool:
    """Whether a signal counts: it is waited for, or may yet be."""
    if saga.phase not in (Phase.WAITING, Phase.RUNNING):
        return False
    status = saga.steps[wait.name].status
    again = status is StepStatus.REFUSED and wait.kind is Kind.RETRIABLE
    return again or status in (StepStatus.PENDING, StepStatus.ASKED)


def _moves(definition: Saga[Any], saga: State) -> Iterable[Move]:
    for name, state in saga.steps.items():
        if state.due_at is not None:
            yield from (move_of("timer", name), move_of("early-timer", name), move_of("old-timer", name))
        if state.status in OUT and definition.spec_of(name).action is Action.COMMAND:
            yield move_of("foreign-reply", saga.command_id(name))
    for spec in definition.steps.values():
        if spec.action is Action.WAIT:
            yield from (move_of("signal", spec.name, DONE), move_of("signal", spec.name, REFUSED))
    if definition.deadline is not None:
        yield move_of("deadline")
    if saga.deadline_at == LATER and saga.phase is Phase.RUNNING:
        yield move_of("late")
    if definition.pivot_name is None:
        yield move_of("undo-all")
    yield move_of("admit")
    if saga.paused:
        yield move_of("resume")


def _orders(definition: Saga[Any], saga: State, stuck: list[str]) -> Iterable[Move]:
    yield move_of("cancel")
    yield move_of("pause")
    if definition.pivot_name is not None:
        yield move_of("undo-all")
    if stuck:
        yield move_of("retry")
    for name in stuck:
        yield move_of("undone-by-hand" if saga.phase is Phase.COMPENSATING else "done-by-hand", name)
        if definition.spec_of(name).kind is Kind.PIVOT:
            yield move_of("cancel-for-sure", name)
