"""The state machine of a saga. The whole of it: nothing about transitions lives anywhere else. No I/O.

THEORY

A saga is a sequence of *stages*; a stage is one step, or several that run in parallel. Going forward, the steps of
the first stage that is not done are asked; when all of them are done, the next stage is. Going backward, the steps of
the last stage that has something to undo are undone; when all of them are, the stage before it is.

One question decides everything: *what do we know of a step?* Its answer is its status:

    pending       never asked: there is nothing to undo
    asked         a command is out: it may have happened          <- the only status that a reply can change
    done          it happened
    refused       it did not happen, and will not
    unknown       we have stopped asking: it may have happened, so it is undone
    undoing       an undo is out
    undo-refused  the undo was answered "no": it is asked again, as a new command
    undone        nothing of it is left

A step's outcome is *done*, *refused* or *unknown*, never two of them. Only a refusal, or a reversible step that stays
unknown when its policy is spent, starts the way back. The pivot and what follows are never undone by guess:
when their policy is spent the saga is *stuck* until a late reply or a person moves it.

The machine is split as Emmett does it: `decide` turns (saga, event) into log entries and never changes anything;
`evolve` applies one entry and never decides anything. So replaying the log gives the stored state, exactly.

GATE

An event speaks of one command id, and a timer of one attempt of it. What does not match the command that is out now
(a duplicate, a late or foreign reply, a timer that lost its race) changes nothing. Command ids are
`<saga>/<step>/do` and `<saga>/<step>/undo`; a refused command that must succeed is asked again under a new id, with
the round appended (`…/do/2`), because the participant remembers its refusal.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, assert_never

from pydantic import ValidationError

from orchestrator.definition import Kind, Policy, SagaData, StepSpec
from orchestrator.definition import Saga as Definition
from orchestrator.model import (
    ENDED,
    Answered,
    Asked,
    Compensated,
    CompensationStarted,
    Completed,
    Direction,
    Done,
    Entry,
    Event,
    GivenUp,
    Phase,
    RefusedStep,
    Retried,
    RetryOrdered,
    Saga,
    Started,
    StepState,
    StepStatus,
    Stuck,
    TimedOut,
    UndoAsked,
    Undone,
    UndoRefused,
    command_id,
)
from outbox.contracts import Command, Reply

# --- the tables ------------------------------------------------------------------------------------------------

TRANSITIONS: Final[Mapping[tuple[StepStatus, str], StepStatus]] = MappingProxyType(
    {
        (StepStatus.PENDING, "asked"): StepStatus.ASKED,
        (StepStatus.ASKED, "asked"): StepStatus.ASKED,
        (StepStatus.ASKED, "done"): StepStatus.DONE,
        (StepStatus.ASKED, "refused"): StepStatus.REFUSED,
        (StepStatus.ASKED, "given-up"): StepStatus.UNKNOWN,
        (StepStatus.REFUSED, "asked"): StepStatus.ASKED,  # only where it must succeed
        (
            StepStatus.ASKED,
            "undo-asked",
        ): StepStatus.UNDOING,  # a branch that is out when its sibling is refused
        (StepStatus.DONE, "undo-asked"): StepStatus.UNDOING,
        (StepStatus.UNKNOWN, "undo-asked"): StepStatus.UNDOING,
        (StepStatus.UNDOING, "undo-asked"): StepStatus.UNDOING,
        (StepStatus.UNDOING, "undone"): StepStatus.UNDONE,
        (StepStatus.UNDOING, "undo-refused"): StepStatus.UNDO_REFUSED,
        (StepStatus.UNDO_REFUSED, "undo-asked"): StepStatus.UNDOING,
    }
)
"""(status, log entry) -> status. What is not in this table cannot happen to a step."""

PHASES: Final[Mapping[tuple[Phase, str], Phase]] = MappingProxyType(
    {
        (Phase.RUNNING, "compensation-started"): Phase.COMPENSATING,
        (Phase.RUNNING, "completed"): Phase.COMPLETED,
        (Phase.COMPENSATING, "compensated"): Phase.COMPENSATED,
    }
)
"""(phase, log entry) -> phase. What is not in this table cannot happen to a saga."""


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


class UnreadableReply(Exception):
    """A reply that answers the command that is out, with data that its contract does not allow."""


# --- evolve: apply one entry -----------------------------------------------------------------------------------


def evolve(saga: Saga, entry: Entry) -> Saga:
    """The saga after `entry`. Raises KeyError on what the two tables do not allow."""
    match entry:
        case Started():
            raise KeyError("a saga starts once: its first entry makes it, see `replay`")
        case CompensationStarted(reason=reason):
            forgiven = {name: replace(state, stuck=None) for name, state in saga.steps.items()}
            return replace(saga, phase=PHASES[saga.phase, entry.kind], failure=reason, steps=forgiven)
        case Completed() | Compensated():
            return replace(saga, phase=PHASES[saga.phase, entry.kind])
        case RetryOrdered():
            return replace(
                saga,
                steps={
                    name: replace(state, stuck=None, tries=0) if state.stuck else state
                    for name, state in saga.steps.items()
                },
            )
        case Stuck(step=name, reason=reason):
            return _with_step(saga, name, replace(saga.steps[name], stuck=reason, due_at=None))
        case Done(step=name, data=data):
            after = _with_step(saga, name, _evolve_step(saga.steps[name], entry))
            return after if data is None else replace(after, data=data)
        case Asked() | RefusedStep() | GivenUp() | UndoAsked() | Undone() | UndoRefused():
            return _with_step(saga, entry.step, _evolve_step(saga.steps[entry.step], entry))
        case _:
            assert_never(entry)


def replay(saga_id: str, entries: Iterable[Entry]) -> Saga:
    """Fold a whole log. Raises KeyError on a log that no machine has written."""
    log = iter(entries)
    first = next(log, None)
    if not isinstance(first, Started):
        raise KeyError("the log does not begin with `started`")
    saga = Saga(
        id=saga_id,
        definition=first.definition,
        version=first.version,
        fingerprint=first.fingerprint,
        data=first.data,
        steps={name: StepState() for name in first.steps},
    )
    for entry in log:
        saga = evolve(saga, entry)
    return saga


StepEntry = Asked | Done | RefusedStep | GivenUp | UndoAsked | Undone | UndoRefused


def _evolve_step(state: StepState, entry: StepEntry) -> StepState:
    status = TRANSITIONS[state.status, entry.kind]
    match entry:
        case Asked() | UndoAsked():
            return StepState(status, entry.round, entry.attempt, entry.tries, entry.due_at)
        case RefusedStep() | UndoRefused():
            return replace(state, status=status, due_at=entry.due_at, stuck=None)
        case Done() | GivenUp() | Undone():
            return replace(state, status=status, due_at=None, stuck=None)
        case _:
            assert_never(entry)


def _with_step(saga: Saga, name: str, state: StepState) -> Saga:
    return replace(saga, steps={**saga.steps, name: state})


# --- decide: what an event means -------------------------------------------------------------------------------


def start(definition: Definition[Any], saga_id: str, data: SagaData, now: datetime) -> Decision:
    """Accept a saga, and ask its first stage. Its data gets `saga_id`, from which undos are built."""
    started = Started(
        definition.name,
        definition.version,
        definition.fingerprint,
        {**data.model_dump(mode="json"), "saga_id": saga_id},
        list(definition.steps),
    )
    return _Decider(definition, replay(saga_id, [started]), now).conclude([started])


def decide(definition: Definition[Any], saga: Saga, event: Event, now: datetime) -> Decision:
    """What `event` means to `saga`. Raises UnreadableReply; anything else that is wrong with an event is ignored."""
    if saga.phase in ENDED:
        return Decision(saga, ignored=f"the saga has ended: {saga.phase}")
    decider = _Decider(definition, saga, now)
    match event:
        case Retried(by=by, reason=reason):
            if saga.stuck is None:
                return Decision(saga, ignored="nothing is stuck")
            return decider.retry(RetryOrdered(by, reason))
        case Answered() | TimedOut():
            name = _step_of(saga, event.command_id)
            if name is None:
                return Decision(saga, ignored=f"command {event.command_id} is not the one that is out")
            return decider.time_out(name, event) if isinstance(event, TimedOut) else decider.answer(name, event)
        case _:
            assert_never(event)


_OUT: Final = frozenset({StepStatus.ASKED, StepStatus.UNDOING})
_WAITING_TO_ASK_AGAIN: Final = frozenset({StepStatus.REFUSED, StepStatus.UNDO_REFUSED})
_OWES_UNDO: Final = frozenset({StepStatus.ASKED, StepStatus.DONE, StepStatus.UNKNOWN})
_DO_UNDER_WAY: Final = frozenset({StepStatus.ASKED, StepStatus.REFUSED})
_UNDO_UNDER_WAY: Final = frozenset({StepStatus.UNDOING, StepStatus.UNDO_REFUSED})


def _step_of(saga: Saga, wanted: str) -> str | None:
    """The step whose present command has this id; the gate for replies and timers alike."""
    owner, _, rest = wanted.partition("/")
    name = rest.partition("/")[0]
    if owner != saga.id or name not in saga.steps or saga.command_id(name) != wanted:
        return None
    return name


class _Decider:
    """One decision in the making: applies each entry as it is made, so that the next one sees it."""

    def __init__(self, definition: Definition[Any], saga: Saga, now: datetime) -> None:
        self._definition = definition
        self._saga = saga
        self._now = now
        self._entries: list[Entry] = []
        self._dispatches: list[Dispatch] = []

    # events

    def answer(self, name: str, event: Answered) -> Decision:
        state, spec = self._saga.steps[name], self._definition.steps[name]
        if state.status not in _OUT:
            return Decision(self._saga, ignored=f"step {name} awaits no answer: {state.status}")
        if event.outcome == "refused":
            self._refused(spec, state, event)
        elif state.status is StepStatus.UNDOING:
            self._write(Undone(name))
        else:
            self._done(spec, event)
        return self.conclude()

    def time_out(self, name: str, event: TimedOut) -> Decision:
        state, spec = self._saga.steps[name], self._definition.steps[name]
        if state.due_at is None or state.attempt != event.attempt:
            return Decision(self._saga, ignored=f"step {name} has moved on since this timer was set")
        if self._now < state.due_at:  # a refusal has won the race and set the same attempt's timer anew
            return Decision(self._saga, ignored=f"step {name} is not due before {state.due_at}")
        if not self._policy(spec, state).is_spent(state.tries):
            self._ask_again(spec, state)
        elif state.status is StepStatus.ASKED and spec.kind is Kind.REVERSIBLE:
            self._write(GivenUp(name))
        else:
            self._stick(name, _why_spent(state))
        return self.conclude()

    def retry(self, entry: RetryOrdered) -> Decision:
        stuck = [name for name, state in self._saga.steps.items() if state.stuck]
        self._write(entry)
        for name in stuck:
            state = self._saga.steps[name]
            going_back = self._saga.phase is Phase.COMPENSATING
            if state.status in (_UNDO_UNDER_WAY if going_back else _DO_UNDER_WAY):
                self._ask_again(self._definition.steps[name], state)
        return self.conclude()

    # what follows from what is known now

    def conclude(self, entries: Iterable[Entry] = ()) -> Decision:
        """Write what follows, until nothing does."""
        self._entries.extend(entries)
        while self._advance():
            pass
        ignored = None if self._entries else "it is as it was"
        return Decision(self._saga, tuple(self._entries), tuple(self._dispatches), ignored)

    def _advance(self) -> bool:
        match self._saga.phase:
            case Phase.RUNNING:
                return self._turn_back() or self._go_forward()
            case Phase.COMPENSATING:
                return self._go_backward()
            case Phase.COMPLETED | Phase.COMPENSATED:
                return False
            case phase:
                assert_never(phase)

    def _turn_back(self) -> bool:
        for spec in self._definition.steps.values():
            status = self._saga.steps[spec.name].status
            if spec.kind is Kind.RETRIABLE or status not in (StepStatus.REFUSED, StepStatus.UNKNOWN):
                continue
            why = "was refused" if status is StepStatus.REFUSED else "gave no answer"
            reason = next((e.reason for e in self._entries if isinstance(e, RefusedStep)), "its policy is spent")
            return self._write(CompensationStarted(f"{spec.name} {why}: {reason}"))
        return False

    def _go_forward(self) -> bool:
        for stage in self._definition.stages:
            states = [self._saga.steps[spec.name] for spec in stage]
            if all(state.status is StepStatus.DONE for state in states):
                continue
            pending = [
                spec
                for spec, state in zip(stage, states, strict=True)
                if state.status is StepStatus.PENDING and not state.stuck
            ]
            for spec in pending:
                self._ask(spec, self._saga.steps[spec.name])
            return bool(pending)
        return self._write(Completed())

    def _go_backward(self) -> bool:
        for stage in reversed(self._definition.stages):
            owing = [spec for spec in stage if self._saga.steps[spec.name].status in _OWES_UNDO]
            under_way = any(self._saga.steps[spec.name].status in _UNDO_UNDER_WAY for spec in stage)
            if owing or under_way:
                ready = [spec for spec in owing if not self._saga.steps[spec.name].stuck]
                for spec in ready:
                    self._ask_undo(spec, StepState())
                return bool(ready)
        return self._write(Compensated())

    # one step

    def _done(self, spec: StepSpec, event: Answered) -> None:
        reply = _read_reply(spec, event.data)
        if spec.then is None:
            self._write(Done(spec.name))
            return
        try:
            known = self._definition.data.model_validate(self._saga.data)
            kept = spec.then(known, reply).model_dump(mode="json")
            self._definition.data.model_validate(kept)
        except Exception as error:  # the definition's own function: whatever it raises, the saga says so
            self._stick(spec.name, f"the definition's `then` failed: {_words(error)}")
            return
        self._write(Done(spec.name, kept))

    def _refused(self, spec: StepSpec, state: StepState, event: Answered) -> None:
        code, reason = (
            str(event.data.get("code", "refused")),
            str(event.data.get("reason", "no reason was given")),
        )
        must_succeed = state.status is StepStatus.UNDOING or spec.kind is Kind.RETRIABLE
        due_at = None
        if must_succeed:
            due_at = self._now + self._policy(spec, state).wait(max(1, state.tries), self._saga.command_id(spec.name))
        if state.status is StepStatus.UNDOING:
            self._write(UndoRefused(spec.name, code, reason, due_at))
        else:
            self._write(RefusedStep(spec.name, code, reason, due_at))

    def _ask_again(self, spec: StepSpec, state: StepState) -> None:
        again = replace(state, round=state.round + 1) if state.status in _WAITING_TO_ASK_AGAIN else state
        if state.status in _UNDO_UNDER_WAY:
            self._ask_undo(spec, again)
        else:
            self._ask(spec, again)

    def _ask(self, spec: StepSpec, state: StepState) -> bool:
        due_at = self._due_at(spec.policy, spec.name, "do", state)
        entry = Asked(spec.name, state.round, state.attempt + 1, state.tries + 1, due_at)
        return self._send(spec, entry, "do")

    def _ask_undo(self, spec: StepSpec, state: StepState) -> bool:
        due_at = self._due_at(spec.undo_policy, spec.name, "undo", state)
        entry = UndoAsked(spec.name, state.round, state.attempt + 1, state.tries + 1, due_at)
        return self._send(spec, entry, "undo")

    def _send(self, spec: StepSpec, entry: Asked | UndoAsked, direction: Direction) -> bool:
        build, wanted = (spec.do, spec.command) if direction == "do" else (spec.undo, spec.undo_command)
        if build is None or wanted is None:
            raise KeyError(f"step {spec.name} has no undo")
        try:
            command = build(self._definition.data.model_validate(self._saga.data))
            if not isinstance(command, wanted):
                raise TypeError(f"it is annotated with {wanted.__name__}, and returned {command!r}")
        except Exception as error:  # the definition's own function: whatever it raises, the saga says so
            return self._stick(spec.name, f"the definition's `{direction}` failed: {_words(error)}")
        undoes = command_id(self._saga.id, spec.name, "do") if direction == "undo" else None
        sent = command_id(self._saga.id, spec.name, direction, entry.round)
        self._dispatches.append(Dispatch(sent, entry.attempt, command, undoes))
        return self._write(entry)

    def _due_at(self, policy: Policy, name: str, direction: Direction, state: StepState) -> datetime:
        return self._now + policy.wait(state.tries + 1, command_id(self._saga.id, name, direction, state.round))

    def _policy(self, spec: StepSpec, state: StepState) -> Policy:
        return spec.undo_policy if state.status in _UNDO_UNDER_WAY else spec.policy

    def _stick(self, name: str, reason: str) -> bool:
        """Say once that a step is stuck: the same again, as when a reply comes twice, is no news."""
        return self._saga.steps[name].stuck != reason and self._write(Stuck(name, reason))

    def _write(self, entry: Entry) -> bool:
        self._saga = evolve(self._saga, entry)
        self._entries.append(entry)
        return True


def _read_reply(spec: StepSpec, data: dict[str, Any]) -> Reply:
    try:
        return spec.command.reply.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "data"
        raise UnreadableReply(f"the reply to {spec.name} cannot be read: {where}: {first['msg']}") from error


def _why_spent(state: StepState) -> str:
    what = "the undo" if state.status in _UNDO_UNDER_WAY else "the command"
    answer = "was refused" if state.status in _WAITING_TO_ASK_AGAIN else "stayed without an answer"
    return f"{what} {answer} after {state.attempt} attempts"


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
