"""The sentence and the command for each cause. No I/O."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, assert_never

from orchestrator.why import causes
from orchestrator.why.causes import Cause, cause_of
from orchestrator.why.facts import SETTINGS, Facts, Failing, Letter, OpenStep, Queue
from outbox.contracts import kebab_case
from outbox.moments import moment, span
from outbox.numbers import counted
from outbox.reasons import first_line

REASON: Final = ("--reason", "…")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`command` are the arguments of `saga`."""

    cause: str
    sentence: str
    command: tuple[str, ...]


def diagnose(facts: Facts) -> Diagnosis:
    """Why the saga is where it is, and what would move it."""
    cause = cause_of(facts)
    sentence, command = _words(facts, cause)
    return Diagnosis(kebab_case(type(cause).__name__), sentence, command)


def _words(facts: Facts, cause: Cause) -> tuple[str, tuple[str, ...]]:
    match cause:
        case (
            causes.Ended()
            | causes.IsPaused()
            | causes.IsStuck()
            | causes.NotLoaded()
            | causes.BeginsLater()
            | causes.Queued()
            | causes.Overdue()
            | causes.Moving()
        ):
            return _of_the_whole(facts, cause)
        case (
            causes.CommandIsDeadLetter()
            | causes.AnswerIsDeadLetter()
            | causes.HandlingFails()
            | causes.NatsIsAway()
            | causes.NobodyListens()
            | causes.NotPublished()
            | causes.DatabaseIsAway()
        ):
            return _of_trouble(facts, cause)
        case _:
            return _of_patience(facts, cause)


def _of_the_whole(
    facts: Facts,
    cause: causes.Ended
    | causes.IsPaused
    | causes.IsStuck
    | causes.NotLoaded
    | causes.BeginsLater
    | causes.Queued
    | causes.Overdue
    | causes.Moving,
) -> tuple[str, tuple[str, ...]]:
    saga = facts.saga_id
    match cause:
        case causes.Ended(at=at, failure=failure):
            because = f", because {failure}" if failure and facts.status == "compensated" else ""
            when = f" at {moment(at)}" if at else ""
            return f"It ended{when}: it is {facts.status}{because}, and nothing moves it any more.", ("get", saga)
        case causes.IsPaused(paused=paused):
            why = f" ({paused.why})" if paused.why else ""
            return f"It was paused by {paused.by}{_at(paused.at)}{why}, and goes on when it is resumed.", (
                "resume", saga, *REASON,
            )  # fmt: skip
        case causes.IsStuck(stuck=stuck):
            sentence = f"It is stuck at {stuck.step}, and a person must act: {_clause(stuck.reason)}"
            if stuck.letter is not None:
                told = f"{sentence}; what was sent is the dead letter {_told(stuck.letter)}."
                return told, _redrive(stuck.letter, facts)
            return f"{sentence}.", stuck.command or ("get", saga)
        case causes.NotLoaded():
            named = f"{facts.definition} v{facts.version} ({facts.fingerprint})"
            return (
                f"It began with {named}, which is not among the definitions that are loaded (SAGA_DEFINITIONS): "
                "it goes on when an orchestrator runs that has that very definition.",
                ("definitions", "check"),
            )
        case causes.BeginsLater(at=at):
            return f"It is to begin at {moment(at)}, in {span(at - facts.now)}.", ("get", saga)
        case causes.Queued(queue=queue):
            return _queued(facts, queue), ("ls", "--type", facts.definition, "--status", "running")
        case causes.Overdue(since=since):
            return (
                f"It has been due for {span(facts.now - since)}, and no orchestrator takes it up: none runs, or none "
                f"that has its definition and reaches its database and NATS.",
                ("run", "orchestrator"),
            )
        case causes.Moving():
            return "Nothing is awaited of anybody: it goes on at this moment.", ("log", saga, "--follow")
        case _:
            assert_never(cause)


def _of_trouble(
    facts: Facts,
    cause: causes.CommandIsDeadLetter
    | causes.AnswerIsDeadLetter
    | causes.HandlingFails
    | causes.NatsIsAway
    | causes.NobodyListens
    | causes.NotPublished
    | causes.DatabaseIsAway,
) -> tuple[str, tuple[str, ...]]:
    step = cause.step
    match cause:
        case causes.CommandIsDeadLetter(letter=letter):
            told = f"{step.participant} could not handle the command of {_step(step)}: it is the dead letter"
            return f"{told} {_told(letter)}{_next(facts, step)}.", _redrive(letter, facts)
        case causes.AnswerIsDeadLetter(letter=letter):
            told = f"{step.participant} has answered {_step(step)}, and the answer could not be taken"
            return f"{told}: it is the dead letter {_told(letter)}{_next(facts, step)}.", _redrive(letter, facts)
        case causes.HandlingFails(role=role, failing=failing):
            what = "answer to" if role == "orchestrator" and step.participant != role else "command of"
            told = f"{role} fails at the {what} {_step(step)} ({_clause(failing.reason)}; {_tries(failing)})"
            return f"{told}: it tries again by itself, and goes on when the cause is gone.", (
                "log", facts.saga_id, "--follow",
            )  # fmt: skip
        case causes.NatsIsAway(problem=problem, since=since):
            waits = f"{_step(step, begin=True)} waits for {step.participant}"
            told = waits if since is None else f"It has been due for {span(facts.now - since)}"
            return f"{told}, and {_clause(problem)}: it goes on when NATS is back.", facts.broker_command
        case causes.NobodyListens(service=service):
            what = "answers" if service.role == "orchestrator" and step.is_answered else "commands"
            messages = (service.waiting or 0) + service.in_hand
            count = f", where {counted(messages, 'message')} must wait" if messages else ""
            seen = "" if service.database is None else f", and as seen from here {_clause(service.database)}"
            told = f"Nobody listens for the {what} to {service.role}{count}{seen}: {_step(step)} goes on"
            told = f"{told} when {service.role} runs, and its database lets it work (its log and /readyz tell)."
            return told, ("run", service.role) if service.is_ours else ("log", facts.saga_id, "--follow")
        case causes.NotPublished(role=role, since=since):
            what = "command" if role == "orchestrator" else "answer"
            told = f"The {what} of {_step(step)} is in the outbox of {role}{_at(since)} and was not published"
            return f"{told}: it leaves when {role} runs and reaches NATS.", ("run", role)
        case causes.DatabaseIsAway(service=service, problem=problem):
            told = f"{_step(step, begin=True)} waits for {service.role}, and as seen from here {_clause(problem)}"
            return f"{told}: if {service.role} sees the same, that is why.", SETTINGS
        case _:
            assert_never(cause)


