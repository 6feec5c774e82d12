"""Mistakes about what is heard: which reply is meant, what silence means, and which timers run."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestrator import machine
from orchestrator.definition import StepSpec
from orchestrator.entries import Asked, Begun, Done, Entry, UndoAsked, Undone
from orchestrator.events import Answered, TimedOut
from orchestrator.machine import PHASES, Decision
from orchestrator.machine.tables import OUT
from orchestrator.model import Phase, Saga, StepStatus
from tests.mutants.planting import MODULES, Decider, Mutant, is_out_of_time

RIGHT_ANSWER = Decider.answer
RIGHT_TIME_OUT = Decider.time_out
RIGHT_REFUSED = Decider._refused
RIGHT_STEP_OF = MODULES[1]._step_of
RIGHT_EVOLVE = machine.evolve


def _a_refused_undo_is_good_enough(decider: Any, spec: StepSpec, name: str, data: Mapping[str, Any]) -> None:
    if decider._saga.steps[name].status is StepStatus.UNDOING:
        decider._write(Undone(name))
    else:
        RIGHT_REFUSED(decider, spec, name, data)


def _a_refusal_is_an_answer(decider: Any, spec: StepSpec, name: str, data: Mapping[str, Any]) -> None:
    if decider._saga.steps[name].status is StepStatus.ASKED:
        decider._write(Done(name))
    else:
        RIGHT_REFUSED(decider, spec, name, data)


def _silence_means_done(decider: Any, name: str, event: TimedOut) -> Decision:
    if is_out_of_time(decider, name, event, StepStatus.ASKED):
        decider._write(Done(name))
        return decider.conclude()  # type: ignore[no-any-return]
    return RIGHT_TIME_OUT(decider, name, event)  # type: ignore[no-any-return]


def _silence_means_undone(decider: Any, name: str, event: TimedOut) -> Decision:
    if is_out_of_time(decider, name, event, StepStatus.UNDOING):
        decider._write(Undone(name))
        return decider.conclude()  # type: ignore[no-any-return]
    return RIGHT_TIME_OUT(decider, name, event)  # type: ignore[no-any-return]


def _forget_what_is_spent(decider: Any, name: str, reason: str) -> bool:
    return False


def _fire_early(decider: Any, name: str, event: TimedOut) -> Decision:
    decider._now = max(decider._now, decider._saga.steps[name].due_at or decider._now)
    return RIGHT_TIME_OUT(decider, name, event)  # type: ignore[no-any-return]


def _fire_for_any_attempt(decider: Any, name: str, event: TimedOut) -> Decision:
    return RIGHT_TIME_OUT(decider, name, replace(event, attempt=decider._saga.steps[name].attempt))  # type: ignore[no-any-return]


def _any_direction(saga: Saga, wanted: str) -> str | None:
    """The direction of a reply is taken from the state that the saga is in."""
    owner, _, rest = wanted.partition("/")
    name = rest.partition("/")[0]
    return name if owner == saga.id and name in saga.steps else None


def _any_round(saga: Saga, wanted: str) -> str | None:
    """A reply to an earlier round counts for this one."""
    owner, name, direction = wanted.split("/")[:3]
    matches = owner == saga.id and name in saga.steps and saga.command_id(name).split("/")[2] == direction
    return name if matches else None


def _any_saga(saga: Saga, wanted: str) -> str | None:
    """Whose reply it is does not matter."""
    _, _, rest = wanted.partition("/")
    return RIGHT_STEP_OF(saga, f"{saga.id}/{rest}")  # type: ignore[no-any-return]


def _revive(decider: Any, name: str, event: Answered) -> Decision:
    """What was given up has been done after all: so the saga goes on."""
    saga = decider._saga
    late = event.command_id == f"{saga.id}/{name}/do" and event.outcome == "done"
    if late and saga.phase is Phase.COMPENSATING:
        decider._write(Begun(saga.deadline_at))
        return decider.conclude()  # type: ignore[no-any-return]
    if event.command_id != saga.command_id(name):
        return Decision(saga, ignored="not this one")
    return RIGHT_ANSWER(decider, name, event)  # type: ignore[no-any-return]


def _without_timers(saga: Saga, entry: Entry) -> Saga:
    return RIGHT_EVOLVE(saga, replace(entry, due_at=None) if isinstance(entry, Asked) else entry)


def _without_undo_timers(saga: Saga, entry: Entry) -> Saga:
    after = RIGHT_EVOLVE(saga, entry)
    if not isinstance(entry, UndoAsked):
        return after
    return replace(after, steps={**after.steps, entry.step: replace(after.steps[entry.step], due_at=None)})


REVIVED = {**PHASES, (Phase.COMPENSATING, "begun"): Phase.RUNNING}

MUTANTS = (
    Mutant("a reply's direction is inferred", {"_step_of": _any_direction}),
    Mutant("a reply's round is ignored", {"_step_of": _any_round}),
    Mutant("a reply's saga is ignored", {"_step_of": _any_saga}),
    Mutant(
        "a late reply revives the saga", {"_step_of": _any_direction, "PHASES": REVIVED}, decider={"answer": _revive}
    ),
    Mutant("the end is not an end", {"ENDED": frozenset(), "OUT": frozenset(StepStatus)}),
    Mutant("an answer counts twice", {"OUT": OUT | {StepStatus.DONE, StepStatus.REFUSED}}),
    Mutant("silence is taken for done", decider={"time_out": _silence_means_done}),
    Mutant("silence is taken for undone", decider={"time_out": _silence_means_undone}),
    Mutant("a spent policy is forgotten", decider={"_stick": _forget_what_is_spent}),
    Mutant("a refused undo is taken for done", decider={"_refused": _a_refused_undo_is_good_enough}),
    Mutant("a refusal is taken for done", decider={"_refused": _a_refusal_is_an_answer}),
    Mutant("a timer that fires early counts", decider={"time_out": _fire_early}),
    Mutant("a timer of an earlier attempt counts", decider={"time_out": _fire_for_any_attempt}),
    Mutant("steps have no timer", {"evolve": _without_timers}),
    Mutant("undos have no timer", {"evolve": _without_undo_timers}),
)
