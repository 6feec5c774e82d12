"""The truth: what participants have really made of each command, and the promises that are judged by it. No I/O.

The saga knows what it was told. Whether an effect is there, and whether one may yet come, is known by the mail alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from orchestrator.definition import Action, Kind, Saga, StepSpec
from orchestrator.explorer.moves import DONE, REFUSED, SAGA_ID, parts
from orchestrator.explorer.promises import Broken, is_in, sends
from orchestrator.explorer.skeleton import Choices
from orchestrator.machine.tables import PAST
from orchestrator.model import ENDED, Phase, command_id
from orchestrator.model import Saga as State

Handled = Mapping[str, str]
"""What participants have made of each command that was ever sent, by its id; empty: that is open."""


def is_there(mail: Handled, step: str) -> bool:
    """Whether a step's effect is there for certain: it was done, and it was not undone."""
    return DONE in _outcomes(mail, step, "do") and DONE not in _outcomes(mail, step, "undo")


def may_be_there(mail: Handled, step: str) -> bool:
    """Whether a step's effect may be there, or may yet come. What was undone first is refused when it comes."""
    outcomes = _outcomes(mail, step, "do")
    return (DONE in outcomes or "" in outcomes) and DONE not in _outcomes(mail, step, "undo")


def settled(mail: Handled, step: str, outcome: str) -> dict[str, str]:
    """What a person finds, and sees to it that it stays so, when it is open whether a step was done."""
    return {one: outcome for one, how in mail.items() if not how and parts(one)[:2] == (step, "do")}


# --- promises ------------------------------------------------------------------------------------------------------


def bad_command(definition: Saga[Any], saga: State, mail: Handled, command: str) -> Broken | None:
    """Judge a command when it is sent. `saga` is the state after, `mail` has what is sent with it."""
    sent = parts(command)
    rounds = [one for one in mail if parts(one)[:2] == sent[:2] and parts(one).round < sent.round]
    if any(not mail[one].startswith(REFUSED) for one in rounds):
        return sends("nothing happens twice", [command])
    if sent.direction == "undo":
        return _bad_undo(definition, mail, command)
    return _bad_do(definition, saga, mail, command)


def bad_end(definition: Saga[Any], saga: State, mail: Handled) -> Broken | None:
    """Judge how a saga has ended."""
    if saga.phase not in ENDED:
        return None
    steps = {parts(command).step for command in mail}
    if saga.phase is Phase.COMPENSATED:
        left = {step for step in steps if may_be_there(mail, step)}
        return _ends_wrongly("compensated means that no effect is there, and none comes", left, saga)
    there = {step for step in steps if is_there(mail, step)}
    wanted = {name for name, spec in _expected(definition, saga, unless_chosen=True).items() if spec.command}
    return _ends_wrongly("completed means that every effect is there, and no other", wanted ^ there, saga)


def _bad_undo(definition: Saga[Any], mail: Handled, command: str) -> Broken | None:
    step = parts(command).step
    if command_id(SAGA_ID, step, "do") not in mail:
        return sends("nothing is undone that was never asked", [command])
    stage = definition.spec_of(step).stage
    for other, how in mail.items():
        sent = parts(other)
        spec = definition.spec_of(sent.step)
        if sent.direction != "do" or how.startswith(REFUSED):
            continue
        if spec.kind is Kind.PIVOT:
            return sends("nothing is undone once the pivot may have happened", [command])
        if spec.stage > stage and may_be_there(mail, sent.step):
            return sends("undos go back stage by stage", [command])
    return None


def _bad_do(definition: Saga[Any], saga: State, mail: Handled, command: str) -> Broken | None:
    step = parts(command).step
    wanted = _expected(definition, saga, unless_chosen=False)
    spec = definition.spec_of(step)
    if step not in wanted:
        supposing = ((spec.name, False),) if spec.when is not None else ((spec.name, 0),)
        return replace(sends("what is skipped is not asked", [command]), supposing=supposing)
    stage = spec.stage
    before = {one: spec for one, spec in wanted.items() if spec.stage < stage}
    if all(_is_past(saga, mail, one, spec) for one, spec in before.items()):
        return None
    return sends("a step is asked when all before it has happened", [command])


def _ends_wrongly(promise: str, wrong: Iterable[str], saga: State) -> Broken | None:
    steps = ", ".join(sorted(wrong))
    return is_in(promise, steps, saga.phase) if steps else None


def _is_past(saga: State, mail: Handled, name: str, spec: StepSpec) -> bool:
    if spec.action is Action.COMMAND:
        return is_there(mail, name)
    return saga.steps[name].status in PAST


def _outcomes(mail: Handled, step: str, direction: str) -> list[str]:
    """What has become of a step in each of its rounds."""
    return [how for command, how in mail.items() if parts(command)[:2] == (step, direction)]


def _expected(definition: Saga[Any], saga: State, *, unless_chosen: bool) -> dict[str, StepSpec]:
    """What a saga has to do. A step whose condition or items nobody has asked for counts when `unless_chosen`."""
    choices = Choices.model_validate(saga.data)
    found: dict[str, StepSpec] = {}
    for spec in definition.steps.values():
        holds = spec.when is None or choices.conditions.get(spec.name, unless_chosen)
        count = choices.items.get(spec.name, choices.many if unless_chosen else 0)
        names = [spec.name] if spec.items is None else [f"{spec.name}[{index}]" for index in range(count)]
        found |= dict.fromkeys(names if holds else [], spec)
    return found
