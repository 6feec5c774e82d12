"""The promises of the machine, for every definition and every order of events that Hypothesis can think of.

Two tests, two enemies. The *adversary* sends the machine whatever it likes: contradictions, duplicates, forged ids,
timers at any time, definition functions that fail. The *network* loses, repeats, delays and reorders messages between
the machine and participants that keep the protocol, so that a saga's end can be compared with what really happened.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Literal, get_args

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

from orchestrator.definition import Policy, Saga, SagaData, reversible, step
from orchestrator.entries import Asked, Entry, UndoAsked
from orchestrator.events import Answered, Event, Retried, TimedOut
from orchestrator.machine import Decision, Dispatch, decide, start
from orchestrator.model import ENDED, Phase, StepStatus
from orchestrator.model import Saga as State
from orchestrator.steps import Parallel, Reversible, Step
from orchestrator.testing import DAWN, SAGA_ID, check_log_is_the_truth
from outbox.contracts import Command, Reply

# --- random definitions ------------------------------------------------------------------------------------------


class Poked(Reply):
    note: int = 0


class Poke(Command[Poked], participant="anyone"):
    step: str
    saga: str


class Ledger(SagaData):
    notes: tuple[int, ...] = ()


Build = Callable[[Ledger], Poke]
Keep = Callable[[Ledger, Poked], Ledger]


def poking(name: str, broken: set[str]) -> Build:
    """A definition function of this name, which fails as long as it is named in `broken`."""

    def build(data: Ledger) -> Poke:
        if name in broken:
            raise ZeroDivisionError(name)
        return Poke(step=name, saga=data.saga_id)

    build.__name__ = name
    return build


def keeping(name: str, broken: set[str]) -> Keep:
    """A `then` of this name, which fails as long as it is named in `broken`."""

    def keep(data: Ledger, reply: Poked) -> Ledger:
        if name in broken:
            raise ZeroDivisionError(name)
        return data.model_copy(update={"notes": (*data.notes, reply.note)})

    keep.__name__ = name
    return keep


POLICIES = st.builds(
    Policy,
    timeout=st.just(timedelta(seconds=1)),
    attempts=st.integers(1, 3),
    factor=st.just(2.0),
    jitter=st.sampled_from([0, 0.5]),
)


@st.composite
def definitions(draw: st.DrawFn, broken: set[str]) -> Saga[Ledger]:
    """One to five stages, each of one to three steps, on either side of the pivot."""
    names = map("step_{}".format, count(1))
    before = draw(st.integers(0, 3))
    after = draw(st.integers(0, 4 - before))

    def draw_reversible() -> Reversible[Ledger]:
        name, policy, undo_policy = next(names), draw(POLICIES), draw(POLICIES)
        do, undo, then = (
            poking(name, broken),
            poking(f"undo_{name}", broken),
            keeping(f"keep_{name}", broken),
        )
        return reversible(do, undo=undo, then=then, policy=policy, undo_policy=undo_policy)

    def draw_step() -> Step[Ledger]:
        name, policy = next(names), draw(POLICIES)
        then = draw(st.sampled_from([None, keeping(f"keep_{name}", broken)]))
        return step(poking(name, broken), then=then, policy=policy)

    def width() -> range:
        return range(draw(st.sampled_from([1, 1, 2, 3])))

    return Saga(
        name="random",
        data=Ledger,
        reversible=[Parallel(tuple(draw_reversible() for _ in width())) for _ in range(before)],
        pivot=draw_step(),
        retriable=[Parallel(tuple(draw_step() for _ in width())) for _ in range(after)],
    )


# --- what must hold after every event ------------------------------------------------------------------------------

LEFT_ALONE = {StepStatus.PENDING, StepStatus.REFUSED, StepStatus.UNDONE}
OUT = {StepStatus.ASKED, StepStatus.UNDOING}


@dataclass
class Run:
    """One saga in virtual time, with everything that it has logged and sent."""

    definition: Saga[Ledger]
    now: datetime = DAWN
    log: list[Entry] = field(default_factory=list)
    sent: list[Dispatch] = field(default_factory=list)
    saga: State = field(init=False)

    def __post_init__(self) -> None:
        self._take(start(self.definition, SAGA_ID, Ledger(), self.now), None)

    def feed(self, event: Event) -> Decision:
        """Apply an event, and check what every event must keep."""
        before = self.saga
        decision = decide(self.definition, before, event, self.now)
        self._take(decision, before)
        return decision

    def fire(self, name: str) -> Decision:
        """Let time go on until the step's timer fires."""
        state = self.saga.steps[name]
        assert state.due_at is not None
        self.now = max(self.now, state.due_at)
        return self.feed(TimedOut(self.saga.command_id(name), state.attempt))

    def timers(self) -> list[str]:
        return [name for name, state in self.saga.steps.items() if state.due_at is not None]

    def out(self) -> list[str]:
        return [name for name, state in self.saga.steps.items() if state.status in OUT]

    def _take(self, decision: Decision, before: State | None) -> None:
        self.saga = decision.saga
        if not decision.entries:
            assert decision.saga == before
            assert decision.dispatches == ()
            assert decision.ignored
        for entry, dispatch in zip(askings(decision), decision.dispatches, strict=True):
            self._check_asking(entry, dispatch, decision.saga)
        self.log.extend(decision.entries)
        self.sent.extend(decision.dispatches)

    def _check_asking(self, entry: Asked | UndoAsked, dispatch: Dispatch, saga: State) -> None:
        earlier = [one.attempt for one in self.sent if one.command_id == dispatch.command_id]
        assert all(attempt < dispatch.attempt for attempt in earlier), "attempts of a command id only rise"
        assert isinstance(dispatch.command, Poke)
        assert dispatch.command.saga == SAGA_ID
        if isinstance(entry, UndoAsked):
            assert dispatch.undoes == f"{SAGA_ID}/{entry.step}/do"
            assert dispatch.undoes in {one.command_id for one in self.sent}, "only what was asked is undone"
            self._check_nothing_later_is_left(entry.step, saga)
        else:
            assert dispatch.undoes is None
            assert saga.phase is Phase.RUNNING

    def _check_nothing_later_is_left(self, undone: str, saga: State) -> None:
        steps = self.definition.steps
        later = [spec.name for spec in steps.values() if spec.stage > steps[undone].stage]
        assert {saga.steps[name].status for name in later} <= LEFT_ALONE, "undos go stage by stage, backward"


