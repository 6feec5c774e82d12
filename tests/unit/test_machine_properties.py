"""The promises of the machine, for every definition and every order of events that Hypothesis can think of.

Two tests, two enemies. The *adversary* sends the machine whatever it likes: contradictions, duplicates, forged ids,
timers at any time, orders, definition functions that fail. The *network* loses, repeats, delays and reorders messages
between the machine and participants that keep the protocol, so that an end can be compared with what really happened.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from orchestrator.entries import Entry
from orchestrator.events import (
    Admitted,
    Answered,
    Cancelled,
    DeadlinePassed,
    Event,
    PauseOrdered,
    Resolved,
    ResumeOrdered,
    Retried,
    Signalled,
    TimedOut,
    UndoRequested,
)
from orchestrator.machine import Dispatch
from orchestrator.model import ENDED, Caller, Phase, StepStatus
from orchestrator.testing import DAWN, SAGA_ID, Inbox
from tests.support.promises import ANYTHING, Run, check_state, finish, go_on
from tests.support.random_sagas import random_sagas

OUTCOMES = st.sampled_from(["done", "refused"])
PICKS = st.integers(0, 99)
Outcome = Literal["done", "refused"]


def pick_of(names: list[str], pick: int) -> str:
    return names[pick % len(names)]


def answer(command: str, outcome: Outcome, note: int) -> Answered:
    data: dict[str, Any] = {**ANYTHING, "note": note} if outcome == "done" else {"code": "no", "reason": "no"}
    return Answered(command, outcome, data)


class Enemy(RuleBasedStateMachine):
    """What both enemies can do: let timers fire, signal, and order what does no harm."""

    run: Run

    @rule(pick=PICKS)
    @precondition(lambda self: self.run.timers)
    def let_a_timer_fire(self, pick: int) -> None:
        name = pick_of(self.run.timers, pick)
        event = TimedOut(self.run.saga.command_id(name), self.run.saga.steps[name].attempt)
        phase = self.run.saga.phase
        did_something = bool(self.run.fire(name).entries)
        assert did_something == (not self.run.saga.paused), "a timer that is due does something"
        turned_back = self.run.saga.phase is not phase  # by the deadline: what waits for its undo has its timer still
        assert turned_back or self.run.feed(event).ignored, "and does it once"

    @rule(pick=PICKS, outcome=OUTCOMES, note=st.integers())
    @precondition(lambda self: self.run.waits)
    def signal(self, pick: int, outcome: Outcome, note: int) -> None:
        data: dict[str, Any] = {"note": note} if outcome == "done" else {"reason": "no"}
        signalled = Signalled(pick_of(self.run.waits, pick), outcome, data, "someone")
        self.run.feed(signalled)
        if self.run.saga.steps[signalled.step].status is not StepStatus.REFUSED:
            assert self.run.feed(signalled).ignored, "a signal comes once, unless it was a no that is not the last word"

    @rule()
    @precondition(lambda self: self.run.saga.phase is Phase.WAITING)
    def admit(self) -> None:
        self.run.now = max(self.run.now, self.run.saga.begins_at or self.run.now)
        self._feed_twice(Admitted())

    @rule()
    def retry(self) -> None:
        was_stuck = self.run.saga.stuck and not self.run.saga.paused
        assert bool(self.run.feed(Retried("someone", "it is mended")).entries) == bool(was_stuck)

    @rule(seldom=st.integers(0, 3))
    def pause_or_resume(self, seldom: int) -> None:
        if self.run.saga.paused:
            self._feed_twice(ResumeOrdered("someone", "go on"))
        elif not seldom:
            self._feed_twice(PauseOrdered("someone", "wait"))

    @rule(seldom=st.integers(0, 5))
    def cancel(self, seldom: int) -> None:
        if not seldom:
            self._feed_twice(Cancelled("someone", "not wanted"))

    @rule(seldom=st.integers(0, 3))
    @precondition(lambda self: self.run.saga.deadline_at is not None)
    def let_the_deadline_pass(self, seldom: int) -> None:
        if not seldom:
            self.run.pass_deadline()
            assert self.run.feed(DeadlinePassed()).ignored, "a deadline passes once"

    @rule(seldom=st.integers(0, 3))
    def undo_it_all(self, seldom: int) -> None:
        if not seldom or self.run.saga.phase is Phase.COMPLETED:
            self._feed_twice(UndoRequested(Caller("parent/child/undo", "saga.reply.orchestrator")))

    @invariant()
    def the_promises_hold(self) -> None:
        check_state(self.run)

    def _feed_twice(self, event: Event) -> None:
        self.run.feed(event)
        assert self.run.feed(event).ignored, "a duplicate is a no-op"


# --- the adversary -----------------------------------------------------------------------------------------------


class Adversary(Enemy):
    """Sends whatever it likes, also after the end."""

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.broken: set[str] = set()
        self.run = Run(data.draw(random_sagas(self.broken)))

    @rule(pick=PICKS, outcome=OUTCOMES, note=st.integers())
    @precondition(lambda self: self.run.out)
    def answer_what_is_out(self, pick: int, outcome: Outcome, note: int) -> None:
        self._feed_twice(answer(self.run.saga.command_id(pick_of(self.run.out, pick)), outcome, note))

    @rule(pick=PICKS)
    @precondition(lambda self: self.run.out)
    def answer_done(self, pick: int) -> None:
        self.answer_what_is_out(pick, "done", 0)

    @rule(pick=PICKS, outcome=OUTCOMES)
    @precondition(lambda self: self.run.sent)
    def answer_anything_that_was_ever_sent(self, pick: int, outcome: Outcome) -> None:
        self._feed_twice(answer(self.run.sent[pick % len(self.run.sent)].command_id, outcome, pick))

    @rule(pick=PICKS, attempt=st.integers(0, 9), outcome=OUTCOMES)
    def forge(self, pick: int, attempt: int, outcome: Outcome) -> None:
        name = pick_of(list(self.run.saga.steps), pick)
        for forged in (f"saga-2/{name}/do", f"{SAGA_ID}/{name}/do/99", f"{SAGA_ID}/nobody/undo", name):
            assert self.run.feed(answer(forged, outcome, 0)).ignored
            assert self.run.feed(TimedOut(forged, attempt)).ignored

    @rule(pick=PICKS, wrong=st.sampled_from([-1, 1, 7]))
    def fire_a_timer_of_another_attempt(self, pick: int, wrong: int) -> None:
        name = pick_of(list(self.run.saga.steps), pick)
        attempt = self.run.saga.steps[name].attempt + wrong
        assert self.run.feed(TimedOut(self.run.saga.command_id(name), attempt)).ignored

    @rule(pick=PICKS)
    def fire_timers_early(self, pick: int) -> None:
        for name in self.run.timers:
            if self.run.now < (self.run.saga.steps[name].due_at or DAWN):
                early = TimedOut(self.run.saga.command_id(name), self.run.saga.steps[name].attempt)
                assert self.run.feed(early).ignored
        if self.run.now < (self.run.saga.deadline_at or DAWN):
            assert self.run.feed(DeadlinePassed()).ignored

    @rule(pick=PICKS)
    def signal_what_is_no_wait(self, pick: int) -> None:
        names = [name for name in self.run.saga.steps if name not in self.run.waits]
        for name in names[pick % 9 :][:1]:
            assert self.run.feed(Signalled(name, "done", {}, "someone")).ignored

    @rule(pick=PICKS, seldom=st.integers(0, 1))
    def answer_for_a_step(self, pick: int, seldom: int) -> None:
        if not seldom:
            name = pick_of(list(self.run.saga.steps), pick)
            self._feed_twice(Resolved("someone", "seen to it", name, ANYTHING))

    @rule()
    def answer_for_all_that_is_stuck(self) -> None:
        was_stuck = self.run.saga.stuck
        before = self.run.saga
        decision = self.run.feed(Resolved("someone", "seen to it", None, ANYTHING))
        assert was_stuck or decision.saga is before

    @rule()
    @precondition(lambda self: self.run.saga.stuck)
    def vouch_for_the_pivot(self) -> None:
        self._feed_twice(Cancelled("someone", "looked at", pivot_did_not_happen=True))

    @rule(pick=PICKS)
    @precondition(lambda self: self.run.random.functions and self.run.saga.phase not in ENDED)
    def break_a_function(self, pick: int) -> None:
        self.broken.add(pick_of(list(self.run.random.functions), pick))

    @rule()
    def mend_all_functions(self) -> None:
        self.broken.clear()

    def teardown(self) -> None:
        if hasattr(self, "run"):
            REACHED[Adversary].update(entry.kind for entry in self.run.log)
            self.broken.clear()
            finish(self.run)


# --- the network -------------------------------------------------------------------------------------------------


@dataclass
class Participants:
    """They keep the protocol (the kit's inbox does), and count what they have done."""

    inbox: Inbox = field(default_factory=Inbox)
    effects: dict[str, int] = field(default_factory=dict)

    def handle(self, command: Dispatch, outcome: Outcome) -> Answered:
        answered = self.inbox.handle(command, lambda: self._carry_out(command, outcome))
        assert answered is not None
        return answered

    def _carry_out(self, command: Dispatch, outcome: Outcome) -> Answered:
        if outcome == "done" and command.undoes:
            self.effects.pop(command.undoes, None)
        elif outcome == "done":
            do = "/".join(command.command_id.split("/")[:3])  # all rounds of a step are one effect
            self.effects[do] = self.effects.get(do, 0) + 1
        return answer(command.command_id, outcome, 1)


class Network(Enemy):
    """Delivers commands and replies late, never, twice, in any order."""

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.run = Run(data.draw(random_sagas(set())))
        self.participants = Participants()
        self.replies: list[Answered] = []

    @rule(pick=PICKS, refused=st.sampled_from([False, False, False, True]))
    @precondition(lambda self: self.run.sent)
    def deliver_a_command(self, pick: int, refused: bool) -> None:
        command = self.run.sent[pick % len(self.run.sent)]
        self.replies.append(self.participants.handle(command, "refused" if refused else "done"))

    @rule(back=st.integers(1, 3), refused=st.sampled_from([False, False, True]))
    @precondition(lambda self: self.run.sent)
    def deliver_a_new_command_and_its_reply(self, back: int, refused: bool) -> None:
        command = self.run.sent[-min(back, len(self.run.sent))]
        self.replies.append(self.participants.handle(command, "refused" if refused else "done"))
        self.run.feed(self.replies[-1])

    @rule(pick=PICKS)
    @precondition(lambda self: self.replies)
    def deliver_a_reply(self, pick: int) -> None:
        self._feed_twice(self.replies[pick % len(self.replies)])

    @invariant()
    def an_end_is_what_happened(self) -> None:
        if self.run.saga.phase in ENDED:
            self.check_the_end()

    def teardown(self) -> None:
        if not hasattr(self, "run"):
            return
        REACHED[Network].update(entry.kind for entry in self.run.log)
        for _ in range(200):
            if self.run.saga.phase in ENDED:
                break
            self._deliver_all()
            if not self.run.out:
                self._go_on()
            elif self.run.timers and not self.run.saga.paused:
                self.run.fire(self.run.timers[0])
            else:
                self._go_on()
            check_state(self.run)
        assert self.run.saga.phase in ENDED, f"it does not end: {self.run.saga}"
        self._deliver_all()
        self.check_the_end()

    def check_the_end(self) -> None:
        """The end is what it says, also when a command that was delayed till now comes after it."""
        done = [name for name, state in self.run.saga.steps.items() if state.status is StepStatus.DONE]
        expected = {f"{SAGA_ID}/{name}/do": 1 for name in done if self.run.is_command(name)}
        assert self.participants.effects == expected
        assert not expected or self.run.saga.phase is Phase.COMPLETED

    def _go_on(self) -> None:
        """Whatever moves it, but an answer that no participant has given."""
        if self.run.saga.phase in ENDED:
            return
        if self.run.saga.paused or self.run.saga.phase is Phase.WAITING or self.run.saga.stuck or not self.run.out:
            go_on(self.run)

    def _deliver_all(self) -> None:
        for command in list(self.run.sent):
            self.run.feed(self.participants.handle(command, "done"))


ENOUGH: Final = settings(
    max_examples=300,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

ROUNDS: Final = 8

REACHED: dict[type[RuleBasedStateMachine], set[str]] = {Adversary: set(), Network: set()}
"""What was seen in the logs, so that a promise is not kept merely because nothing ever happened."""

EVERYTHING: Final = {alternative.__dataclass_fields__["kind"].default for alternative in get_args(Entry)}
BY_HAND: Final = {"done-by-hand", "undone-by-hand"}
"""What a person vouches for need not be what happened."""


def run_until_reached(kind: type[RuleBasedStateMachine], wanted: set[str]) -> None:
    """Once, and a few times more when chance has left something out."""
    for _ in range(ROUNDS):
        run_state_machine_as_test(kind, settings=ENOUGH)
        if REACHED[kind] >= wanted:
            break
    assert REACHED[kind] == wanted


def test_the_promises_hold_against_an_adversary() -> None:
    run_until_reached(Adversary, EVERYTHING)


def test_the_promises_hold_over_a_bad_network_and_the_end_is_what_happened() -> None:
    run_until_reached(Network, EVERYTHING - BY_HAND)
