"""A batch of commands in one transaction: inbox, handlers, rows, replies, domain events.

What it promises, and by which means:

- *applied once*: the inbox holds every command id that was handled, with the answer. A duplicate is answered with the
  stored answer (a lost reply must not hang a saga), under a fresh message id.
- *undo before do*: an undo names the command that it undoes. If that one was never seen, its id is put into the inbox
  as refused, a tombstone, and the undo answers done; the command that comes later meets it. If it was refused there
  is nothing to undo. Either way no handler is called.
- *a refusal leaves nothing behind*: see `work`. It is remembered, so that a late attempt of the same command
  cannot succeed after the saga has turned back.
- two replicas that handle the same command at once collide on the primary key of the inbox; one of them does its
  batch again and finds the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import orjson
import structlog
from pydantic import ValidationError
from sqlalchemy import Select, Table, select

from outbox.contracts import Command, Message, Refused
from outbox.database import Database, among
from outbox.envelope import Envelope, Outcome
from outbox.pump import Received
from outbox.unit_of_work import UnitOfWork
from participants.runtime.participant import Handler, Participant
from participants.runtime.rows import Rows

log = structlog.get_logger()

LONGEST_ID: Final = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered to a command: kept in the inbox."""

    type: str
    outcome: Outcome
    data: str
    """JSON text."""

    def stored(self) -> str:
        """As it stands in the inbox."""
        return orjson.dumps({"type": self.type, "outcome": self.outcome, "data": self.data}).decode()

    @classmethod
    def from_stored(cls, text: str) -> "Answer":
        """Back from the inbox."""
        return cls(**orjson.loads(text))


@dataclass(slots=True)
class Batch:
    """What is known about the commands of one batch."""

    known: dict[str, Answer]
    fresh: dict[str, Answer] = field(default_factory=dict)

    def remember(self, command_id: str, answer: Answer) -> None:
        """Will be in the inbox when the batch is committed."""
        self.known[command_id] = self.fresh[command_id] = answer


@dataclass(frozen=True, slots=True)
class Call:
    """One readable command, with who handles it."""

    received: Received
    command: Command[Any]
    handler: Handler