def askings(decision: Decision) -> list[Asked | UndoAsked]:
    return [entry for entry in decision.entries if isinstance(entry, Asked | UndoAsked)]


def check_state(run: Run) -> None:
    """What must hold between any two events."""
    saga, steps = run.saga, run.saga.steps
    check_log_is_the_truth(saga, run.log)
    statuses = {state.status for state in steps.values()}
    assert StepStatus.UNKNOWN not in statuses or saga.stuck, "what is unknown is undone at once, unless it can't be"
    assert (saga.phase is Phase.COMPLETED) == (statuses == {StepStatus.DONE})
    if saga.phase is Phase.COMPENSATED:
        assert statuses <= LEFT_ALONE
        assert undone_in(run.log) == asked_in(run.log) - refused_in(run.log)
    if saga.phase in ENDED:
        assert (saga.due_at, saga.stuck) == (None, None)
    else:
        assert saga.stuck or saga.due_at, "it goes on by itself, or a person is told"
    for state in steps.values():
        assert (state.due_at is None) or (state.stuck is None and state.attempt >= max(1, state.tries))
    if steps[pivot_of(run.definition)].status is StepStatus.DONE:
        assert [one for one in run.sent if one.undoes] == [], "nothing is undone after the pivot"


def pivot_of(definition: Saga[Ledger]) -> str:
    return next(name for name, spec in definition.steps.items() if spec.kind == "pivot")


def steps_in(log: list[Entry], kind: str) -> set[str]:
    return {entry.step for entry in log if entry.kind == kind and hasattr(entry, "step")}


def asked_in(log: list[Entry]) -> set[str]:
    return steps_in(log, "asked")


def refused_in(log: list[Entry]) -> set[str]:
    return steps_in(log, "refused")


def undone_in(log: list[Entry]) -> set[str]:
    return steps_in(log, "undone")


def finish(run: Run) -> None:
    """Answer "done" to everything that is out and retry what is stuck: it must end, and soon."""
    for _ in range(10 * len(run.saga.steps) + 10):
        if run.saga.phase in ENDED:
            return
        if run.saga.stuck:
            run.feed(Retried("the test", "liveness"))
        elif run.out():
            run.feed(Answered(run.saga.command_id(run.out()[0]), "done"))
        else:
            run.fire(run.timers()[0])
        check_state(run)
    raise AssertionError(f"it does not end: {run.saga}")


# --- the adversary -----------------------------------------------------------------------------------------------

OUTCOMES = st.sampled_from(["done", "refused"])
PICKS = st.integers(0, 99)
Outcome = Literal["done", "refused"]


