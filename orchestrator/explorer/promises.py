"""The promises of a saga, each judged as soon as it can be.

Some are broken by a decision alone (`broken_by`) or by what a saga's state says (`broken_in`); `truth` has those
that need the truth: what participants have really done. Each says how a test finds out whether it is kept. No I/O.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final

from orchestrator import machine
from orchestrator.definition import Action, Kind, Saga, StepSpec, base_name
from orchestrator.entries import Asked, CompensationStarted
from orchestrator.explorer.moves import MEANINGLESS, START, Move, parts, quoted, short
from orchestrator.explorer.skeleton import Choice
from orchestrator.model import ENDED, Phase, StepStatus, command_id
from orchestrator.model import Saga as State


@dataclass(frozen=True, slots=True)
class Broken:
    """A broken promise: what was promised, what broke it, and a line of a test that fails as long as it is broken.

    `supposing`: what a definition's functions would have said, had they been asked.
    """

    promise: str
    by: str
    check: str
    supposing: tuple[tuple[str, Choice], ...] = ()

    def __str__(self) -> str:
        return f"{self.promise}: {self.by}" if self.by else self.promise


def sends(promise: str, commands: Iterable[str]) -> Broken:
    """Broken by commands that should not go out."""
    wrong = list(commands)
    listed = ", ".join(map(quoted, wrong))
    check = f"assert not {{{listed}}} & {{one.command_id for one in it.last.dispatches}}"
    return Broken(promise, ", ".join(map(short, wrong)), check)


def is_in(promise: str, by: str, phase: Phase) -> Broken:
    """Broken by a saga that is in this phase."""
    return Broken(promise, by, f"assert it.saga.phase != {quoted(phase)}")


def is_not_in(promise: str, by: str, *phases: Phase) -> Broken:
    """Broken by a saga that is in none of these phases."""
    return Broken(promise, by, f"assert it.saga.phase in {{{', '.join(map(quoted, phases))}}}")


def status_is_in(promise: str, by: str, step: str, *statuses: StepStatus) -> Broken:
    """Broken by a step that has one of these statuses."""
    listed = ", ".join(map(quoted, statuses))
    return Broken(promise, by, f"assert it.saga.steps[{quoted(step)}].status not in {{{listed}}}")


NOTHING_HAPPENED: Final = "it.then_nothing_happened()"
TURNED_BACK: Final = (Phase.COMPENSATING, Phase.COMPENSATED)


# --- broken by a decision ------------------------------------------------------------------------------------------


def broken_by(definition: Saga[Any], before: State, move: Move, decision: machine.Decision) -> Broken | None:
    """The first promise that a decision breaks, whatever the world is like."""
    return next(_broken_by(definition, before, move, decision), None)


def _broken_by(definition: Saga[Any], before: State, move: Move, decision: machine.Decision) -> Iterator[Broken]:
    after, sent = decision.saga, [dispatch.command_id for dispatch in decision.dispatches]
    changed = bool(sent) or after != before
    if changed and move.kind in MEANINGLESS:
        yield Broken("what is too early, too late or another saga's changes nothing", str(move), NOTHING_HAPPENED)
    if changed and before.phase in ENDED and not _may_undo_all(definition, before, move):
        yield Broken("what has ended stays as it is", str(move), NOTHING_HAPPENED)
    if sent and before.paused and move.kind != "resume":
        yield sends("a paused saga sends nothing", sent)
    if before.phase is Phase.WAITING and after.phase is Phase.RUNNING and move.kind != "admit":
        yield is_not_in("a saga that waits begins when it is admitted", str(move), Phase.WAITING)
    if before.phase is Phase.COMPENSATING and after.phase not in TURNED_BACK:
        yield is_not_in("what turns back does not go forward again", str(move), *TURNED_BACK)
    if after.phase in TURNED_BACK and (new := _asked_too_late(before, decision)):
        yield sends("what turns back asks for nothing new", new)
    if before.phase is Phase.RUNNING and before.deadline_at == START and (new := _asked_first(before, sent)):
        yield sends("nothing new is asked for when the deadline has passed", new)
    if _log_differs(before, decision):
        yield Broken("the log says what happened", str(move), "assert it.saga == replay(it.saga.id, it.log)")
    yield from _turns_back_or_not(definition, before, move, after)


def _asked_first(before: State, commands: Iterable[str]) -> list[str]:
    """What is asked for the first time."""
    asked = {name for name, state in before.steps.items() if state.status is not StepStatus.PENDING}
    return [one for one in commands if parts(one).direction == "do" and parts(one).step not in asked]


def _asked_too_late(before: State, decision: machine.Decision) -> list[str]:
    """What is asked after the saga has turned back."""
    turned = before.phase in TURNED_BACK
    late: list[str] = []
    for entry in decision.entries:
        turned = turned or isinstance(entry, CompensationStarted)
        if turned and isinstance(entry, Asked):
            late.append(command_id(before.id, entry.step, "do", entry.round))
    return late


def _may_undo_all(definition: Saga[Any], before: State, move: Move) -> bool:
    return move.kind == "undo-all" and definition.pivot_name is None and before.phase is Phase.COMPLETED


def _log_differs(before: State, decision: machine.Decision) -> bool:
    """Whether the entries of a decision do not lead to the state that it says."""
    return reduce(machine.evolve, decision.entries, before) != decision.saga


def _turns_back_or_not(definition: Saga[Any], before: State, move: Move, after: State) -> Iterator[Broken]:
    """The deadline, an order, and whoever started the saga turn it back before the pivot was asked, and never after."""
    turned = after.phase in TURNED_BACK
    if before.phase is Phase.RUNNING and turned and not _may_turn_back(definition, after):
        yield is_not_in("nothing turns back once the pivot was asked", str(move), Phase.RUNNING, Phase.COMPLETED)
    if move.kind == "deadline":
        told = before.phase is Phase.RUNNING and not before.paused and before.deadline_at is not None
    elif move.kind in ("cancel", "undo-all"):
        told = before.phase not in ENDED or _may_undo_all(definition, before, move)
    else:
        told = False
    if told and not turned and _may_turn_back(definition, before):
        yield is_not_in("before the pivot a saga turns back when it is told to", str(move), *TURNED_BACK)


def _may_turn_back(definition: Saga[Any], saga: State) -> bool:
    """Whether the pivot was not asked, or was refused."""
    pivot = definition.pivot_name
    return pivot is None or saga.steps[pivot].status in (StepStatus.PENDING, StepStatus.REFUSED)


# --- broken by what a saga says of itself --------------------------------------------------------------------------


def broken_in(definition: Saga[Any], saga: State) -> Broken | None:
    """The first promise that this state breaks, whatever the world is like."""
    if saga.phase in ENDED:
        return None
    idle = next((name for name in saga.steps if _waits_for_nothing(definition, saga, name)), None)
    if idle is not None:
        return Broken("what is under way waits for a timer, a signal or a person", idle, _still_goes_on(idle))
    goes_on = saga.phase is not Phase.WAITING and not saga.paused
    if goes_on and not any(_is_under_way(definition, saga, name) for name in saga.steps):
        check = 'assert it.saga.due_at or it.saga.stuck or it.saga.phase in {"completed", "compensated"}'
        return Broken("what has not ended waits for something", "nothing is under way", check)
    if _has_no_deadline(definition, saga):
        return Broken("the deadline counts until the pivot is asked", "", "assert it.saga.deadline_at")
    return _beyond_a_limit(definition, saga)


def _has_no_deadline(definition: Saga[Any], saga: State) -> bool:
    pivot = definition.pivot_name
    counts = pivot is None or saga.steps[pivot].status is StepStatus.PENDING
    return counts and saga.phase is Phase.RUNNING and definition.deadline is not None and saga.deadline_at is None


def _still_goes_on(step: str) -> str:
    state = f"it.saga.steps[{quoted(step)}]"
    return f'assert {state}.due_at or {state}.stuck or {state}.status not in {{"asked", "undoing", "undo-refused"}}'


def _is_under_way(definition: Saga[Any], saga: State, name: str) -> bool:
    state = saga.steps[name]
    if saga.phase is Phase.COMPENSATING and state.status is StepStatus.ASKED and not state.stuck:
        return state.due_at is not None  # otherwise it waits for its turn to be undone
    if state.stuck or state.status in (StepStatus.ASKED, StepStatus.UNDOING, StepStatus.UNDO_REFUSED):
        return True
    return state.status is StepStatus.REFUSED and definition.spec_of(name).kind is Kind.RETRIABLE


def _waits_for_nothing(definition: Saga[Any], saga: State, name: str) -> bool:
    state, spec = saga.steps[name], definition.spec_of(name)
    if state.due_at is not None or state.stuck or not _is_under_way(definition, saga, name):
        return False
    return not (spec.action is Action.WAIT and spec.timeout is None and state.status is StepStatus.ASKED)


def _beyond_a_limit(definition: Saga[Any], saga: State) -> Broken | None:
    for spec in definition.steps.values():
        for status in (StepStatus.ASKED, StepStatus.UNDOING):
            if spec.limit is not None and len(_instances(saga, spec, status)) > spec.limit:
                out = f"[one for one in it.saga.steps.values() if one.status == {quoted(status)}]"
                promise = "no more items of a step are out than its limit"
                return Broken(promise, f"{spec.name} is {status}", f"assert len({out}) <= {spec.limit}")
    return None


def _instances(saga: State, spec: StepSpec, status: StepStatus) -> list[str]:
    return [name for name, state in saga.steps.items() if state.status is status and base_name(name) == spec.name]
