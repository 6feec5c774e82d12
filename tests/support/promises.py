"""What must hold between any two events of any saga, and a saga in virtual time that is held to it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from orchestrator.definition import Action, StepSpec
from orchestrator.entries import Asked, DoneByHand, Entry, UndoAsked
from orchestrator.events import (
    Admitted,
    Answered,
    DeadlinePassed,
    Event,
    ResumeOrdered,
    Retried,
    Signalled,
    TimedOut,
    UndoRequested,
)
from orchestrator.machine import Decision, Dispatch, decide, replay, start
from orchestrator.model import ENDED, Phase, StepStatus
from orchestrator.model import Saga as State
from orchestrator.testing import DAWN, SAGA_ID, check_log_is_the_truth
from tests.support.random_sagas import Poke, RandomSaga

PAST: Final = {StepStatus.DONE, StepStatus.SKIPPED}
LEFT_ALONE: Final = {StepStatus.PENDING, StepStatus.SKIPPED, StepStatus.REFUSED, StepStatus.UNDONE}
OUT: Final = {StepStatus.ASKED, StepStatus.UNDOING}
GONE: Final = {"undone", "undone-by-hand", "dropped", "refused"}
"""The last word of the log on a step of which nothing is left."""

ANYTHING: Final = {"note": 1, "saga_id": "child-1", "result": {}}
"""A reply that every command of a random saga can be answered with."""


@dataclass
class Run:
    """One saga in virtual time, with everything that it has logged and sent."""

    random: RandomSaga
    now: datetime = DAWN
    log: list[Entry] = field(default_factory=list)
    sent: list[Dispatch] = field(default_factory=list)
    saga: State = field(init=False)

    def __post_init__(self) -> None:
        one = self.random
        self._take(start(one.definition, SAGA_ID, one.data, self.now, one.terms), None)

    def feed(self, event: Event) -> Decision:
        """Apply an event, and check what every event must keep."""
        before = self.saga
        decision = decide(self.random.definition, before, event, self.now)
        if before.paused and not isinstance(event, ResumeOrdered):
            assert decision.dispatches == (), "a paused saga sends nothing"
        if before.phase in ENDED and not self._undoes_a_child(event, before):
            assert decision.saga is before, "an ended saga absorbs every event"
        self._take(decision, before)
        return decision

    def fire(self, name: str) -> Decision:
        """Let time go on until the step's timer fires."""
        state = self.saga.steps[name]
        assert state.due_at is not None
        self.now = max(self.now, state.due_at)
        return self.feed(TimedOut(self.saga.command_id(name), state.attempt))

    def pass_deadline(self) -> Decision:
        """Let time go on until the deadline has passed."""
        self.now = max(self.now, self.saga.deadline_at or self.now)
        return self.feed(DeadlinePassed())

    def spec_of(self, name: str) -> StepSpec:
        return self.random.definition.spec_of(name)

    def is_command(self, name: str) -> bool:
        return self.spec_of(name).action is Action.COMMAND

    @property
    def timers(self) -> list[str]:
        return [name for name, state in self.saga.steps.items() if state.due_at is not None]

    @property
    def out(self) -> list[str]:
        """The steps whose command, or undo, is out."""
        return [name for name, state in self.saga.steps.items() if state.status in OUT and self.is_command(name)]

    @property
    def waits(self) -> list[str]:
        """The steps that are waits for a signal."""
        return [name for name in self.saga.steps if self.spec_of(name).action is Action.WAIT]

    @property
    def awaited(self) -> list[str]:
        """The signals that are waited for now."""
        return [name for name in self.waits if self.saga.steps[name].status is StepStatus.ASKED]

    def _undoes_a_child(self, event: Event, before: State) -> bool:
        no_pivot = self.random.definition.pivot is None
        return isinstance(event, UndoRequested) and no_pivot and before.phase is Phase.COMPLETED

    def _take(self, decision: Decision, before: State | None) -> None:
        self.saga = decision.saga
        if not decision.entries:
            assert decision.saga == before
            assert decision.dispatches == ()
            assert decision.ignored
        dispatches = iter(decision.dispatches)
        for entry in decision.entries:
            self.log.append(entry)
            if isinstance(entry, Asked | UndoAsked) and self.is_command(entry.step):
                self._check_asking(entry, next(dispatches), replay(SAGA_ID, self.log))
        assert next(dispatches, None) is None, "every command that goes out is in the log"

    def _check_asking(self, entry: Asked | UndoAsked, dispatch: Dispatch, saga: State) -> None:
        earlier = [one.attempt for one in self.sent if one.command_id == dispatch.command_id]
        assert all(attempt < dispatch.attempt for attempt in earlier), "attempts of a command id only rise"
        assert not isinstance(dispatch.command, Poke) or dispatch.command.saga == saga.data["saga_id"]
        if isinstance(entry, UndoAsked):
            assert dispatch.undoes == f"{SAGA_ID}/{entry.step}/do"
            by_hand = any(isinstance(one, DoneByHand) and one.step == entry.step for one in self.log)
            assert by_hand or dispatch.undoes in {one.command_id for one in self.sent}, "only what was asked is undone"
            self._check_nothing_later_is_left(entry.step, saga)
        else:
            assert dispatch.undoes is None
            assert saga.phase is Phase.RUNNING
        self.sent.append(dispatch)

    def _check_nothing_later_is_left(self, undone: str, saga: State) -> None:
        stage = self.spec_of(undone).stage
        later = {state.status for name, state in saga.steps.items() if self.spec_of(name).stage > stage}
        assert later <= LEFT_ALONE, "undos go stage by stage, backward"