def is_running(machine: "Adversary | Network") -> bool:
    return machine.run.saga.phase not in ENDED


class Adversary(RuleBasedStateMachine):
    """Sends whatever it likes, also after the end."""

    run: Run

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.broken: set[str] = set()
        self.run = Run(data.draw(definitions(self.broken)))

    @rule(pick=PICKS, outcome=OUTCOMES, note=st.integers())
    @precondition(lambda self: self.run.out())
    def answer_what_is_out(self, pick: int, outcome: Outcome, note: int) -> None:
        out = self.run.out()
        self._feed_twice(answer(self.run.saga.command_id(out[pick % len(out)]), outcome, note))

    @rule(pick=PICKS)
    @precondition(lambda self: self.run.out())
    def answer_done(self, pick: int) -> None:
        self.answer_what_is_out(pick, "done", 0)

    @rule(pick=PICKS, outcome=OUTCOMES)
    @precondition(lambda self: self.run.sent)
    def answer_anything_that_was_ever_sent(self, pick: int, outcome: Outcome) -> None:
        known = self.run.sent[pick % len(self.run.sent)].command_id
        self._feed_twice(answer(known, outcome, pick))

    @rule(pick=PICKS)
    @precondition(lambda self: self.run.timers())
    def let_a_timer_fire(self, pick: int) -> None:
        timers = self.run.timers()
        name = timers[pick % len(timers)]
        event = TimedOut(self.run.saga.command_id(name), self.run.saga.steps[name].attempt)
        assert self.run.fire(name).entries, "a timer that is due does something"
        assert self.run.feed(event).ignored, "and does it once"

    @rule(pick=PICKS, attempt=st.integers(0, 9), outcome=OUTCOMES)
    def forge(self, pick: int, attempt: int, outcome: Outcome) -> None:
        steps = list(self.run.saga.steps)
        name = steps[pick % len(steps)]
        for forged in (f"saga-2/{name}/do", f"{SAGA_ID}/{name}/do/99", f"{SAGA_ID}/nobody/undo", name):
            assert self.run.feed(answer(forged, outcome, 0)).ignored
            assert self.run.feed(TimedOut(forged, attempt)).ignored

    @rule(pick=PICKS, wrong=st.sampled_from([-1, 1, 7]))
    def fire_a_timer_of_another_attempt(self, pick: int, wrong: int) -> None:
        steps = list(self.run.saga.steps)
        name = steps[pick % len(steps)]
        stale = TimedOut(self.run.saga.command_id(name), self.run.saga.steps[name].attempt + wrong)
        assert self.run.feed(stale).ignored

    @rule(pick=PICKS)
    def fire_a_timer_early(self, pick: int) -> None:
        early = [name for name in self.run.timers() if self.run.now < (self.run.saga.steps[name].due_at or DAWN)]
        for name in early[pick % 3 :][:1]:
            event = TimedOut(self.run.saga.command_id(name), self.run.saga.steps[name].attempt)
            assert self.run.feed(event).ignored

    @rule()
    def retry(self) -> None:
        was_stuck = self.run.saga.stuck
        assert bool(self.run.feed(Retried("someone", "why not")).entries) == bool(was_stuck)

    @rule(pick=PICKS)
    @precondition(is_running)
    def break_a_function(self, pick: int) -> None:
        specs = self.run.definition.steps.values()
        functions = [one for spec in specs for one in (spec.do, spec.undo, spec.then) if one]
        self.broken.add(functions[pick % len(functions)].__name__)

    @rule()
    def mend_all_functions(self) -> None:
        self.broken.clear()

    @invariant()
    def the_promises_hold(self) -> None:
        check_state(self.run)

    def teardown(self) -> None:
        if hasattr(self, "run"):
            REACHED[Adversary].update(entry.kind for entry in self.run.log)
            self.broken.clear()
            finish(self.run)

    def _feed_twice(self, event: Answered) -> None:
        ended, before = self.run.saga.phase in ENDED, self.run.saga
        first = self.run.feed(event)
        assert not ended or first.saga is before, "an ended saga absorbs every event"
        assert self.run.feed(event).ignored, "a duplicate is a no-op"


def answer(command: str, outcome: Outcome, note: int) -> Answered:
    data: dict[str, Any] = {"note": note} if outcome == "done" else {"code": "no", "reason": "no"}
    return Answered(command, outcome, data)


# --- the network -------------------------------------------------------------------------------------------------


