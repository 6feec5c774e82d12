"""Given a saga, when something happens to it, then …: specifications of the state machine that read as prose.

    given(place_order).started().when(done("open-order")).then_asks("reserve-stock", "authorise-payment")

Time is virtual: it moves only when a timer fires, or with `after`. Every event that a specification makes also
checks the promise that the log is the truth: replaying it gives the state, and both survive JSON.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from orchestrator.definition import Saga as Definition
from orchestrator.entries import ENTRIES, Entry
from orchestrator.events import Answered, Event, Retried, TimedOut
from orchestrator.machine import Decision, Dispatch, decide, replay, start
from orchestrator.model import SAGA, Phase, Saga, StepStatus

SAGA_ID = "saga-1"
DAWN = datetime(2026, 1, 1, tzinfo=UTC)

Happening = Callable[["Specification"], Event]


class Specification:
    """One saga under test: its state, its log, all that it has sent, and what came of the last event."""

    def __init__(self, definition: Definition[Any]) -> None:
        self.definition = definition
        self.now = DAWN
        self.log: list[Entry] = []
        self.sent: list[Dispatch] = []
        self.before: Saga | None = None
        self.last: Decision

    @property
    def saga(self) -> Saga:
        """The state after the last event."""
        return self.last.saga

    def started(self, **data: Any) -> "Specification":
        """The saga is accepted with this input."""
        return self._take(start(self.definition, SAGA_ID, self.definition.data(**data), self.now))

    def after(self, wait: timedelta) -> "Specification":
        """Time passes, and nothing else."""
        self.now += wait
        return self

    def when(self, *happenings: Happening) -> "Specification":
        """These happen, in this order. What is said after speaks of the last."""
        for happening in happenings:
            event = happening(self)
            self._take(decide(self.definition, self.saga, event, self.now))
        return self

    def then_asks(self, *steps: str) -> "Specification":
        """Exactly these steps are asked, and nothing is undone."""
        return self._then_sends("do", steps)

    def then_undoes(self, *steps: str) -> "Specification":
        """Exactly the undos of these steps are asked, and nothing else is."""
        return self._then_sends("undo", steps)

    def then_sends(self, *commands: tuple[str, int]) -> "Specification":
        """Exactly these commands go out, each with this attempt. `saga-1/` is left out of the ids."""
        prefix = f"{SAGA_ID}/"
        assert [(one.command_id.removeprefix(prefix), one.attempt) for one in self.last.dispatches] == [*commands]
        return self

    def then_sends_nothing(self) -> "Specification":
        """Something happened, and no command goes out for it."""
        assert self.last.entries
        return self.then_sends()

    def then_nothing_happened(self, why: str = "") -> "Specification":
        """The event changed nothing, logged nothing, sent nothing, and the machine says why."""
        assert self.saga == self.before
        assert (self.last.entries, self.last.dispatches) == ((), ())
        assert self.last.ignored
        assert why in self.last.ignored
        return self

    def then_logs(self, *kinds: str) -> "Specification":
        """Exactly these entries are written."""
        assert [entry.kind for entry in self.last.entries] == [*kinds]
        return self

    def then_status(self, status: str) -> "Specification":
        """The saga's status is now this."""
        assert self.saga.status == status
        return self

    def then_step(self, name: str, status: StepStatus) -> "Specification":
        """The step's status is now this."""
        assert self.saga.steps[name].status is status
        return self

    def then_is_stuck(self, *words: str) -> "Specification":
        """A person must act, and the reason has these words in it."""
        assert self.saga.status == "stuck"
        assert [word for word in words if word not in str(self.saga.stuck)] == [], self.saga.stuck
        return self

    def then_knows(self, **data: Any) -> "Specification":
        """The data of the saga has these values."""
        assert {name: self.saga.data.get(name) for name in data} == data
        return self

    def then_next_timer_in(self, shortest: float, longest: float) -> "Specification":
        """The next timer fires between so many seconds from now."""
        assert self.saga.due_at is not None
        assert shortest <= (self.saga.due_at - self.now).total_seconds() <= longest
        return self

    def ended(self, phase: Phase) -> "Specification":
        """The saga has ended in this way, and no timer is left."""
        assert self.saga.phase is phase
        assert self.saga.due_at is None
        return self.then_status(phase.value)

    def _then_sends(self, direction: Literal["do", "undo"], steps: tuple[str, ...]) -> "Specification":
        sent = [one.command_id.split("/")[1:3] for one in self.last.dispatches]
        assert sent == [[step, direction] for step in steps]
        return self

    def _take(self, decision: Decision) -> "Specification":
        self.before = self.last.saga if self.log else None
        self.last = decision
        self.log.extend(decision.entries)
        self.sent.extend(decision.dispatches)
        check_log_is_the_truth(decision.saga, self.log)
        return self


def given(definition: Definition[Any]) -> Specification:
    """Begin a specification."""
    return Specification(definition)


def check_log_is_the_truth(saga: Saga, log: list[Entry]) -> None:
    """Replaying the log gives the state, and the state and the log go to JSON and back unchanged."""
    assert replay(saga.id, log) == saga
    assert ENTRIES.validate_json(ENTRIES.dump_json(log)) == log
    assert SAGA.validate_json(SAGA.dump_json(saga)) == saga


# --- what may happen -------------------------------------------------------------------------------------------


def done(step: str, **reply: Any) -> Happening:
    """The command that is out for this step is answered "done"."""
    return lambda spec: Answered(spec.saga.command_id(step), "done", reply)


def refused(step: str, reason: str = "for a reason") -> Happening:
    """The command that is out for this step is answered "no"."""
    refusal = {"code": "no", "reason": reason}
    return lambda spec: Answered(spec.saga.command_id(step), "refused", refusal)


def answered(command: str, outcome: Literal["done", "refused"] = "done", **reply: Any) -> Happening:
    """A reply to this command id comes, whether that is out or not. `saga-1/` is put before it."""
    return lambda _: Answered(f"{SAGA_ID}/{command}", outcome, reply)


def silence(step: str) -> Happening:
    """No answer comes: time goes on until the step's timer fires."""

    def fire(spec: Specification) -> Event:
        state = spec.saga.steps[step]
        assert state.due_at is not None, f"no timer runs for {step}"
        spec.now = max(spec.now, state.due_at)
        return TimedOut(spec.saga.command_id(step), state.attempt)

    return fire


def timer(step: str, attempt: int) -> Happening:
    """A timer of this attempt fires now, whether it is due or not."""
    return lambda spec: TimedOut(spec.saga.command_id(step), attempt)


def retried(by: str = "ada", reason: str = "it is mended") -> Happening:
    """A person orders what is stuck to be tried again."""
    return lambda _: Retried(by, reason)
