"""From facts to the one cause that counts. No I/O.

Of a saga as a whole there is one cause. Of several open steps the most telling is taken: what needs a person comes
before what is broken, what is broken before what only takes its time. `RANK` is that order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from orchestrator.definition import Action
from orchestrator.why.facts import Facts, Failing, Letter, Listeners, OpenStep, Paused, Queue, Relative, Stuck

LATE: Final = timedelta(seconds=5)
"""What is overdue by more than this is not about to happen: nobody does it."""

BUSY: Final = 64
"""Messages in hand (see `outbox.intake.QUEUE_MESSAGES`) with which a replica asks for no more, and is well."""


@dataclass(frozen=True, slots=True)
class Ended:
    at: datetime | None
    failure: str | None


@dataclass(frozen=True, slots=True)
class IsPaused:
    paused: Paused


@dataclass(frozen=True, slots=True)
class IsStuck:
    stuck: Stuck


@dataclass(frozen=True, slots=True)
class NotLoaded:
    pass


@dataclass(frozen=True, slots=True)
class BeginsLater:
    at: datetime


@dataclass(frozen=True, slots=True)
class Queued:
    queue: Queue


@dataclass(frozen=True, slots=True)
class CommandIsDeadLetter:
    step: OpenStep
    letter: Letter


@dataclass(frozen=True, slots=True)
class AnswerIsDeadLetter:
    step: OpenStep
    letter: Letter


@dataclass(frozen=True, slots=True)
class HandlingFails:
    """Of the command, or, when it is the orchestrator's, of the answer. It is tried again, and then buried."""

    step: OpenStep
    role: str
    failing: Failing


@dataclass(frozen=True, slots=True)
class WaitsForSignal:
    step: OpenStep


@dataclass(frozen=True, slots=True)
class NatsIsAway:
    """No command can leave, and so no timer is fired: `since` when one was to be, if that is what it waits for."""

    step: OpenStep
    problem: str
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class NobodyListens:
    """At the consumer of a role: for the command, or, when it is the orchestrator's, for the answer."""

    step: OpenStep
    service: Listeners


@dataclass(frozen=True, slots=True)
class Overdue:
    """A timer has passed, and nobody has fired it."""

    since: datetime


@dataclass(frozen=True, slots=True)
class NotPublished:
    """The command, or the answer, is still in somebody's outbox."""

    step: OpenStep
    role: str
    since: datetime | None


@dataclass(frozen=True, slots=True)
class DatabaseIsAway:
    step: OpenStep
    service: Listeners
    problem: str


@dataclass(frozen=True, slots=True)
class ChildNotDone:
    step: OpenStep
    child: Relative


@dataclass(frozen=True, slots=True)
class Backlog:
    step: OpenStep
    service: Listeners
    messages: int


@dataclass(frozen=True, slots=True)
class RefusedAndAskedAgain:
    step: OpenStep
    reason: str


@dataclass(frozen=True, slots=True)
class AnswerLost:
    """It was given, and is nowhere on its way any more. (Or it comes at this moment.)"""

    step: OpenStep


@dataclass(frozen=True, slots=True)
class NotAnswered:
    step: OpenStep


@dataclass(frozen=True, slots=True)
class Delayed:
    step: OpenStep


@dataclass(frozen=True, slots=True)
class Moving:
    """Nothing is open: it goes on at this moment."""


Cause = (
    Ended
    | IsPaused
    | IsStuck
    | NotLoaded
    | BeginsLater
    | Queued
    | CommandIsDeadLetter
    | AnswerIsDeadLetter
    | HandlingFails
    | WaitsForSignal
    | NatsIsAway
    | NobodyListens
    | Overdue
    | NotPublished
    | DatabaseIsAway
    | ChildNotDone
    | Backlog
    | RefusedAndAskedAgain
    | AnswerLost
    | NotAnswered
    | Delayed
    | Moving
)

RANK: Final[tuple[type[Cause], ...]] = (
    CommandIsDeadLetter,
    AnswerIsDeadLetter,
    HandlingFails,
    NatsIsAway,
    NobodyListens,
    Overdue,
    NotPublished,
    DatabaseIsAway,
    WaitsForSignal,
    ChildNotDone,
    RefusedAndAskedAgain,
    Backlog,
    AnswerLost,
    NotAnswered,
    Delayed,
)
"""Causes that a step may have, the most telling first."""