def check_state(run: Run) -> None:
    """What must hold between any two events."""
    saga, steps = run.saga, run.saga.steps
    check_log_is_the_truth(saga, run.log)
    statuses = {state.status for state in steps.values()}
    if StepStatus.UNKNOWN in statuses:
        assert saga.phase is Phase.COMPENSATING, "what is unknown is undone"
    if saga.phase is Phase.COMPLETED:
        assert statuses <= PAST
    if saga.phase is Phase.RUNNING and not saga.paused:
        assert not statuses <= PAST, "what has nothing left to do is completed"
    if saga.phase is Phase.COMPENSATED:
        assert statuses <= LEFT_ALONE
        assert {last for last in _last_words(run).values() if last} <= GONE
    for state in steps.values():
        assert (state.due_at is None) or (state.stuck is None and state.attempt >= max(1, state.tries))
    _check_it_moves(run)
    _check_the_pivot(run)
    _check_the_limits(run)


def _check_it_moves(run: Run) -> None:
    saga = run.saga
    if saga.phase in ENDED:
        assert (saga.due_at, saga.stuck) == (None, None)
    elif saga.phase is not Phase.WAITING and not saga.paused:
        assert saga.stuck or saga.due_at or run.awaited, "it goes on by itself, or somebody is told or waited for"


def _check_the_pivot(run: Run) -> None:
    pivot = run.random.definition.pivot_name
    if pivot and run.saga.steps[pivot].status in PAST:
        assert [one for one in run.sent if one.undoes] == [], "nothing is undone after the pivot"
        assert run.saga.phase in (Phase.WAITING, Phase.RUNNING, Phase.COMPLETED)
        assert run.saga.deadline_at is None


def _check_the_limits(run: Run) -> None:
    for spec in run.random.definition.steps.values():
        states = [state.status for name, state in run.saga.steps.items() if run.spec_of(name) is spec]
        under_way = sum(status in (*OUT, StepStatus.UNDO_REFUSED) for status in states)
        forward = run.saga.phase is not Phase.COMPENSATING  # on the way back what was out may still be
        assert spec.limit is None or not forward or under_way <= spec.limit


def _last_words(run: Run) -> dict[str, str | None]:
    """Of every step that was asked, or answered for by hand: what the log says of it last."""
    told = GONE | {"asked", "done", "done-by-hand", "given-up", "undo-asked", "undo-refused"}
    words: dict[str, str | None] = {}
    for entry in run.log:
        if entry.kind in told and hasattr(entry, "step"):
            words[entry.step] = entry.kind
    return words


def finish(run: Run) -> None:
    """Answer "done" to everything that is out, signal what is waited for and retry what is stuck: it must end soon."""
    for _ in range(20 * len(run.saga.steps) + 20):
        if run.saga.phase in ENDED:
            return
        go_on(run)
        check_state(run)
    raise AssertionError(f"it does not end: {run.saga}")


def go_on(run: Run) -> None:
    """One event that brings a saga nearer to its end."""
    saga = run.saga
    if saga.paused:
        run.feed(ResumeOrdered("the test", "liveness"))
    elif saga.phase is Phase.WAITING:
        run.now = max(run.now, saga.begins_at or run.now)
        run.feed(Admitted())
    elif saga.stuck:
        run.feed(Retried("the test", "liveness"))
    elif run.out:
        run.feed(Answered(saga.command_id(run.out[0]), "done", ANYTHING))
    elif run.awaited:
        run.feed(Signalled(run.awaited[0], "done", ANYTHING, "the test"))
    else:
        run.fire(run.timers[0])