@dataclass
class Participants:
    """They keep the protocol: one effect per command, the stored reply to a duplicate, a tombstone for an undo."""

    replies: dict[str, Answered] = field(default_factory=dict)
    effects: dict[str, int] = field(default_factory=dict)
    tombstones: set[str] = field(default_factory=set)

    def handle(self, command: Dispatch, outcome: Outcome) -> Answered:
        if command.command_id not in self.replies:
            self.replies[command.command_id] = self._carry_out(command, outcome)
        return self.replies[command.command_id]

    def _carry_out(self, command: Dispatch, outcome: Outcome) -> Answered:
        if command.command_id in self.tombstones:
            outcome = "refused"
        elif outcome == "done" and command.undoes:
            self.effects.pop(command.undoes, None)
            self.tombstones.add(command.undoes)
        elif outcome == "done":
            self._count(command)
        return answer(command.command_id, outcome, 1)

    def _count(self, command: Dispatch) -> None:
        do = "/".join(command.command_id.split("/")[:3])  # all rounds of a step are one effect
        self.effects[do] = self.effects.get(do, 0) + 1


class Network(RuleBasedStateMachine):
    """Delivers commands and replies late, never, twice, in any order."""

    run: Run

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.run = Run(data.draw(definitions(set())))
        self.participants = Participants()
        self.replies: list[Answered] = []

    @rule(pick=PICKS, refused=st.sampled_from([False, False, False, True]))
    def deliver_a_command(self, pick: int, refused: bool) -> None:
        command = self.run.sent[pick % len(self.run.sent)]
        self.replies.append(self.participants.handle(command, "refused" if refused else "done"))

    @rule(back=st.integers(1, 3), refused=st.booleans())
    def deliver_a_new_command_and_its_reply(self, back: int, refused: bool) -> None:
        command = self.run.sent[-min(back, len(self.run.sent))]
        self.replies.append(self.participants.handle(command, "refused" if refused else "done"))
        self.run.feed(self.replies[-1])

    @rule(pick=PICKS)
    @precondition(lambda self: self.replies)
    def deliver_a_reply(self, pick: int) -> None:
        self.run.feed(self.replies[pick % len(self.replies)])

    @rule(pick=PICKS)
    @precondition(lambda self: self.run.timers())
    def let_a_timer_fire(self, pick: int) -> None:
        timers = self.run.timers()
        self.run.fire(timers[pick % len(timers)])

    @rule()
    @precondition(lambda self: self.run.saga.stuck)
    def retry(self) -> None:
        self.run.feed(Retried("someone", "it is mended"))

    @invariant()
    def the_promises_hold(self) -> None:
        check_state(self.run)
        if self.run.saga.phase in ENDED:
            self.check_the_end()

    def teardown(self) -> None:
        if not hasattr(self, "run"):
            return
        REACHED[Network].update(entry.kind for entry in self.run.log)
        for _ in self._until_it_ends():
            check_state(self.run)
        self._deliver_all()
        self.check_the_end()

    def check_the_end(self) -> None:
        """The end is what it says, also when a command that was delayed till now comes after it."""
        expected = {f"{SAGA_ID}/{name}/do": 1 for name in self.run.saga.steps}
        if self.run.saga.phase is Phase.COMPENSATED:
            expected = {}
        assert self.participants.effects == expected

    def _until_it_ends(self) -> Iterator[None]:
        for _ in range(200):
            if self.run.saga.phase in ENDED:
                return
            if self.run.saga.stuck:
                self.run.feed(Retried("the test", "liveness"))
            self._deliver_all()
            if self.run.timers():
                self.run.fire(self.run.timers()[0])
            yield
        raise AssertionError(f"it does not end: {self.run.saga}")

    def _deliver_all(self) -> None:
        for command in list(self.run.sent):
            self.run.feed(self.participants.handle(command, "done"))


ENOUGH = settings(
    max_examples=300,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

REACHED: dict[type[RuleBasedStateMachine], set[str]] = {Adversary: set(), Network: set()}
"""What was seen in the logs, so that a promise is not kept merely because nothing ever happened."""

EVERYTHING = {alternative.__dataclass_fields__["kind"].default for alternative in get_args(Entry)}


def test_the_promises_hold_against_an_adversary() -> None:
    run_state_machine_as_test(Adversary, settings=ENOUGH)
    assert REACHED[Adversary] == EVERYTHING


def test_the_promises_hold_over_a_bad_network_and_the_end_is_what_happened() -> None:
    run_state_machine_as_test(Network, settings=ENOUGH)
    assert REACHED[Network] == EVERYTHING
