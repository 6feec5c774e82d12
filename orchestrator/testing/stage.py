"""Where a rehearsal is played: the sagas, a virtual clock, and what is yet to come. No I/O."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Any

from orchestrator.definition import Action, SagaData
from orchestrator.definition import Saga as Definition
from orchestrator.entries import Asked, Entry
from orchestrator.events import Answered, DeadlinePassed, Event, Order, Signalled, TimedOut, UndoRequested
from orchestrator.machine import Decision, Dispatch, Terms, decide, start
from orchestrator.model import ENDED, Caller, Phase, Saga
from orchestrator.steps import SagaEnded, SagaUndone, StartSaga, UndoSaga
from orchestrator.testing.fakes import (
    SILENCE,
    CannotRehearse,
    Inbox,
    choose,
    default_answer,
    keys_of,
    spoken,
    unhurried,
)
from orchestrator.testing.specification import DAWN, SAGA_ID, check_log_is_the_truth
from outbox.contracts import Command, Message, Refused

__tracebackhide__ = True


@dataclass(frozen=True, slots=True)
class Sent:
    """A command that went out. `after` is the time since the rehearsal began."""

    step: str
    undo: bool
    attempt: int
    command: Command[Any]
    after: timedelta

    def __str__(self) -> str:
        return f"{self.step}/undo" if self.undo else self.step


@dataclass(slots=True, eq=False)
class Actor:
    """One saga on the stage. `step` is the step of its parent that it is."""

    definition: Definition[Any]
    saga: Saga
    began: datetime
    last_event: datetime
    step: str = ""
    parent: "Actor | None" = None
    log: list[Entry] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


class Stage:
    """Plays sagas: answers their commands by the script, sends their signals, fires their timers."""

    def __init__(self, answers: Mapping[Any, Any], signals: Mapping[Any, Any], when_stuck: Sequence[Order]) -> None:
        self._answers = answers
        self._signals = signals
        self._when_stuck = list(when_stuck)
        self._now = DAWN
        self._inbox = Inbox()
        self._ready: dict[str, datetime] = {}  # when the answer to a command is there
        self._coming: list[tuple[datetime, int, Actor, Event]] = []
        self._numbers = count()
        self._actors: dict[str, Actor] = {}

    def enter(
        self, definition: Definition[Any], data: SagaData, step: str = "", parent: Actor | None = None,
        caller: Caller | None = None,
    ) -> Actor:  # fmt: skip
        """A saga begins."""
        saga_id = SAGA_ID if parent is None else f"{parent.saga.id}.{step}"
        decision = start(definition, saga_id, data, self._now, Terms(caller=caller))
        actor = Actor(definition, decision.saga, self._now, self._now, step, parent)
        self._actors[saga_id] = actor
        self._take(actor, decision)
        return actor

    def later(self, wait: timedelta, actor: Actor, event: Event) -> None:
        """This happens so much later."""
        self._at(self._now + wait, actor, event)

    def children_of(self, actor: Actor) -> list[Actor]:
        """The sagas that this one has started."""
        return [one for one in self._actors.values() if one.parent is actor]

    def play(self, most: int) -> None:
        """Let everything happen that happens by itself. Raises CannotRehearse when it does not end."""
        for _ in range(most):
            if not self._happens():
                break
        else:
            self._complain(most)
        for actor in self._actors.values():
            check_log_is_the_truth(actor.saga, actor.log)

    # --- what happens next -----------------------------------------------------------------------------------------

    def _happens(self) -> bool:
        """One thing happens: what comes now, else an order to what is stuck, else time goes on. False: nothing does."""
        if not (self._coming and self._coming[0][0] <= self._now) and self._order():
            return True
        timer = min(self._timers(), key=lambda one: one[0], default=None)
        if self._coming and (timer is None or self._coming[0][0] <= timer[0]):
            self._now, _, actor, event = heappop(self._coming)
        elif timer is not None:
            due, actor, event = timer
            self._now = max(self._now, due)
        else:
            return False
        self._feed(actor, event)
        return True

    def _order(self) -> bool:
        stuck = [actor for actor in self._actors.values() if actor.saga.status == "stuck"]
        if not stuck or not self._when_stuck:
            return False
        self._feed(stuck[0], self._when_stuck.pop(0))
        return True

    def _timers(self) -> Iterator[tuple[datetime, Actor, Event]]:
        for actor in self._actors.values():
            saga = actor.saga
            if saga.due_at is None or saga.phase in ENDED:
                continue
            if saga.deadline_at is not None and saga.phase is Phase.RUNNING:
                yield saga.deadline_at, actor, DeadlinePassed()
            for name, state in saga.steps.items():
                if state.due_at is not None and not self._answers_by_itself(actor, name):
                    yield state.due_at, actor, TimedOut(saga.command_id(name), state.attempt)

    def _answers_by_itself(self, actor: Actor, name: str) -> bool:
        """Asking a child again that is on the stage brings nothing: it answers when it has ended."""
        return f"{actor.saga.id}.{name}" in self._actors

    def _feed(self, actor: Actor, event: Event) -> None:
        self._take(actor, decide(actor.definition, actor.saga, event, self._now))

    def _take(self, actor: Actor, decision: Decision) -> None:
        actor.saga = decision.saga
        actor.log.extend(decision.entries)
        if decision.ignored is not None:
            actor.ignored.append(decision.ignored)
            return
        actor.last_event = self._now
        for sent in decision.dispatches:
            self._send(actor, sent)
        for entry in decision.entries:
            self._signal(actor, entry)
        if actor.saga.phase in ENDED:
            self._tell_parent(actor)

    def _at(self, when: datetime, actor: Actor, event: Event) -> None:
        heappush(self._coming, (when, next(self._numbers), actor, event))

    # --- commands and signals --------------------------------------------------------------------------------------

    def _send(self, actor: Actor, sent: Dispatch) -> None:
        step = sent.command_id.split("/")[1]
        going_back = sent.undoes is not None
        actor.sent.append(Sent(step, going_back, sent.attempt, sent.command, self._now - DAWN))
        answer = choose(self._answers, keys_of(sent), sent.attempt)
        child = actor.definition.spec_of(step).child
        if child is not None and answer is None:
            self._send_to_child(actor, child, step, sent)
            return
        reply = self._inbox.handle(sent, lambda: self._carry_out(sent, answer))
        if reply is not None:
            self._at(max(self._now, self._ready.get(sent.command_id, self._now)), actor, reply)

    def _carry_out(self, sent: Dispatch, answer: Any) -> Answered | None:
        taken, said = unhurried(default_answer(sent) if answer is None else answer, sent.command)
        self._ready[sent.command_id] = self._now + taken
        return spoken(said, sent)

    def _signal(self, actor: Actor, entry: Entry) -> None:
        """Whoever is to signal does so when a wait begins."""
        spec = actor.definition.spec_of(entry.step) if isinstance(entry, Asked) else None
        if spec is None or spec.action is not Action.WAIT or not isinstance(entry, Asked):
            return
        taken, said = unhurried(choose(self._signals, [spec.name, spec.signal], entry.attempt))
        if isinstance(said, Refused):
            self.later(
                taken, actor, Signalled(spec.name, "refused", {"code": said.code, "reason": said.reason}, "fake")
            )
        elif isinstance(said, Message):
            self.later(taken, actor, Signalled(spec.name, "done", said.model_dump(mode="json"), "fake"))
        elif said not in (None, SILENCE):
            raise CannotRehearse(f"{said!r} is no signal for {spec.name}; give a signal, Refused or SILENCE")

    # --- children --------------------------------------------------------------------------------------------------

    def _send_to_child(self, parent: Actor, definition: Definition[Any], step: str, sent: Dispatch) -> None:
        actor = self._actors.get(f"{parent.saga.id}.{step}")
        caller = Caller(sent.command_id, "saga.reply.orchestrator", sent.attempt)
        match sent.command:
            case StartSaga(input=known) if actor is None:
                self.enter(definition, definition.data.model_validate(known), step, parent, caller)
            case UndoSaga() if actor is None or actor.saga.phase is Phase.COMPENSATED:
                undone = SagaUndone(saga_id=f"{parent.saga.id}.{step}")
                self._at(self._now, parent, Answered(sent.command_id, "done", undone.model_dump()))
            case UndoSaga() if actor is not None:
                self._at(self._now, actor, UndoRequested(caller))
            case _:  # asked again: it answers when it has ended
                pass

    def _tell_parent(self, child: Actor) -> None:
        if child.parent is not None:
            for answer in _answers_of(child.saga):
                self._at(self._now, child.parent, answer)

    # --- when it does not end --------------------------------------------------------------------------------------

    def _complain(self, most: int) -> None:
        sent = [f"{actor.definition.name}: {one}" for actor in self._actors.values() for one in actor.sent]
        most_asked = max(set(sent), key=sent.count, default="nothing")
        stuck = _stuck(self._actors.values())
        raise CannotRehearse(
            f"the saga does not come to an end: after {most:,} events and {self._now - DAWN} of its time it still goes "
            f"on{stuck}; asked most often: {most_asked}, {sent.count(most_asked):,} times; "
            "answer that, or give it a policy that ends"
        )


def _answers_of(saga: Saga) -> Iterator[Answered]:
    """What a child that has ended tells those who wait for it."""
    if saga.phase is Phase.COMPLETED and saga.caller is not None:
        ended = SagaEnded(saga_id=saga.id, result=saga.data)
        yield Answered(saga.caller.command_id, "done", ended.model_dump(mode="json"))
    if saga.phase is Phase.COMPENSATED and saga.undoer is not None:
        yield Answered(saga.undoer.command_id, "done", SagaUndone(saga_id=saga.id).model_dump(mode="json"))
    elif saga.phase is Phase.COMPENSATED and saga.caller is not None:
        refusal = {"code": "compensated", "reason": saga.failure or "it was compensated"}
        yield Answered(saga.caller.command_id, "refused", refusal)


def _stuck(actors: Iterable[Actor]) -> str:
    reasons = [f"{actor.definition.name} is stuck ({actor.saga.stuck})" for actor in actors if actor.saga.stuck]
    return f" ({'; '.join(reasons)})" if reasons else ""
