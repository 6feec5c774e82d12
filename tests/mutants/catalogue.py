"""Deliberate mistakes in the state machine. The explorer must find every one of them.

Each mutant is a way to break `orchestrator.machine` while the block of `planted` runs. One that survives means that
the explorer has a blind spot, not that the mutant is harmless.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from orchestrator import machine
from orchestrator.definition import Kind, StepSpec
from orchestrator.entries import Compensated, CompensationStarted, Completed, Done, Entry, GivenUp, Undone
from orchestrator.events import Answered, TimedOut
from orchestrator.model import Saga, StepState, StepStatus

Decider = machine._Decider


@dataclass(frozen=True)
class Mutant:
    """A mistake: its name, and what it puts in the place of what, in the machine's module or in its decider."""

    name: str
    module: Mapping[str, Any] | None = None
    decider: Mapping[str, Callable[..., Any]] | None = None


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Break the machine for a while."""
    places = [(machine, mutant.module or {}), (Decider, mutant.decider or {})]
    before = [(place, name, getattr(place, name)) for place, names in places for name in names]
    try:
        for place, names in places:
            for name, mistake in names.items():
                setattr(place, name, mistake)
        yield
    finally:
        for place, name, right in before:
            setattr(place, name, right)


# --- the mistakes ------------------------------------------------------------------------------------------------


def _stages_backward(decider: Any, *, wait: bool, stages: Any) -> bool:
    for stage in stages:
        statuses = [decider._saga.steps[spec.name].status for spec in stage]
        owing = [spec for spec in stage if decider._saga.steps[spec.name].status in machine._OWES_UNDO]
        under_way = wait and any(status in machine._UNDO_UNDER_WAY for status in statuses)
        if owing or under_way:
            for spec in owing:
                decider._ask_undo(spec, StepState())
            return bool(owing)
    return bool(decider._write(Compensated()))


def _undo_from_the_front(decider: Any) -> bool:
    return _stages_backward(decider, wait=True, stages=decider._definition.stages)


def _do_not_wait_for_undos(decider: Any) -> bool:
    return _stages_backward(decider, wait=False, stages=reversed(decider._definition.stages))


def _undo_everything_at_once(decider: Any) -> bool:
    owing = [spec for spec in decider._definition.steps.values() if _status(decider, spec) in machine._OWES_UNDO]
    for spec in owing:
        if spec.undo is not None:
            decider._ask_undo(spec, StepState())
    if any(_status(decider, spec) in machine._UNDO_UNDER_WAY for spec in decider._definition.steps.values()):
        return False
    return bool(decider._write(Compensated()))


def _undo_the_last_only(decider: Any) -> bool:
    for spec in reversed(list(decider._definition.steps.values())):
        if _status(decider, spec) in machine._UNDO_UNDER_WAY:
            return False
        if _status(decider, spec) is StepStatus.UNDONE:
            break
        if _status(decider, spec) in machine._OWES_UNDO:
            return bool(decider._ask_undo(spec, StepState()))
    return bool(decider._write(Compensated()))


def _one_branch_is_enough(decider: Any) -> bool:
    for stage in decider._definition.stages:
        statuses = [_status(decider, spec) for spec in stage]
        if StepStatus.DONE in statuses:
            continue
        pending = [spec for spec in stage if _status(decider, spec) is StepStatus.PENDING]
        for spec in pending:
            decider._ask(spec, decider._saga.steps[spec.name])
        return bool(pending)
    return bool(decider._write(Completed()))


def _ask_one_branch_only(decider: Any) -> bool:
    for stage in decider._definition.stages:
        spec = stage[0]
        if _status(decider, spec) is StepStatus.DONE:
            continue
        return _status(decider, spec) is StepStatus.PENDING and decider._ask(spec, decider._saga.steps[spec.name])
    return bool(decider._write(Completed()))


def _ask_everything_at_once(decider: Any) -> bool:
    steps = decider._definition.steps.values()
    pending = [spec for spec in steps if _status(decider, spec) is StepStatus.PENDING]
    for spec in pending:
        decider._ask(spec, decider._saga.steps[spec.name])
    if not pending and all(_status(decider, spec) is StepStatus.DONE for spec in steps):
        return bool(decider._write(Completed()))
    return bool(pending)


def _complete_at_the_pivot(decider: Any) -> bool:
    pivot = next(spec for spec in decider._definition.steps.values() if spec.kind is Kind.PIVOT)
    if _status(decider, pivot) is StepStatus.DONE:
        return bool(decider._write(Completed()))
    return bool(RIGHT_GO_FORWARD(decider))


def _never_turn_back(decider: Any) -> bool:
    return False


def _turn_back_without_the_pivot(decider: Any) -> bool:
    statuses = {spec.kind: _status(decider, spec) for spec in decider._definition.steps.values()}
    return statuses[Kind.PIVOT] is not StepStatus.REFUSED and bool(RIGHT_TURN_BACK(decider))


def _turn_back_after_the_pivot(decider: Any) -> bool:
    for spec in decider._definition.steps.values():
        if _status(decider, spec) is StepStatus.REFUSED:
            return bool(decider._write(CompensationStarted("a retriable step was refused")))
    return bool(RIGHT_TURN_BACK(decider))


def _time_out_gives_up(decider: Any, name: str, event: TimedOut) -> machine.Decision:
    """The pivot is given up like a reversible step."""
    state, spec = decider._saga.steps[name], decider._definition.steps[name]
    if state.status is StepStatus.ASKED and spec.policy.is_spent(state.tries):
        decider._write(GivenUp(name))
        return decider.conclude()  # type: ignore[no-any-return]
    return RIGHT_TIME_OUT(decider, name, event)


def _time_out_forgets(decider: Any, name: str, event: TimedOut) -> machine.Decision:
    """A spent policy ends in silence."""
    state, spec = decider._saga.steps[name], decider._definition.steps[name]
    if decider._policy(spec, state).is_spent(state.tries):
        decider._saga = machine._with_step(decider._saga, name, replace(state, due_at=None))
        return decider.conclude()  # type: ignore[no-any-return]
    return RIGHT_TIME_OUT(decider, name, event)


def _time_out_means_done(decider: Any, name: str, event: TimedOut) -> machine.Decision:
    """No news is good news."""
    if decider._saga.steps[name].status is StepStatus.ASKED:
        decider._write(Done(name))
        return decider.conclude()  # type: ignore[no-any-return]
    return RIGHT_TIME_OUT(decider, name, event)


def _time_out_means_undone(decider: Any, name: str, event: TimedOut) -> machine.Decision:
    """An undo that stays without an answer will have worked."""
    state = decider._saga.steps[name]
    if state.status is StepStatus.UNDOING:
        decider._write(Undone(name))
        return decider.conclude()  # type: ignore[no-any-return]
    return RIGHT_TIME_OUT(decider, name, event)


def _a_refused_undo_is_good_enough(decider: Any, spec: StepSpec, state: StepState, event: Answered) -> None:
    if state.status is StepStatus.UNDOING:
        decider._write(Undone(spec.name))
    else:
        RIGHT_REFUSED(decider, spec, state, event)


def _a_refusal_is_an_answer(decider: Any, spec: StepSpec, state: StepState, event: Answered) -> None:
    if state.status is StepStatus.ASKED:
        decider._write(Done(spec.name))
    else:
        RIGHT_REFUSED(decider, spec, state, event)


def _retry_only_forgives(decider: Any, entry: Any) -> machine.Decision:
    decider._write(entry)
    return decider.conclude()  # type: ignore[no-any-return]


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
    return RIGHT_STEP_OF(saga, f"{saga.id}/{rest}")


def _without_timers(saga: Saga, entry: Entry) -> Saga:
    after = RIGHT_EVOLVE(saga, entry)
    if entry.kind == "asked":
        return machine._with_step(after, entry.step, replace(after.steps[entry.step], due_at=None))
    return after


def _without_undo_timers(saga: Saga, entry: Entry) -> Saga:
    after = RIGHT_EVOLVE(saga, entry)
    if entry.kind == "undo-asked":
        return machine._with_step(after, entry.step, replace(after.steps[entry.step], due_at=None))
    return after


def _unknown_is_refused() -> dict[Any, StepStatus]:
    return {**machine.TRANSITIONS, (StepStatus.ASKED, "given-up"): StepStatus.REFUSED}


def _status(decider: Any, spec: StepSpec) -> StepStatus:
    status: StepStatus = decider._saga.steps[spec.name].status
    return status


RIGHT_GO_FORWARD = Decider._go_forward
RIGHT_TURN_BACK = Decider._turn_back
RIGHT_TIME_OUT = Decider.time_out
RIGHT_REFUSED = Decider._refused
RIGHT_STEP_OF = machine._step_of
RIGHT_EVOLVE = machine.evolve

MUTANTS = (
    Mutant("an unknown step is not undone", {"_OWES_UNDO": machine._OWES_UNDO - {StepStatus.UNKNOWN}}),
    Mutant("a branch in flight is not undone", {"_OWES_UNDO": machine._OWES_UNDO - {StepStatus.ASKED}}),
    Mutant("what was done is not undone", {"_OWES_UNDO": machine._OWES_UNDO - {StepStatus.DONE}}),
    Mutant("a refused step is undone", {"_OWES_UNDO": machine._OWES_UNDO | {StepStatus.REFUSED}}),
    Mutant("unknown is taken for refused", {"TRANSITIONS": _unknown_is_refused()}),
    Mutant("undos begin at the front", decider={"_go_backward": _undo_from_the_front}),
    Mutant("an undo does not wait for the one after it", decider={"_go_backward": _do_not_wait_for_undos}),
    Mutant("all undos are sent at once", decider={"_go_backward": _undo_everything_at_once}),
    Mutant("only the last step is undone", decider={"_go_backward": _undo_the_last_only}),
    Mutant("one branch done is enough", decider={"_go_forward": _one_branch_is_enough}),
    Mutant("a parallel branch is forgotten", decider={"_go_forward": _ask_one_branch_only}),
    Mutant("all steps are asked at once", decider={"_go_forward": _ask_everything_at_once}),
    Mutant("completed at the pivot", decider={"_go_forward": _complete_at_the_pivot}),
    Mutant("a refusal does not turn back", decider={"_turn_back": _never_turn_back}),
    Mutant("a refused pivot does not turn back", decider={"_turn_back": _turn_back_without_the_pivot}),
    Mutant("a refused retriable step turns back", decider={"_turn_back": _turn_back_after_the_pivot}),
    Mutant("an unknown pivot is given up", decider={"time_out": _time_out_gives_up}),
    Mutant("a spent policy is forgotten", decider={"time_out": _time_out_forgets}),
    Mutant("no answer is taken for done", decider={"time_out": _time_out_means_done}),
    Mutant("no answer is taken for undone", decider={"time_out": _time_out_means_undone}),
    Mutant("a refused undo is taken for done", decider={"_refused": _a_refused_undo_is_good_enough}),
    Mutant("a refusal is taken for done", decider={"_refused": _a_refusal_is_an_answer}),
    Mutant("a retry asks nothing", decider={"retry": _retry_only_forgives}),
    Mutant("a reply's direction is inferred", {"_step_of": _any_direction}),
    Mutant("a reply's round is ignored", {"_step_of": _any_round}),
    Mutant("a reply's saga is ignored", {"_step_of": _any_saga}),
    Mutant("steps have no timer", {"evolve": _without_timers}),
    Mutant("undos have no timer", {"evolve": _without_undo_timers}),
    Mutant("the end is not an end", {"ENDED": frozenset(), "_OUT": frozenset(StepStatus)}),
)