def _of_patience(
    facts: Facts,
    cause: causes.WaitsForSignal
    | causes.ChildNotDone
    | causes.RefusedAndAskedAgain
    | causes.Backlog
    | causes.AnswerLost
    | causes.NotAnswered
    | causes.Delayed,
) -> tuple[str, tuple[str, ...]]:
    step, watch = cause.step, ("log", facts.saga_id, "--follow")
    match cause:
        case causes.WaitsForSignal():
            until = f", until {moment(step.due_at)}" if step.due_at else ""
            return f"It waits for the signal {step.name}{_at(step.since)}{until}.", step.signal or watch
        case causes.ChildNotDone(child=child):
            told = f"{_step(step, begin=True)} waits for the saga {child.id} that it has started"
            return f"{told}, which is {child.status}.", ("why", child.id)
        case causes.RefusedAndAskedAgain(reason=reason):
            told = f"{_step(step, begin=True)} was refused by {step.participant} ({_clause(reason)}) and must succeed"
            return f"{told}{_next(facts, step)}.", watch
        case causes.Backlog(service=service, messages=messages):
            told = (
                f"{_step(step, begin=True)} waits for {service.role}, which has {counted(messages, 'message')} waiting"
            )
            return f"{told} or in hand{_next(facts, step)}.", watch
        case causes.AnswerLost():
            told = f"{step.participant} has answered {_step(step)}, and the answer has not come"
            return f"{told}{_next(facts, step)}, and the same answer is given.", watch
        case causes.NotAnswered():
            times = "once" if step.asked == 1 else f"{step.asked} times"
            ago = f", {span(facts.now - step.last_asked_at)} ago" if step.last_asked_at else ""
            told = f"{_step(step, begin=True)} was asked {times}{ago}, and {step.participant} has not answered"
            return f"{told}{_next(facts, step)}.", watch
        case causes.Delayed():
            until = f" until {moment(step.due_at)}, in {span(step.due_at - facts.now)}" if step.due_at else ""
            return f"It lets time pass at {step.name}{until}.", watch
        case _:
            assert_never(cause)


def _queued(facts: Facts, queue: Queue) -> str:
    place = f"behind {counted(queue.ahead, 'other')}" if queue.ahead else "the next"
    parts = [f"It waits to begin, {place} of {facts.definition}"]
    if queue.max_in_flight is not None:
        verb = "is" if queue.in_flight == 1 else "are"
        parts.append(f"{queue.in_flight:,} of at most {queue.max_in_flight:,} {verb} under way")
    if queue.window is not None and queue.at_work >= queue.window:
        parts.append(f"{queue.at_work:,} are at work, and no more may be (SAGA_MAX_IN_FLIGHT)")
    if queue.next_at is not None and queue.next_at > facts.now:
        parts.append(f"its rate lets the next one begin in {span(queue.next_at - facts.now)}")
    return "; ".join(parts) + "."


def _redrive(letter: Letter, facts: Facts) -> tuple[str, ...]:
    """Each attempt that could not be handled has left a letter: all of them go together."""
    if letter.useless:
        return ("dlq", "show", letter.id)
    which = ("--saga", facts.saga_id) if letter.alike else (letter.id,)
    return ("dlq", "redrive", *which, *REASON)


def _tries(failing: Failing) -> str:
    return f"tried {counted(failing.tries, 'time')} of {failing.most} before it is buried"


def _step(step: OpenStep, *, begin: bool = False) -> str:
    if step.undo:
        return f"{'The' if begin else 'the'} undo of {step.name}"
    return f"{'Step' if begin else 'step'} {step.name}"


def _next(facts: Facts, step: OpenStep) -> str:
    """When it is asked again, and which attempt that is."""
    if step.due_at is None:
        return ""
    left = max(timedelta(0), step.due_at - facts.now)
    if step.refusal is None and step.attempts is not None and step.asked >= step.attempts:
        return f"; that was the last of {step.attempts} attempts, and it is waited for {span(left)} more"
    of = "" if step.attempts is None else f" of {step.attempts}"
    return f"; it is asked again in {span(left)} (attempt {step.asked + 1}{of})"


def _told(letter: Letter) -> str:
    alike = f", like {counted(letter.alike, 'other')}" if letter.alike else ""
    return f"{letter.id} ({_clause(letter.reason)}){alike}"


def _clause(text: str) -> str:
    """Without what a driver adds, and without the full stop: the sentence goes on."""
    return first_line(text).rstrip(". ")


def _at(at: datetime | None) -> str:
    return "" if at is None else f" since {moment(at)}"
