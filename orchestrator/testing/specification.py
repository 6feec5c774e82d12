"""Given a saga, when something happens to it, then …: specifications of a saga that read as prose. No I/O.

    given(place_order).started().when(done("open-order")).then_asks("reserve-stock", "authorise-payment")

Time is virtual: it moves only when a timer fires, or with `after`. Every event that a specification makes also
checks the promise that the log is the truth: replaying it gives the state, and both survive JSON.

What is not as expected is an AssertionError that says what was expected, what happened, and how it came to that.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, NoReturn

from orchestrator.definition import Action, SagaData
from orchestrator.definition import Saga as Definition
from orchestrator.entries import ENTRIES, Asked, Entry
from orchestrator.events import Event
from orchestrator.machine import Decision, Dispatch, Terms, decide, replay, start
from orchestrator.model import SAGA, Phase, Saga

__tracebackhide__ = True  # pytest shows the line of the test that failed, and not these

SAGA_ID: Final = "saga-1"
DAWN: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""When every specification and every rehearsal begins."""

LINES: Final = 12
"""How much of the story a failure tells."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that may happen to a saga: `event` makes the event for a saga in its present state."""

    words: str
    event: Callable[["Specification"], Event]


class Specification:
    """One saga under test: its state, its log, all that it has sent, and what came of the last event."""

    def __init__(self, definition: Definition[Any]) -> None:
        self.definition = definition
        self.now = DAWN
        self.log: list[Entry] = []
        self.sent: list[Dispatch] = []
        self.story: list[str] = []
        self.before: Saga | None = None
        self._last: Decision | None = None

    @property
    def last(self) -> Decision:
        """What came of the last event."""
        if self._last is None:
            raise AssertionError(f"{self.definition.name} has not been started: begin with given(…).started(…)")
        return self._last

    @property
    def saga(self) -> Saga:
        """The state after the last event."""
        return self.last.saga

    # --- given, when -----------------------------------------------------------------------------------------------

    def started(self, data: SagaData | None = None, /, **fields: Any) -> "Specification":
        """The saga is accepted with this input: the data itself, or its fields."""
        return self.started_on(Terms(), data, **fields)

    def started_on(self, terms: Terms, data: SagaData | None = None, /, **fields: Any) -> "Specification":
        """The saga is accepted on these terms: it waits to be admitted, it has a caller, it is a fork."""
        known = self.definition.data(**fields) if data is None else data
        return self._take("it is started", start(self.definition, SAGA_ID, known, self.now, terms))

    def after(self, wait: timedelta) -> "Specification":
        """Time passes, and nothing else."""
        self.now += wait
        return self

    def when(self, *happenings: Happening) -> "Specification":
        """These happen, in this order. What is said after speaks of the last."""
        for happening in happenings:
            event = happening.event(self)
            self._take(happening.words, decide(self.definition, self.saga, event, self.now))
        return self

    # --- then: what is sent ----------------------------------------------------------------------------------------

    def then_asks(self, *steps: str) -> "Specification":
        """Exactly these steps are asked, and nothing is undone."""
        return self._then_sends("do", steps)

    def then_undoes(self, *steps: str) -> "Specification":
        """Exactly the undos of these steps are asked, and nothing else is."""
        return self._then_sends("undo", steps)

    def then_sends(self, *commands: tuple[str, int]) -> "Specification":
        """Exactly these commands go out, each with this attempt. `saga-1/` is left out of the ids."""
        sent = [(_short(one.command_id), one.attempt) for one in self.last.dispatches]
        return self._same("it sends (command, attempt)", [*commands], sent)

    def then_sends_nothing(self) -> "Specification":
        """Something happened, and no command goes out for it."""
        if not self.last.entries:
            self._fail("something happens", f"nothing: {self.last.ignored}")
        return self.then_sends()

    def then_waits_for(self, *steps: str) -> "Specification":
        """Exactly these waits and delays begin. Commands may go out beside them."""
        begun = [entry.step for entry in self.last.entries if isinstance(entry, Asked)]
        waits = [step for step in begun if self.definition.spec_of(step).action is not Action.COMMAND]
        return self._same("it waits for", [*steps], waits)

    def then_next_timer_in(self, shortest: float, longest: float) -> "Specification":
        """The next timer fires between so many seconds from now."""
        wanted = f"the next timer in {shortest:g} to {longest:g} seconds"
        if self.saga.due_at is None:
            self._fail(wanted, "no timer runs")
        seconds = (self.saga.due_at - self.now).total_seconds()
        return self._holds(shortest <= seconds <= longest, wanted, f"it fires in {seconds:g} seconds")

    def then_no_timer_runs(self) -> "Specification":
        """Nothing happens by itself, however long one waits."""
        return self._holds(self.saga.due_at is None, "no timer", f"one fires at {self.saga.due_at}")

    # --- then: what came of it -------------------------------------------------------------------------------------

    def then_nothing_happened(self, why: str = "") -> "Specification":
        """The event changed nothing, logged nothing, sent nothing, and the machine says why."""
        last = self.last
        happened = f"{_entries(last.entries)}; sent: {_names(one.command_id for one in last.dispatches)}"
        nothing = self.saga == self.before and not last.entries and not last.dispatches and last.ignored is not None
        self._holds(nothing, "nothing happens", happened)
        said = str(last.ignored)
        return self._holds(why in said, f"nothing happens, because of {why!r}", f"nothing, because: {said}")

    def then_logs(self, *kinds: str) -> "Specification":
        """Exactly these entries are written."""
        return self._same("it logs", [*kinds], [entry.kind for entry in self.last.entries])

    def then_status(self, status: str) -> "Specification":
        """The saga's status is now this."""
        why = f" ({self.saga.stuck})" if self.saga.stuck else ""
        return self._holds(self.saga.status == status, f"status {status}", f"status {self.saga.status}{why}")

    def then_step(self, name: str, status: str) -> "Specification":
        """The step's status is now this."""
        state = self.saga.steps.get(name)
        if state is None:
            self._fail(f"step {name} is {status}", f"there is no such step: {_names(self.saga.steps)}")
        return self._holds(state.status == status, f"step {name} is {status}", f"it is {state.status}")

    def then_is_stuck(self, *words: str) -> "Specification":
        """A person must act, and the reason has these words in it."""
        self.then_status("stuck")
        missing = [word for word in words if word not in str(self.saga.stuck)]
        return self._holds(not missing, f"stuck, with {_names(missing)} in the reason", f"stuck: {self.saga.stuck}")

    def then_knows(self, **data: Any) -> "Specification":
        """The data of the saga has these values."""
        return self._same("it knows", data, {name: self.saga.data.get(name) for name in data})

    def then_failed(self, *words: str) -> "Specification":
        """The saga turned back for a reason that has these words in it."""
        failure = self.saga.failure
        told = failure is not None and all(word in failure for word in words)
        return self._holds(told, f"it turns back, with {_names(words)} in the reason", f"failure: {failure}")

    def then_completed(self) -> "Specification":
        """The saga has ended: every effect is there, and no timer is left."""
        return self._ended(Phase.COMPLETED)

    def then_compensated(self) -> "Specification":
        """The saga has ended: no effect is left, and no timer is."""
        return self._ended(Phase.COMPENSATED)

    # --- how it is said --------------------------------------------------------------------------------------------

    def _ended(self, phase: Phase) -> "Specification":
        return self.then_status(phase.value).then_no_timer_runs()

    def _then_sends(self, direction: Literal["do", "undo"], steps: tuple[str, ...]) -> "Specification":
        sent = ["/".join(one.command_id.split("/")[1:3]) for one in self.last.dispatches]
        return self._same("it sends", [f"{step}/{direction}" for step in steps], sent)

    def _take(self, words: str, decision: Decision) -> "Specification":
        self.before = None if self._last is None else self._last.saga
        self._last = decision
        self.log.extend(decision.entries)
        self.sent.extend(decision.dispatches)
        outcome = _entries(decision.entries) if decision.entries else f"nothing happened: {decision.ignored}"
        self.story.append(f"after {self.now - DAWN}, {words}: {outcome}")
        check_log_is_the_truth(decision.saga, self.log)
        return self

    def _same(self, what: str, expected: object, happened: object) -> "Specification":
        return self._holds(expected == happened, f"{what} {_words(expected)}", f"{what} {_words(happened)}")

    def _holds(self, held: bool, expected: str, happened: str) -> "Specification":
        if not held:
            self._fail(expected, happened)
        return self

    def _fail(self, expected: str, happened: str) -> NoReturn:
        told = "\n".join(f"  {line}" for line in self.story[-LINES:])
        raise AssertionError(
            f"expected: {expected}\nhappened: {happened}\nthe story of {self.definition.name}:\n{told}"
        )


def given(definition: Definition[Any]) -> Specification:
    """Begin a specification."""
    return Specification(definition)


def check_log_is_the_truth(saga: Saga, log: Sequence[Entry]) -> None:
    """Replaying the log gives the state, and the state and the log go to JSON and back unchanged."""
    entries = list(log)
    for held, promise in (
        (replay(saga.id, entries) == saga, "replaying the log gives the state"),
        (ENTRIES.validate_json(ENTRIES.dump_json(entries)) == entries, "the log goes to JSON and back unchanged"),
        (SAGA.validate_json(SAGA.dump_json(saga)) == saga, "the state goes to JSON and back unchanged"),
    ):
        if not held:
            raise AssertionError(f"expected: {promise}\nstate: {saga}\nlog: {entries}")


def _short(command_id: str) -> str:
    return command_id.removeprefix(f"{SAGA_ID}/")


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def _words(value: object) -> str:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return _names(value)
    return repr(value) if value else "nothing"


def _entries(entries: Iterable[Entry]) -> str:
    return _names(f"{one.kind} {one.step}" if hasattr(one, "step") else one.kind for one in entries)