def cause_of(facts: Facts) -> Cause:
    """Why the saga is where it is."""
    whole = next(_of_the_whole(facts), None)
    if whole is not None:
        return whole
    found = [cause for step in facts.steps for cause in _of_step(facts, step)]
    return min(found, key=lambda cause: RANK.index(type(cause)), default=Moving())


def _of_the_whole(facts: Facts) -> Iterator[Cause]:
    if facts.status in ("completed", "compensated"):
        yield Ended(facts.ended_at, facts.failure)
    if facts.paused is not None:
        yield IsPaused(facts.paused)
    if facts.stuck is not None:
        yield IsStuck(facts.stuck)
    if not facts.is_loaded:
        yield NotLoaded()
    if facts.queue is not None:
        yield from _of_queue(facts, facts.queue)
    deadline = _missed_deadline(facts)
    if deadline is not None and facts.broker is None:  # without NATS nobody fires it, and is right not to
        yield Overdue(deadline)


def _missed_deadline(facts: Facts) -> datetime | None:
    return facts.deadline_at if not facts.is_compensating and _is_late(facts, facts.deadline_at) else None


def _is_late(facts: Facts, at: datetime | None) -> bool:
    return at is not None and at + LATE < facts.now


def _of_queue(facts: Facts, queue: Queue) -> Iterator[Cause]:
    if queue.begins_at is not None and queue.begins_at > facts.now:
        yield BeginsLater(queue.begins_at)
    may_begin = max(filter(None, (queue.begins_at, queue.next_at)), default=facts.now)
    if queue.has_room and not queue.ahead and may_begin + LATE < facts.now:
        yield Overdue(may_begin)
    yield Queued(queue)


def _of_step(facts: Facts, step: OpenStep) -> Iterator[Cause]:
    """Everything that is true of it: the least telling is always there."""
    if step.action is Action.WAIT:
        yield WaitsForSignal(step)
    elif step.action is Action.DELAY:
        yield Delayed(step)
    elif step.refusal is not None:
        yield RefusedAndAskedAgain(step, step.refusal)
    else:
        yield from _of_command(facts, step)
    since = step.due_at if _is_late(facts, step.due_at) else _missed_deadline(facts)
    if since is not None:
        yield Overdue(since) if facts.broker is None else NatsIsAway(step, facts.broker, since)


def _of_command(facts: Facts, step: OpenStep) -> Iterator[Cause]:
    yield from _of_handling(step)
    if step.child is not None and step.child.status not in ("completed", "compensated"):
        yield ChildNotDone(step, step.child)
        return
    if facts.broker is not None:
        yield NatsIsAway(step, facts.broker)
    if _is_late(facts, step.unpublished_since):
        yield NotPublished(step, "orchestrator", step.unpublished_since)
    receiver = facts.services.get("replies" if step.is_answered else step.participant or "")
    if step.is_answered and step.is_answer_unpublished:
        yield NotPublished(step, step.participant or "", None)
    elif receiver is not None and facts.broker is None:
        yield from _of_receiver(step, receiver)
    asked = facts.services.get(step.participant or "")
    if asked is not None and asked.database is not None:
        yield DatabaseIsAway(step, asked, asked.database)
    yield AnswerLost(step) if step.is_answered else NotAnswered(step)


def _of_handling(step: OpenStep) -> Iterator[Cause]:
    """What could not be handled: the command, or the answer to it.

    A command that has an answer was handled in the end, whatever an earlier delivery of it has left behind.
    """
    if step.letter is not None and not step.is_answered:
        yield CommandIsDeadLetter(step, step.letter)
    if step.answer_letter is not None:
        yield AnswerIsDeadLetter(step, step.answer_letter)
    if step.failing is not None and not step.is_answered:
        yield HandlingFails(step, step.participant or "", step.failing)
    if step.answer_failing is not None:
        yield HandlingFails(step, "orchestrator", step.answer_failing)


def _of_receiver(step: OpenStep, service: Listeners) -> Iterator[Cause]:
    """Of whoever has to take the next message: the command, or the answer to it."""
    messages = (service.waiting or 0) + service.in_hand
    is_busy = service.is_at_work and service.in_hand >= BUSY
    if service.waiting is None or not (service.listeners or is_busy):
        yield NobodyListens(step, service)
    elif messages:
        yield Backlog(step, service, messages)
