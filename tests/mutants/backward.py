"""Mistakes on the way back: what is undone, in which order, and when nothing is left."""

from collections.abc import Iterable
from typing import Any

from orchestrator.definition import StepSpec, base_name
from orchestrator.entries import Compensated, CompensationStarted, GivenUp
from orchestrator.events import TimedOut
from orchestrator.machine import TRANSITIONS, Decision
from orchestrator.machine.tables import OWES_UNDO, UNDO_UNDER_WAY
from orchestrator.model import Phase, StepState, StepStatus
from tests.mutants.planting import Decider, Mutant, is_out_of_time
from tests.mutants.shapes import LIMITED, OPTIONAL, PARTS

RIGHT_TURN_BACK = Decider._turn_back
RIGHT_TIME_OUT = Decider.time_out
RIGHT_INSTANCES = Decider._instances


def _status(decider: Any, name: str) -> StepStatus:
    status: StepStatus = decider._saga.steps[name].status
    return status


def _stages_backward(decider: Any, stages: Iterable[Any], *, wait: bool) -> bool:
    for stage in stages:
        owing = [spec.name for spec in stage if _status(decider, spec.name) in OWES_UNDO]
        if owing or (wait and any(_status(decider, spec.name) in UNDO_UNDER_WAY for spec in stage)):
            for name in owing:
                decider._ask_undo(name, StepState())
            return bool(owing)
    return bool(decider._write(Compensated()))


def _undo_from_the_front(decider: Any) -> bool:
    return _stages_backward(decider, decider._definition.stages, wait=True)


def _do_not_wait_for_undos(decider: Any) -> bool:
    return _stages_backward(decider, reversed(decider._definition.stages), wait=False)


def _undo_everything_at_once(decider: Any) -> bool:
    for name in [name for name in decider._saga.steps if _status(decider, name) in OWES_UNDO]:
        decider._ask_undo(name, StepState())
    under_way = any(_status(decider, name) in UNDO_UNDER_WAY for name in decider._saga.steps)
    return not under_way and bool(decider._write(Compensated()))


def _undo_the_last_only(decider: Any) -> bool:
    for name in reversed(decider._saga.steps):
        status = _status(decider, name)
        if status in UNDO_UNDER_WAY:
            return False
        if status is StepStatus.UNDONE:
            break
        if status in OWES_UNDO:
            return bool(decider._ask_undo(name, StepState()))
    return bool(decider._write(Compensated()))


def _turn_back_after_the_pivot(decider: Any) -> bool:
    if any(state.status is StepStatus.REFUSED for state in decider._saga.steps.values()):
        return bool(decider._write(CompensationStarted("a retriable step was refused")))
    return bool(RIGHT_TURN_BACK(decider))


def _give_up_the_pivot_too(decider: Any, name: str, event: TimedOut) -> Decision:
    spent = decider._definition.spec_of(name).policy.is_spent(decider._saga.steps[name].tries)
    if spent and is_out_of_time(decider, name, event, StepStatus.ASKED):
        decider._write(GivenUp(name))
        return decider.conclude()  # type: ignore[no-any-return]
    return RIGHT_TIME_OUT(decider, name, event)  # type: ignore[no-any-return]


def _ask_again_what_waits_for_its_undo(decider: Any, name: str, event: TimedOut) -> Decision:
    going_back = decider._saga.phase is Phase.COMPENSATING
    if going_back and is_out_of_time(decider, name, event, StepStatus.ASKED):
        decider._ask_again(name)
        return decider.conclude()  # type: ignore[no-any-return]
    return RIGHT_TIME_OUT(decider, name, event)  # type: ignore[no-any-return]


def _forget_an_item(decider: Any, spec: StepSpec) -> list[str]:
    names: list[str] = RIGHT_INSTANCES(decider, spec)
    return names[:1] if decider._saga.phase is Phase.COMPENSATING else names


def _undo_without_limit(decider: Any, spec: StepSpec) -> list[str]:
    mine = [name for name in decider._saga.steps if base_name(name) == spec.name]
    return [name for name in mine if _status(decider, name) in OWES_UNDO]


SKIPPED_IS_UNDONE = {**TRANSITIONS, (StepStatus.SKIPPED, "undo-asked"): StepStatus.UNDOING}
UNKNOWN_IS_REFUSED = {**TRANSITIONS, (StepStatus.ASKED, "given-up"): StepStatus.REFUSED}

MUTANTS = (
    Mutant("an unknown step is not undone", {"OWES_UNDO": OWES_UNDO - {StepStatus.UNKNOWN}}),
    Mutant("a branch in flight is not undone", {"OWES_UNDO": OWES_UNDO - {StepStatus.ASKED}}),
    Mutant("what was done is not undone", {"OWES_UNDO": OWES_UNDO - {StepStatus.DONE}}),
    Mutant("a refused step is undone", {"OWES_UNDO": OWES_UNDO | {StepStatus.REFUSED}}),
    Mutant(
        "a skipped step is undone",
        {"OWES_UNDO": OWES_UNDO | {StepStatus.SKIPPED}, "TRANSITIONS": SKIPPED_IS_UNDONE},
        shape=OPTIONAL,
    ),
    Mutant("unknown is taken for refused", {"TRANSITIONS": UNKNOWN_IS_REFUSED}),
    Mutant("undos begin at the front", decider={"_go_backward": _undo_from_the_front}),
    Mutant("an undo does not wait for the one after it", decider={"_go_backward": _do_not_wait_for_undos}),
    Mutant("all undos are sent at once", decider={"_go_backward": _undo_everything_at_once}),
    Mutant("only the last step is undone", decider={"_go_backward": _undo_the_last_only}),
    Mutant("a refused retriable step turns back", decider={"_turn_back": _turn_back_after_the_pivot}),
    Mutant("an unknown pivot is given up", decider={"time_out": _give_up_the_pivot_too}),
    Mutant("an item is not undone", decider={"_instances": _forget_an_item}, shape=PARTS),
    Mutant("the limit of undos is ignored", decider={"_ready_to_undo": _undo_without_limit}, shape=LIMITED),
    Mutant(
        "what waits for its undo is asked again",
        decider={"time_out": _ask_again_what_waits_for_its_undo},
        shape=LIMITED,
    ),
)