class CommandProcessor:
    """Carries out the commands of one participant."""

    def __init__(self, participant: Participant, database: Database) -> None:
        self._participant = participant
        self._database = database
        self._answers = _answers(database.dialect, participant.messaging.inbox)

    async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """Handle every command of the batch; raise, and leave nothing behind, when a handler fails."""
        calls = [call for received in batch if (call := self._read(unit, received)) is not None]
        answers = Batch(await self._answered(unit, calls))
        rows = Rows(self._database, unit.connection)
        await self._read_rows(rows, [call for call in calls if call.received.envelope.id not in answers.known])
        for call in calls:
            self._answer(unit, call, answers, rows)
        rows.hand_over(unit.writes)
        self._remember(unit, answers)

    def _read(self, unit: UnitOfWork, received: Received) -> Call | None:
        envelope = received.envelope
        handler = self._participant.handlers.get(envelope.type)
        if not received.subject.startswith(f"saga.cmd.{self._participant.name}."):
            log.warning("a command to somebody else is left alone", message=envelope.id, subject=received.subject)
            return None  # a broker that has lost its files can mix up who is sent what; it is asked for again
        if handler is None:
            problem = f"{self._participant.name} has no handler for {envelope.type}"
        elif not (envelope.replyto or "").startswith("saga.reply."):
            problem = f"no stream takes an answer to replyto {envelope.replyto!r}: it begins with saga.reply."
        elif len(envelope.id) > LONGEST_ID:
            problem = f"its id has {len(envelope.id)} characters, and an answer's id must still fit"
        else:
            try:
                return Call(received, handler.command.model_validate(envelope.data), handler)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                where = ".".join(str(part) for part in first["loc"]) or "data"
                problem = f"{envelope.type} cannot be read: {where}: {first['msg']}"
        log.error("command buried as a dead letter", message=envelope.id, reason=problem)
        unit.bury(received.dead_letter(problem))
        return None

    async def _answered(self, unit: UnitOfWork, calls: Sequence[Call]) -> dict[str, Answer]:
        """What the inbox knows of these commands, and of those that they undo."""
        ids = {call.received.envelope.id for call in calls}
        ids |= {undoes for call in calls if (undoes := call.received.envelope.undoes)}
        if not ids:
            return {}
        found = await unit.connection.execute(self._answers, {"asked": sorted(ids)})
        return {row.message_id: Answer.from_stored(row.answer) for row in found}

    async def _read_rows(self, rows: Rows, calls: Sequence[Call]) -> None:
        """First what tells us more, then everything else in one ordered pass: replicas lock in the same order."""
        telling = [call for call in calls if call.handler.then_needs is not None]
        await rows.read(key for call in telling for key in call.handler.needs(call.command))
        work = rows.open_work()
        keys = [key for call in calls for key in call.handler.needs(call.command)]
        for call in telling:
            if call.handler.then_needs is not None:
                keys.extend(call.handler.then_needs(call.command, work))
        await rows.read(keys)

    def _answer(self, unit: UnitOfWork, call: Call, answers: Batch, rows: Rows) -> None:
        envelope = call.received.envelope
        answer = answers.known.get(envelope.id)
        if answer is None:
            answer = self._undo(call, answers) or self._handle(unit, call, rows)
            answers.remember(envelope.id, answer)
        self._reply(unit, envelope, answer)

    def _undo(self, call: Call, answers: Batch) -> Answer | None:
        """The answer to an undo that has nothing to undo; None when the handler must be called."""
        undoes = call.received.envelope.undoes
        if undoes is None:
            return None
        done = answers.known.get(undoes)
        if done is not None and done.outcome == "done":
            return None
        if done is None:
            answers.remember(undoes, self._refusal("undone", "its undo came first"))
        return Answer(f"{self._participant.name}.nothing-to-undo", "done", "{}")

    def _handle(self, unit: UnitOfWork, call: Call, rows: Rows) -> Answer:
        work = rows.open_work()
        try:
            reply = call.handler.handle(call.command, work)
        except Refused as refusal:
            return self._refusal(refusal.code, refusal.reason)
        rows.take(work)
        for number, event in enumerate(work.events):
            subject, envelope = event.subject(), call.received.envelope
            unit.send(subject, self._envelope(unit, f"{envelope.id}/event/{number}", event.type, envelope, event))
        return Answer(f"{self._participant.name}.{reply.type}", "done", reply.model_dump_json())

    def _refusal(self, code: str, reason: str) -> Answer:
        data = orjson.dumps({"code": code, "reason": reason}).decode()
        return Answer(f"{self._participant.name}.refused", "refused", data)

    def _reply(self, unit: UnitOfWork, command: Envelope, answer: Answer) -> None:
        if command.replyto is None:
            return
        reply = Envelope(
            id=f"{command.id}/reply",
            source=f"/{self._participant.name}",
            type=answer.type,
            subject=command.subject,
            time=unit.now,
            data=orjson.loads(answer.data),
            attempt=command.attempt,
            answers=command.id,
            outcome=answer.outcome,
        )
        unit.send(command.replyto, reply)

    def _envelope(self, unit: UnitOfWork, id: str, type: str, cause: Envelope, message: Message) -> Envelope:
        return Envelope(
            id=id,
            source=f"/{self._participant.name}",
            type=type,
            subject=cause.subject,
            time=unit.now,
            data=message.model_dump(mode="json"),
        )

    def _remember(self, unit: UnitOfWork, answers: Batch) -> None:
        rows = [
            {"message_id": command_id, "answer": answer.stored(), "received_at": unit.now}
            for command_id, answer in sorted(answers.fresh.items())
        ]
        unit.writes.insert(self._participant.messaging.inbox, rows)


@cache
def _answers(dialect: str, inbox: Table) -> Select[tuple[str, str]]:
    return select(inbox.c.message_id, inbox.c.answer).where(among(dialect, inbox.c.message_id, "asked"))
