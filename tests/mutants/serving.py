"""Mistakes in serving commands: the participants' processor, its rows, its inbox."""

from typing import Any

from sqlalchemy import select

from outbox.contracts import Refused
from outbox.envelope import Envelope
from outbox.unit_of_work import UnitOfWork
from participants.runtime.processor import Answer, Batch, Call, CommandProcessor
from participants.runtime.rows import Rows, _key_column
from participants.runtime.work import Key
from tests.mutants.planting import Bug

RIGHT_ANSWER = CommandProcessor._answer
RIGHT_REPLY = CommandProcessor._reply


async def _know_nothing(_processor: Any, _unit: UnitOfWork, _calls: Any) -> dict[str, Answer]:
    return {}


def _remember_for_show(processor: Any, unit: UnitOfWork, answers: Batch) -> None:
    rows = [
        {"message_id": command_id, "answer": answer.stored(), "received_at": unit.now}
        for command_id, answer in sorted(answers.fresh.items())
    ]
    unit.writes.insert(processor._participant.messaging.inbox, rows, known=True)


def _silence_for_a_duplicate(processor: Any, unit: UnitOfWork, call: Call, answers: Batch, rows: Rows) -> None:
    if call.received.envelope.id not in answers.known:
        RIGHT_ANSWER(processor, unit, call, answers, rows)


def _done_for_a_duplicate(processor: Any, unit: UnitOfWork, call: Call, answers: Batch, rows: Rows) -> None:
    """What was asked before must have been done."""
    known = answers.known.get(call.received.envelope.id)
    if known is not None and known.outcome == "refused":
        answers.known[call.received.envelope.id] = Answer(known.type, "done", "{}")
    RIGHT_ANSWER(processor, unit, call, answers, rows)


def _remember_what_was_done(processor: Any, unit: UnitOfWork, answers: Batch) -> None:
    answers.fresh = {one: answer for one, answer in answers.fresh.items() if answer.outcome == "done"}
    _remember_for_show(processor, unit, answers)


def _no_tombstone(processor: Any, call: Call, answers: Batch) -> Answer | None:
    undoes = call.received.envelope.undoes
    done = answers.known.get(undoes) if undoes else None
    if undoes is None or (done is not None and done.outcome == "done"):
        return None
    return Answer(f"{processor._participant.name}.nothing-to-undo", "done", "{}")


def _undo_at_any_rate(_processor: Any, _call: Call, _answers: Batch) -> Answer | None:
    return None


def _never_anything_to_undo(processor: Any, call: Call, answers: Batch) -> Answer | None:
    undoes = call.received.envelope.undoes
    if undoes is None:
        return None
    if undoes not in answers.known:
        answers.remember(undoes, processor._refusal("undone", "its undo came first"))
    return Answer(f"{processor._participant.name}.nothing-to-undo", "done", "{}")


def _keep_what_was_refused(processor: Any, unit: UnitOfWork, call: Call, rows: Rows) -> Answer:
    work = rows.open_work()
    try:
        reply = call.handler.handle(call.command, work)
    except Refused as refusal:
        rows.take(work)
        return processor._refusal(refusal.code, refusal.reason)  # type: ignore[no-any-return]
    rows.take(work)
    return Answer(f"{processor._participant.name}.{reply.type}", "done", reply.model_dump_json())


def _tell_nobody_else(processor: Any, unit: UnitOfWork, call: Call, rows: Rows) -> Answer:
    work = rows.open_work()
    try:
        reply = call.handler.handle(call.command, work)
    except Refused as refusal:
        return processor._refusal(refusal.code, refusal.reason)  # type: ignore[no-any-return]
    rows._changed.update(work.changes)
    rows._found.update(work.changes)
    return Answer(f"{processor._participant.name}.{reply.type}", "done", reply.model_dump_json())


def _always_the_first_attempt(processor: Any, unit: UnitOfWork, command: Envelope, answer: Answer) -> None:
    RIGHT_REPLY(processor, unit, command.model_copy(update={"attempt": 1}), answer)


async def _read_without_lock(rows: Any, kind: type[Any], values: list[str]) -> None:
    key = _key_column(kind.table)
    query = select(kind.table).where(rows._database.any_of(key, values)).order_by(key)
    for row in await rows._connection.execute(query):
        rows._found[Key(kind, row._mapping[key.name])] = kind(**row._mapping)
    for value in values:
        if Key(kind, value) not in rows._found:
            rows._found[Key(kind, value)] = None
            rows._absent.add(Key(kind, value))


BUGS = (
    Bug(
        "the inbox is skipped",
        ((CommandProcessor, "_answered", _know_nothing), (CommandProcessor, "_remember", _remember_for_show)),
        plain=True,
    ),
    Bug("a stored reply is not sent again", ((CommandProcessor, "_answer", _silence_for_a_duplicate),), plain=True),
    Bug("a duplicate is always answered with done", ((CommandProcessor, "_answer", _done_for_a_duplicate),)),
    Bug("a refusal is not remembered", ((CommandProcessor, "_remember", _remember_what_was_done),), plain=True),
    Bug("a tombstone is forgotten", ((CommandProcessor, "_undo", _no_tombstone),)),
    Bug("what was never done is undone", ((CommandProcessor, "_undo", _undo_at_any_rate),), plain=True),
    Bug("nothing is ever undone", ((CommandProcessor, "_undo", _never_anything_to_undo),), plain=True),
    Bug("a refusal leaves something behind", ((CommandProcessor, "_handle", _keep_what_was_refused),)),
    Bug("rows are added and not written", ((CommandProcessor, "_handle", _tell_nobody_else),)),
    Bug("replies all have one message id", ((CommandProcessor, "_reply", _always_the_first_attempt),)),
    Bug("rows are read without a lock", ((Rows, "_read_kind", _read_without_lock),)),
)
