"""`decide` turns a saga and an event into log entries and commands, and never changes anything. No I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, assert_never

from orchestrator.calls import Broken, build_command, holds, instances, keep, over_at, read_answer
from orchestrator.definition import Action, Kind, Policy, SagaData, StepSpec, base_name
from orchestrator.definition import Saga as Definition
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
from orchestrator.events import (
    Admitted,
    Answered,
    Cancelled,
    DeadlinePassed,
    Event,
    Order,
    PauseOrdered,
    Resolved,
    ResumeOrdered,
    Retried,
    Signalled,
    TimedOut,
    UndoRequested,
)
from orchestrator.machine.evolve import evolve, replay
from orchestrator.machine.tables import DO_UNDER_WAY, FAILED, OUT, OWES_UNDO, PAST, TO_ASK_AGAIN, UNDO_UNDER_WAY
from orchestrator.model import (
    ENDED,
    Caller,
    Direction,
    Phase,
    Saga,
    StepState,
    StepStatus,
    command_id,
)
from outbox.contracts import Command
from outbox.numbers import counted


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A command that is to be sent."""

    command_id: str
    attempt: int
    command: Command[Any]
    undoes: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What came of an event: the saga after it, what to log, what to send. No entries: nothing happened, and why."""

    saga: Saga
    entries: tuple[Entry, ...] = ()
    dispatches: tuple[Dispatch, ...] = ()
    ignored: str | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a saga is accepted.

    `waits`: it begins when it is admitted, not before `begins_at`. `caller` is told how it ends. A fork keeps the data
    of `fork_of` as it is, ids included, and leaves out the steps `taken_over`, which stay that saga's own.
    """

    waits: bool = False
    begins_at: datetime | None = None
    caller: Caller | None = None
    fork_of: str | None = None
    taken_over: tuple[str, ...] = ()
    by: str | None = None
    reason: str | None = None


AT_ONCE: Final = Terms()


def start(definition: Definition[Any], saga_id: str, data: SagaData, now: datetime, terms: Terms = AT_ONCE) -> Decision:
    """Accept a saga, and ask its first stage. Its data gets `saga_id`, from which undos are built."""
    known = data.model_dump(mode="json")
    started = Started(
        definition.name,
        definition.version,
        definition.fingerprint,
        known if terms.fork_of else {**known, "saga_id": saga_id},
        list(definition.steps),
        waits=terms.waits,
        begins_at=terms.begins_at,
        deadline_at=None if terms.waits or definition.pivot_name in terms.taken_over else _deadline(definition, now),
        caller=terms.caller,
        fork_of=terms.fork_of,
        taken_over=list(terms.taken_over),
        by=terms.by,
        reason=terms.reason,
    )
    return _Decider(definition, replay(saga_id, [started]), now).conclude([started])


def decide(definition: Definition[Any], saga: Saga, event: Event, now: datetime) -> Decision:
    """What `event` means to `saga`. Raises UnreadableReply; anything else that is wrong with an event is ignored."""
    undoes_all = isinstance(event, UndoRequested) and definition.pivot is None and saga.phase is Phase.COMPLETED
    if saga.phase in ENDED and not undoes_all:
        return Decision(saga, ignored=f"the saga has ended: {saga.phase}")
    decider = _Decider(definition, saga, now)
    match event:
        case Answered() | TimedOut():
            name = _step_of(saga, event.command_id)
            if name is None:
                return Decision(saga, ignored=f"command {event.command_id} is not the one that is out")
            return decider.time_out(name, event) if isinstance(event, TimedOut) else decider.answer(name, event)
        case Signalled():
            return decider.signal(event)
        case Admitted():
            return decider.begin()
        case DeadlinePassed():
            return decider.pass_deadline()
        case UndoRequested(caller=caller):
            return decider.undo_all(caller)
        case Retried() | Cancelled() | PauseOrdered() | ResumeOrdered() | Resolved():
            return decider.obey(event)
        case _:
            assert_never(event)


def _step_of(saga: Saga, wanted: str) -> str | None:
    """The step whose present command has this id; the gate for replies and timers alike."""
    owner, _, rest = wanted.partition("/")
    name = rest.partition("/")[0]
    if owner != saga.id or name not in saga.steps or saga.command_id(name) != wanted:
        return None
    return name


def _deadline(definition: Definition[Any], now: datetime) -> datetime | None:
    return None if definition.deadline is None else now + definition.deadline


