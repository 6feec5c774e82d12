"""Mistakes on the way forward: what is asked, when, how often, and when it is enough."""

from dataclasses import replace
from typing import Any

from orchestrator import machine
from orchestrator.definition import Action, StepSpec
from orchestrator.entries import Completed, Done, DoneByHand, Entry, Expanded, RefusedStep
from orchestrator.events import Signalled
from orchestrator.machine.tables import PAST
from orchestrator.model import Phase, Saga, StepStatus
from tests.mutants.planting import Decider, Mutant
from tests.mutants.shapes import APPROVED, LIMITED, OPTIONAL, PARTS, SHIPPED

RIGHT_GO_FORWARD = Decider._go_forward
RIGHT_TURN_BACK = Decider._turn_back
RIGHT_INSTANCES = Decider._instances
RIGHT_DUE_AT = Decider._due_at
RIGHT_SIGNAL = Decider.signal
RIGHT_WAITED = Decider._waited
RIGHT_EVOLVE = machine.evolve


def _one_branch_is_enough(decider: Any) -> bool:
    for stage in decider._definition.stages:
        statuses = {spec.name: decider._saga.steps[spec.name].status for spec in stage}
        if StepStatus.DONE in statuses.values():
            continue
        pending = [name for name, status in statuses.items() if status is StepStatus.PENDING]
        for name in pending:
            decider._ask(name, decider._saga.steps[name])
        return bool(pending)
    return bool(decider._write(Completed()))


def _ask_one_branch_only(decider: Any) -> bool:
    for stage in decider._definition.stages:
        state = decider._saga.steps[stage[0].name]
        if state.status is not StepStatus.DONE:
            return state.status is StepStatus.PENDING and decider._ask(stage[0].name, state)
    return bool(decider._write(Completed()))


def _ask_everything_at_once(decider: Any) -> bool:
    steps = decider._saga.steps
    pending = [name for name, state in steps.items() if state.status is StepStatus.PENDING]
    for name in pending:
        decider._ask(name, steps[name])
    if not pending and all(state.status is StepStatus.DONE for state in steps.values()):
        return bool(decider._write(Completed()))
    return bool(pending)


def _complete_at_the_pivot(decider: Any) -> bool:
    pivot = decider._saga.steps[decider._definition.pivot_name]
    return bool(decider._write(Completed()) if pivot.status is StepStatus.DONE else RIGHT_GO_FORWARD(decider))


def _never_turn_back(_decider: Any) -> bool:
    return False


def _turn_back_without_the_pivot(decider: Any) -> bool:
    pivot = decider._saga.steps[decider._definition.pivot_name]
    return pivot.status is not StepStatus.REFUSED and bool(RIGHT_TURN_BACK(decider))


def _do_not_look_at_conditions(decider: Any, spec: StepSpec) -> bool:
    return False


def _forget_the_last_item(decider: Any, spec: StepSpec) -> bool:
    state = decider._saga.steps.get(spec.name)
    if spec.items is None or state is None or state.status is not StepStatus.PENDING:
        return False
    return bool(decider._write(Expanded(spec.name, [f"{spec.name}[0]"])))


def _one_item_is_enough(decider: Any, spec: StepSpec) -> list[str]:
    names: list[str] = RIGHT_INSTANCES(decider, spec)
    done = [name for name in names if decider._saga.steps[name].status in PAST]
    return done[:1] if done and decider._saga.phase is Phase.RUNNING else names


def _ready_without_limit(decider: Any, spec: StepSpec) -> list[str]:
    steps = decider._saga.steps
    return [name for name in decider._instances(spec) if steps[name].status is StepStatus.PENDING]


def _wait_for_ever(decider: Any, spec: StepSpec, name: str, state: Any) -> Any:
    return None if spec.action is Action.WAIT else RIGHT_DUE_AT(decider, spec, name, state)


def _proceed_without_a_signal(decider: Any, spec: StepSpec, name: str) -> None:
    RIGHT_WAITED(decider, replace(spec, otherwise="proceed"), name)


def _lose_what_comes_early(decider: Any, event: Signalled) -> machine.Decision:
    if decider._saga.steps[event.step].status is StepStatus.PENDING:
        return machine.Decision(decider._saga, ignored="it is not its turn")
    return RIGHT_SIGNAL(decider, event)  # type: ignore[no-any-return]


def _lose_a_yes_after_a_no(decider: Any, event: Signalled) -> machine.Decision:
    if decider._saga.steps[event.step].status is StepStatus.REFUSED:
        return machine.Decision(decider._saga, ignored="no is no")
    return RIGHT_SIGNAL(decider, event)  # type: ignore[no-any-return]


def _take_every_signal_for_a_yes(decider: Any, spec: StepSpec, name: str) -> None:
    decider._done(spec, name, {})


def _keep_used_signals(saga: Saga, entry: Entry) -> Saga:
    after = RIGHT_EVOLVE(saga, entry)
    used = isinstance(entry, Done | DoneByHand | RefusedStep) and entry.step in saga.signals
    return replace(after, signals=saga.signals) if used else after


MUTANTS = (
    Mutant("one branch done is enough", decider={"_go_forward": _one_branch_is_enough}),
    Mutant("a parallel branch is forgotten", decider={"_go_forward": _ask_one_branch_only}),
    Mutant("all steps are asked at once", decider={"_go_forward": _ask_everything_at_once}),
    Mutant("completed at the pivot", decider={"_go_forward": _complete_at_the_pivot}),
    Mutant("a refusal does not turn back", decider={"_turn_back": _never_turn_back}),
    Mutant("a refused pivot does not turn back", decider={"_turn_back": _turn_back_without_the_pivot}),
    Mutant("what is skipped is asked", decider={"_open": _do_not_look_at_conditions}, shape=OPTIONAL),
    Mutant("a skipped step is waited for", {"PAST": PAST - {StepStatus.SKIPPED}}, shape=OPTIONAL),
    Mutant("an item is forgotten", decider={"_open": _forget_the_last_item}, shape=PARTS),
    Mutant("one item done is enough", decider={"_instances": _one_item_is_enough}, shape=SHIPPED),
    Mutant("the limit of items is ignored", decider={"_ready": _ready_without_limit}, shape=LIMITED),
    Mutant("a wait's timeout is forgotten", decider={"_due_at": _wait_for_ever}, shape=APPROVED),
    Mutant("a wait that is over is as good as a yes", decider={"_waited": _proceed_without_a_signal}, shape=APPROVED),
    Mutant("a signal that comes early is lost", decider={"signal": _lose_what_comes_early}, shape=APPROVED),
    Mutant("a yes after a no is lost", decider={"signal": _lose_a_yes_after_a_no}, shape=APPROVED),
    Mutant("every signal is taken for a yes", decider={"_take_signal": _take_every_signal_for_a_yes}, shape=APPROVED),
    Mutant("a signal is used twice", {"evolve": _keep_used_signals}, shape=APPROVED),
)
