"""`evolve` applies one log entry to a saga, and never decides anything. No I/O."""

from collections.abc import Iterable, Mapping
from typing import assert_never

from orchestrator.entries import (
    Asked,
    Begun,
    CancelOrdered,
    Compensated,
    CompensationStarted,
    Completed,
    Done,
    DoneByHand,
    Dropped,
    Entry,
    Expanded,
    GivenUp,
    Paused,
    RefusedStep,
    Resumed,
    RetryOrdered,
    SignalReceived,
    Skipped,
    Started,
    Stuck,
    UndoAsked,
    Undone,
    UndoneByHand,
    UndoOrdered,
    UndoRefused,
)
from orchestrator.machine.tables import PHASES, TRANSITIONS
from orchestrator.model import (
    Phase,
    Received,
    Saga,
    StepState,
    StepStatus,
    changed,
)


def evolve(saga: Saga, entry: Entry) -> Saga:
    """The saga after `entry`. Raises KeyError on what the two tables do not allow."""
    match entry:
        case Started():
            raise KeyError("a saga starts once: its first entry makes it, see `replay`")
        case Begun() | CompensationStarted() | Completed() | Compensated():
            return _evolve_phase(saga, entry)
        case Expanded(step=name, instances=instances):
            return changed(saga, steps=_expanded(saga.steps, name, instances))
        case SignalReceived(step=name, outcome=outcome, data=data):
            return changed(saga, signals={**saga.signals, name: Received(outcome, data)})
        case Asked(no_return=True) | DoneByHand(no_return=True) if saga.deadline_at is not None:
            return evolve(changed(saga, deadline_at=None), entry)
        case Done(data=data) | DoneByHand(data=data) if data is not None:
            return changed(_evolve_step(saga, entry), data=data)
        case Asked() | Done() | RefusedStep() | GivenUp() | Skipped() | UndoAsked() | Undone() | UndoRefused():
            return _evolve_step(saga, entry)
        case DoneByHand() | UndoneByHand() | Dropped():
            return _evolve_step(saga, entry)
        case Stuck() | RetryOrdered() | CancelOrdered() | Paused() | Resumed() | UndoOrdered():
            return _evolve_order(saga, entry)
        case _:
            assert_never(entry)


def replay(saga_id: str, entries: Iterable[Entry]) -> Saga:
    """Fold a whole log. Raises KeyError on a log that no machine has written."""
    log = iter(entries)
    first = next(log, None)
    if not isinstance(first, Started):
        raise KeyError("the log does not begin with `started`")
    skipped = StepState(StepStatus.SKIPPED)
    saga = Saga(
        id=saga_id,
        definition=first.definition,
        version=first.version,
        fingerprint=first.fingerprint,
        data=first.data,
        steps={name: skipped if name in first.taken_over else StepState() for name in first.steps},
        phase=Phase.WAITING if first.waits else Phase.RUNNING,
        begins_at=first.begins_at,
        deadline_at=first.deadline_at,
        caller=first.caller,
        fork_of=first.fork_of,
    )
    for entry in log:
        saga = evolve(saga, entry)
    return saga


def _evolve_phase(saga: Saga, entry: Begun | CompensationStarted | Completed | Compensated) -> Saga:
    after = changed(saga, phase=PHASES[saga.phase, entry.kind])
    match entry:
        case Begun(deadline_at=deadline_at):
            return changed(after, deadline_at=deadline_at)
        case CompensationStarted(reason=reason):
            forgiven = {name: changed(state, stuck=None) for name, state in saga.steps.items()}
            return changed(after, failure=reason, steps=forgiven)
        case Completed() | Compensated():
            return after
        case _:
            assert_never(entry)


def _evolve_order(saga: Saga, entry: Stuck | RetryOrdered | CancelOrdered | Paused | Resumed | UndoOrdered) -> Saga:
    match entry:
        case Stuck(step=name, reason=reason):
            return _with_step(saga, name, changed(saga.steps[name], stuck=reason, due_at=None))
        case RetryOrdered():
            again = {name: changed(s, stuck=None, tries=0) if s.stuck else s for name, s in saga.steps.items()}
            return changed(saga, steps=again)
        case CancelOrdered():
            return saga
        case Paused(by=by):
            return changed(saga, paused=by)
        case Resumed():
            return changed(saga, paused=None)
        case UndoOrdered(caller=caller):
            return changed(saga, undoer=caller)
        case _:
            assert_never(entry)


StepEntry = (
    Asked
    | Done
    | DoneByHand
    | RefusedStep
    | GivenUp
    | Skipped
    | UndoAsked
    | Undone
    | UndoneByHand
    | Dropped
    | UndoRefused
)


def _evolve_step(saga: Saga, entry: StepEntry) -> Saga:
    state = saga.steps[entry.step]
    status = TRANSITIONS[state.status, entry.kind]
    match entry:
        case Asked() | UndoAsked():
            after = StepState(status, entry.round, entry.attempt, entry.tries, entry.due_at)
        case RefusedStep() | UndoRefused():
            after = changed(state, status=status, due_at=entry.due_at, stuck=None, refusal=entry.reason)
        case Done() | GivenUp() | Skipped() | Undone() | Dropped():
            after = changed(state, status=status, due_at=None, stuck=None)
        case DoneByHand() | UndoneByHand():
            after = changed(state, status=status, due_at=None, stuck=None, by_hand=True)
        case _:
            assert_never(entry)
    if entry.step in saga.signals and isinstance(entry, Done | DoneByHand | RefusedStep):
        saga = changed(saga, signals={name: kept for name, kept in saga.signals.items() if name != entry.step})
    return _with_step(saga, entry.step, after)


def _expanded(steps: Mapping[str, StepState], name: str, instances: Iterable[str]) -> dict[str, StepState]:
    """The same steps in the same order, with the instances in the place of the one."""
    if steps[name].status is not StepStatus.PENDING:
        raise KeyError(f"step {name} is {steps[name].status}: only what was never asked can be expanded")
    pairs = (((one, StepState()) for one in instances) if key == name else ((key, steps[key]),) for key in steps)
    return {key: state for group in pairs for key, state in group}


def _with_step(saga: Saga, name: str, state: StepState) -> Saga:
    return changed(saga, steps={**saga.steps, name: state})