class _Decider:
    """One decision in the making: applies each entry as it is made, so that the next one sees it."""

    def __init__(self, definition: Definition[Any], saga: Saga, now: datetime) -> None:
        self._definition = definition
        self._before = self._saga = saga
        self._now = now
        self._entries: list[Entry] = []
        self._dispatches: list[Dispatch] = []

    # events

    def answer(self, name: str, event: Answered) -> Decision:
        state, spec = self._saga.steps[name], self._definition.spec_of(name)
        if state.status not in OUT or spec.action is not Action.COMMAND:
            return self._ignore(f"step {name} awaits no answer: {state.status}")
        if event.outcome == "refused":
            self._refused(spec, name, event.data)
        elif state.status is StepStatus.UNDOING:
            self._write(Undone(name))
        else:
            self._done(spec, name, event.data)
        return self.conclude()

    def time_out(self, name: str, event: TimedOut) -> Decision:
        state, spec = self._saga.steps[name], self._definition.spec_of(name)
        if state.due_at is None or state.attempt != event.attempt:
            return self._ignore(f"step {name} has moved on since this timer was set")
        if self._now < state.due_at:  # a refusal has won the race and set the same attempt's timer anew
            return self._ignore(f"step {name} is not due before {state.due_at}")
        if self._saga.paused:
            return self._ignore(f"the saga is paused by {self._saga.paused}")
        if state.status is StepStatus.ASKED and spec.action is not Action.COMMAND:
            self._waited(spec, name)
        elif state.status is StepStatus.ASKED and self._saga.phase is Phase.COMPENSATING:
            self._write(GivenUp(name))  # its undo has yet to wait for its turn: nobody asks for it any more
        elif self._is_overdue:
            pass  # the deadline counts first: what is about to be undone is not asked again
        elif not self._policy(spec, state).is_spent(state.tries):
            self._ask_again(name)
        elif state.status is StepStatus.ASKED and spec.kind is Kind.REVERSIBLE and spec.if_unknown == "undo":
            self._write(GivenUp(name))
        else:
            self._stick(name, _why_spent(state))
        return self.conclude()

    def signal(self, event: Signalled) -> Decision:
        name, spec = event.step, self._definition.steps.get(event.step)
        if spec is None or spec.action is not Action.WAIT:
            return self._ignore(f"no step {name} of {self._definition.name} waits for a signal")
        if event.outcome == "done":
            read_answer(spec, event.data)
        status = self._saga.steps[name].status
        again = status is StepStatus.REFUSED and spec.kind is Kind.RETRIABLE  # a no is not the last word there
        waits = again or status in (StepStatus.PENDING, StepStatus.ASKED)
        if self._saga.phase is Phase.COMPENSATING or not waits:
            return self._ignore(f"step {name} waits for no signal any more: {status}")
        if name in self._saga.signals:
            return self._ignore(f"step {name} has been signalled already")
        self._write(SignalReceived(name, event.outcome, event.data, event.by))
        if again:
            self._ask_again(name)
        elif status is StepStatus.ASKED:
            self._take_signal(spec, name)
        return self.conclude()

    def begin(self) -> Decision:
        if self._saga.phase is not Phase.WAITING:
            return self._ignore("the saga does not wait to begin")
        if self._saga.paused:
            return self._ignore(f"the saga is paused by {self._saga.paused}")
        if self._saga.begins_at is not None and self._now < self._saga.begins_at:
            return self._ignore(f"the saga does not begin before {self._saga.begins_at}")
        pivot = self._definition.pivot_name
        counts = pivot is None or self._saga.steps[pivot].status is StepStatus.PENDING
        return self.conclude([Begun(_deadline(self._definition, self._now) if counts else None)])

    def pass_deadline(self) -> Decision:
        due = self._saga.deadline_at
        if due is None or self._saga.phase is not Phase.RUNNING or self._saga.paused:
            return self._ignore("no deadline runs")
        if self._now < due:
            return self._ignore(f"the deadline is not before {due}")
        return self.conclude()

    def undo_all(self, caller: Caller) -> Decision:
        if self._saga.phase is Phase.COMPENSATING:
            told = self._saga.undoer
            if told is not None and told.command_id == caller.command_id:
                return self._ignore("it is being undone already")
            return self.conclude([UndoOrdered(caller)])
        if (problem := self._no_way_back()) is not None:
            return self._ignore(problem)
        return self.conclude([UndoOrdered(caller), CompensationStarted("whoever started it undoes it")])

    def obey(self, order: Order) -> Decision:
        match order:
            case Retried():
                return self.retry(RetryOrdered(order.by, order.reason))
            case Cancelled():
                return self.cancel(order)
            case PauseOrdered():
                if self._saga.paused:
                    return self._ignore(f"the saga is paused already, by {self._saga.paused}")
                return self.conclude([Paused(order.by, order.reason)])
            case ResumeOrdered():
                if not self._saga.paused:
                    return self._ignore("the saga is not paused")
                return self.conclude([Resumed(order.by, order.reason)])
            case Resolved():
                return self.resolve(order)
            case _:
                assert_never(order)

    def retry(self, entry: RetryOrdered) -> Decision:
        stuck = [name for name, state in self._saga.steps.items() if state.stuck]
        if not stuck or self._saga.paused:
            return self._ignore("the saga is paused: resume it first" if stuck else "nothing is stuck")
        self._write(entry)
        for name in stuck:
            if self._saga.steps[name].status in self._under_way and not self._is_overdue:
                self._ask_again(name)
        return self.conclude()

    def cancel(self, order: Cancelled) -> Decision:
        if self._saga.phase is Phase.COMPENSATING:
            return self._ignore("the saga turns back already")
        entry = CancelOrdered(order.by, order.reason)
        pivot = self._definition.pivot_name
        state = self._saga.steps[pivot] if pivot else StepState()
        if pivot and order.pivot_did_not_happen and state.stuck and state.status is StepStatus.ASKED:
            self._write(entry)
            self._write(RefusedStep(pivot, "by-hand", f"{order.by} says that it did not happen: {order.reason}"))
            self._turn_back()  # also when it is paused, as by any cancel
            return self.conclude()
        if (problem := self._no_way_back()) is not None:
            return self._ignore(problem)
        return self.conclude([entry, CompensationStarted(f"cancelled by {order.by}: {order.reason}")])

    def resolve(self, order: Resolved) -> Decision:
        stuck = [name for name, state in self._saga.steps.items() if state.stuck]
        names = stuck if order.step is None else [order.step]
        if not names:
            return self._ignore("nothing is stuck")
        for name in names:
            if (problem := self._resolve(name, order)) is not None:
                return self._ignore(problem)
        return self.conclude()

    # what follows from what is known now

    def conclude(self, entries: Iterable[Entry] = ()) -> Decision:
        """Write what follows, until nothing does. A paused saga takes note of what happens, and does nothing."""
        for entry in entries:
            if not isinstance(entry, Started):
                self._saga = evolve(self._saga, entry)
            self._entries.append(entry)
        while not self._saga.paused and self._advance():
            pass
        ignored = None if self._entries else "it is as it was"
        return Decision(self._saga, tuple(self._entries), tuple(self._dispatches), ignored)

    def _advance(self) -> bool:
        match self._saga.phase:
            case Phase.RUNNING:
                return self._turn_back() or self._go_forward()
            case Phase.COMPENSATING:
                return self._go_backward()
            case Phase.WAITING | Phase.COMPLETED | Phase.COMPENSATED:
                return False
            case phase:
                assert_never(phase)

    def _turn_back(self) -> bool:
        """A step failed, or the deadline has passed: also while nobody looked, as when the saga was paused."""
        for name, state in self._saga.steps.items():
            if state.status not in FAILED:
                continue
            if self._definition.spec_of(name).kind is Kind.RETRIABLE:
                continue
            refused = state.status is StepStatus.REFUSED
            why = f"was refused: {state.refusal}" if refused else "gave no answer: its policy is spent"
            return self._write(CompensationStarted(f"{name} {why}"))
        if not self._is_overdue:
            return False
        return self._write(CompensationStarted(f"its deadline of {self._definition.deadline} has passed"))

    @property
    def _is_overdue(self) -> bool:
        """Whether the deadline has passed, and still counts."""
        due = self._saga.deadline_at
        return self._saga.phase is Phase.RUNNING and due is not None and due <= self._now

    def _go_forward(self) -> bool:
        for stage in self._definition.stages:
            if self._is_past(stage):
                continue
            if any(self._open(spec) for spec in stage):
                return True
            ready = [name for spec in stage for name in self._ready(spec)]
            for name in ready:
                self._ask(name, self._saga.steps[name])
            return bool(ready)
        return self._write(Completed())

    def _is_past(self, stage: Iterable[StepSpec]) -> bool:
        steps = self._saga.steps
        for spec in stage:
            for name in self._instances(spec):
                if steps[name].status not in PAST:
                    return False
        return True

    def _open(self, spec: StepSpec) -> bool:
        """Find out whether a step whose turn has come is to be done, and how often."""
        if spec.when is None and spec.items is None:
            return False
        state = self._saga.steps.get(spec.name)
        if state is None or state.status is not StepStatus.PENDING or state.stuck:
            return False
        try:
            names = instances(self._definition, self._saga, spec) if holds(self._definition, self._saga, spec) else []
        except Broken as error:
            return self._stick(spec.name, str(error))
        if not names:
            return self._write(Skipped(spec.name))
        return spec.items is not None and self._write(Expanded(spec.name, names))

    def _ready(self, spec: StepSpec) -> list[str]:
        """The instances of a step that are to be asked now."""
        states = [(name, self._saga.steps[name]) for name in self._instances(spec)]
        pending = [name for name, state in states if state.status is StepStatus.PENDING and not state.stuck]
        if spec.limit is None:
            return pending
        return pending[: max(0, spec.limit - sum(state.status in DO_UNDER_WAY for _, state in states))]

    def _go_backward(self) -> bool:
        for stage in reversed(self._definition.stages):
            names = [(spec, name) for spec in stage for name in self._instances(spec)]
            owing = [name for _, name in names if self._saga.steps[name].status in OWES_UNDO]
            under_way = any(self._saga.steps[name].status in UNDO_UNDER_WAY for _, name in names)
            if owing or under_way:
                ready = [name for spec in stage for name in self._ready_to_undo(spec)]
                for name in ready:
                    self._ask_undo(name, StepState())
                return bool(ready)
        return self._write(Compensated())

    def _ready_to_undo(self, spec: StepSpec) -> list[str]:
        """The instances of a step whose undo is to be asked now."""
        states = [(name, self._saga.steps[name]) for name in self._instances(spec)]
        ready = [name for name, state in states if state.status in OWES_UNDO and not state.stuck]
        if spec.limit is None:
            return ready
        return ready[: max(0, spec.limit - sum(state.status in UNDO_UNDER_WAY for _, state in states))]

    def _instances(self, spec: StepSpec) -> list[str]:
        if spec.items is None or spec.name in self._saga.steps:
            return [spec.name]
        return [name for name in self._saga.steps if base_name(name) == spec.name]

    def _no_way_back(self) -> str | None:
        """Why the saga cannot turn back; None when it can."""
        pivot = self._definition.pivot_name
        status = StepStatus.PENDING if pivot is None else self._saga.steps[pivot].status
        if status in (StepStatus.PENDING, StepStatus.REFUSED):
            return None
        if status is StepStatus.ASKED:
            return f"its pivot {pivot} was asked and may have happened"
        return f"it is past its point of no return: {pivot} is {status}"

    # one step

    def _done(self, spec: StepSpec, name: str, data: dict[str, Any], by_hand: Resolved | None = None) -> None:
        kept = None
        try:
            if spec.then is not None or by_hand is None:
                answer = read_answer(spec, data)
                kept = None if spec.then is None else keep(self._definition, self._saga, name, answer)
        except Broken as error:
            self._stick(name, str(error))
            return
        no_return = spec.kind is Kind.PIVOT
        self._write(DoneByHand(name, by_hand.by, by_hand.reason, kept, no_return) if by_hand else Done(name, kept))

    def _refused(self, spec: StepSpec, name: str, data: Mapping[str, Any]) -> None:
        state = self._saga.steps[name]
        code, reason = str(data.get("code", "refused")), str(data.get("reason", "no reason was given"))
        policy, going_back = self._policy(spec, state), state.status is StepStatus.UNDOING
        due_at = None
        if going_back or spec.kind is Kind.RETRIABLE:
            due_at = self._now + policy.pause(max(1, state.tries), self._saga.command_id(name))
        self._write(UndoRefused(name, code, reason, due_at) if going_back else RefusedStep(name, code, reason, due_at))
        if due_at is not None and code in policy.not_retried:
            self._stick(name, f"it was refused with {code}, which is not retried: {reason}")

    def _waited(self, spec: StepSpec, name: str) -> None:
        """A delay is over, or a signal has not come."""
        if spec.action is Action.DELAY or spec.otherwise == "proceed":
            self._write(Done(name))
        elif spec.otherwise == "refuse":
            self._write(RefusedStep(name, "no-signal", f"no signal came in {spec.timeout}"))
        else:
            self._stick(name, f"no signal came in {spec.timeout}")

    def _take_signal(self, spec: StepSpec, name: str) -> None:
        signal = self._saga.signals[name]
        if signal.outcome == "done":
            self._done(spec, name, signal.data)
        else:
            self._refused(spec, name, signal.data)

    def _resolve(self, name: str, order: Resolved) -> str | None:
        """Write that a person answers for a step. Returns why it cannot be."""
        state = self._saga.steps.get(name)
        if state is None:
            return f"the saga has no step {name}: it has {', '.join(self._saga.steps)}"
        going_back = self._saga.phase is Phase.COMPENSATING
        possible = UNDO_UNDER_WAY if going_back else DO_UNDER_WAY
        if state.status not in possible and not state.stuck:
            return f"step {name} is not under way: {state.status}"
        spec = self._definition.spec_of(name)
        if going_back:
            self._write(UndoneByHand(name, order.by, order.reason))
        else:
            self._done(spec, name, order.reply, by_hand=order)
        return None

    def _ask_again(self, name: str) -> None:
        state = self._saga.steps[name]
        again = replace(state, round=state.round + 1) if state.status in TO_ASK_AGAIN else state
        if state.status in UNDO_UNDER_WAY:
            self._ask_undo(name, again)
        else:
            self._ask(name, again)

    def _ask(self, name: str, state: StepState) -> bool:
        spec = self._definition.spec_of(name)
        try:
            due_at = self._due_at(spec, name, state)
            if spec.action is Action.COMMAND:
                self._dispatch(name, state, "do")
        except Broken as error:
            return self._stick(name, str(error))
        no_return = spec.kind is Kind.PIVOT
        self._write(Asked(name, state.round, state.attempt + 1, state.tries + 1, due_at, no_return))
        if name in self._saga.signals:
            self._take_signal(spec, name)
        return True

    def _ask_undo(self, name: str, state: StepState) -> bool:
        spec = self._definition.spec_of(name)
        if spec.action is not Action.COMMAND:
            return self._write(Dropped(name))
        try:
            self._dispatch(name, state, "undo")
        except Broken as error:
            return self._stick(name, str(error))
        wait = spec.undo_policy.wait(state.tries + 1, command_id(self._saga.id, name, "undo", state.round))
        return self._write(UndoAsked(name, state.round, state.attempt + 1, state.tries + 1, self._now + wait))

    def _dispatch(self, name: str, state: StepState, direction: Direction) -> None:
        command = build_command(self._definition, self._saga, name, undo=direction == "undo")
        undoes = command_id(self._saga.id, name, "do") if direction == "undo" else None
        sent = command_id(self._saga.id, name, direction, state.round)
        self._dispatches.append(Dispatch(sent, state.attempt + 1, command, undoes))

    def _due_at(self, spec: StepSpec, name: str, state: StepState) -> datetime | None:
        match spec.action:
            case Action.COMMAND:
                return self._now + spec.policy.wait(state.tries + 1, command_id(self._saga.id, name, "do", state.round))
            case Action.WAIT:
                return None if spec.timeout is None else self._now + spec.timeout
            case Action.DELAY:
                return over_at(self._definition, self._saga, spec, self._now)
            case action:
                assert_never(action)

    @property
    def _under_way(self) -> frozenset[StepStatus]:
        return UNDO_UNDER_WAY if self._saga.phase is Phase.COMPENSATING else DO_UNDER_WAY

    def _policy(self, spec: StepSpec, state: StepState) -> Policy:
        return spec.undo_policy if state.status in UNDO_UNDER_WAY else spec.policy

    def _stick(self, name: str, reason: str) -> bool:
        """Say once that a step is stuck: the same again, as when a reply comes twice, is no news."""
        return self._saga.steps[name].stuck != reason and self._write(Stuck(name, reason))

    def _write(self, entry: Entry) -> bool:
        self._saga = evolve(self._saga, entry)
        self._entries.append(entry)
        return True

    def _ignore(self, why: str) -> Decision:
        return Decision(self._before, ignored=why)


def _why_spent(state: StepState) -> str:
    what = "the undo" if state.status in UNDO_UNDER_WAY else "the command"
    answer = "was refused" if state.status in TO_ASK_AGAIN else "stayed without an answer"
    return f"{what} {answer} after {counted(state.attempt, 'attempt')}"
