"""Every decision of the machine, made once: what came of a move in a state is remembered. No I/O.

A saga is in far fewer states than its surroundings: the same decision comes up for every way in which messages may be
on their way.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from orchestrator import machine
from orchestrator.definition import Action, Saga
from orchestrator.entries import Done, RefusedStep
from orchestrator.events import Event
from orchestrator.explorer.moves import DONE, REFUSED, SAGA_ID, START, Move, event_of, time_of
from orchestrator.explorer.promises import Broken, broken_by
from orchestrator.explorer.skeleton import Choice, Choices, Undecided
from orchestrator.explorer.states import NOBODY, Facts, States
from orchestrator.model import Saga as State
from orchestrator.model import StepStatus

Decide = Callable[[Saga[Any], State, Event, datetime], machine.Decision]

OUT_OF_TIME: Final[Mapping[str, str]] = MappingProxyType({"proceed": DONE, "refuse": REFUSED})
"""How a wait ends when its signal does not come."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a move: the state after, what it sends, the signals that it has used, what it breaks by itself.

    Without a number, the saga is as it was.
    """

    saga: int | None = None
    sends: tuple[str, ...] = ()
    used: tuple[tuple[str, str], ...] = ()
    chosen: tuple[tuple[str, Choice], ...] = ()
    broken: Broken | None = None


IGNORED: Final = (Outcome(),)
"""Nothing came of it."""


class Decisions:
    """The decisions between the states of one saga."""

    def __init__(self, definition: Saga[Any], decide: Decide, many: int = 2) -> None:
        self.definition = definition
        self._decide = decide
        self._many = many
        self._states = States(definition)
        self._made: dict[int, dict[Move, tuple[Outcome, ...]]] = {}

    @property
    def facts(self) -> list[Facts]:
        """The states, by number."""
        return self._states.facts

    def number(self, saga: State) -> int:
        """The number of a state that nobody has decided here."""
        return self._states.number(saga, START)

    def begin(self, move: Move) -> tuple[Outcome, ...]:
        """How it begins: at once, or when it is admitted."""
        terms = machine.Terms(waits=move.kind == "accept")

        def decide(nobody: State) -> machine.Decision:
            return machine.start(self.definition, SAGA_ID, Choices.model_validate(nobody.data), START, terms)

        undecided = Choices(left_open=True, many=self._many)
        return tuple(self._forked(self._states.knowing(NOBODY, undecided), move, decide))

    def after(self, saga: int, move: Move) -> tuple[Outcome, ...]:
        """What comes of a move: one outcome for each choice of the definition's functions."""
        made = self._made.setdefault(saga, {}).get(move)
        if made is None:
            made = tuple(self._after(saga, move))
            self._made[saga][move] = IGNORED if made == IGNORED else made  # the same one: there are many
        return made

    def _after(self, saga: int, move: Move) -> Iterable[Outcome]:
        before = self.facts[saga].saga
        if move.kind == "late":
            return [Outcome(self._states.number(replace(before, deadline_at=START), START, before))]
        event, now = event_of(move, before), time_of(move)
        return self._forked(before, move, lambda known: self._decide(self.definition, known, event, now))

    def _forked(self, before: State, move: Move, decide: Callable[[State], machine.Decision]) -> Iterable[Outcome]:
        """One outcome for each answer to every question that the machine has."""
        try:
            decision = decide(before)
        except Undecided as question:
            for value in question.values:
                data = Choices.model_validate(before.data).choosing(question.step, value)
                chosen = move._replace(chosen=(*move.chosen, (question.step, value)))
                yield from self._forked(self._states.knowing(before, data), chosen, decide)
        except Exception as error:
            broken = Broken("the machine decides", f"{type(error).__name__}: {error}", "")
            yield Outcome(chosen=move.chosen, broken=broken)
        else:
            yield self._outcome(before, move, decision)

    def _outcome(self, before: State, move: Move, decision: machine.Decision) -> Outcome:
        begins = move.kind in ("start", "accept")
        broken = None if begins else broken_by(self.definition, before, move, decision)
        if decision.saga is before and not decision.dispatches and not move.chosen:
            return Outcome(broken=broken)
        number = self._states.number(decision.saga, time_of(move), before)
        sent = tuple(dispatch.command_id for dispatch in decision.dispatches)
        used = tuple(self._used(before, move, decision))
        return Outcome(number, sent, used, move.chosen, broken or self.facts[number].broken)

    def _used(self, before: State, move: Move, decision: machine.Decision) -> Iterable[tuple[str, str]]:
        """The signals by which waits have ended; what ends by its time or by a person is no signal."""
        for entry in decision.entries:
            if not isinstance(entry, Done | RefusedStep):
                continue
            spec = self.definition.spec_of(entry.step)
            if spec.action is not Action.WAIT:
                continue
            how, status = DONE if isinstance(entry, Done) else REFUSED, before.steps[entry.step].status
            in_time = (move.kind, move.name, status) != ("timer", entry.step, StepStatus.ASKED)
            if in_time or OUT_OF_TIME.get(spec.otherwise) != how:
                yield entry.step, how
