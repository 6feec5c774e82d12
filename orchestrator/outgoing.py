"""What leaves the orchestrator: from a decision to envelopes in the outbox. Nothing here decides anything."""

from typing import Final

from orchestrator.entries import Compensated, CompensationStarted, Completed, Started, Stuck
from orchestrator.machine import Decision
from orchestrator.model import Caller, Phase, Saga
from orchestrator.steps import SagaEnded, SagaUndone
from outbox.contracts import Reply
from outbox.envelope import Envelope, Outcome
from outbox.unit_of_work import UnitOfWork

SOURCE: Final = "/orchestrator"


def send(unit: UnitOfWork, decision: Decision) -> None:
    """Everything that a decision makes known: commands, answers to whoever asked, and announcements."""
    _send_commands(unit, decision)
    for number, entry in enumerate(decision.entries):
        if isinstance(entry, Completed | Compensated):
            answer_callers(unit, decision.saga, undone=isinstance(entry, Compensated))
        if isinstance(entry, Started | CompensationStarted | Completed | Compensated | Stuck):
            _announce(unit, decision.saga, entry.kind, number)


def answer_callers(unit: UnitOfWork, saga: Saga, *, undone: bool) -> None:
    """Tell whoever started a saga, or wanted it undone, how it ended."""
    if undone and saga.undoer is not None:
        answer(unit, saga.undoer, saga.id, SagaUndone(saga_id=saga.id))
    elif saga.caller is not None and undone:
        refuse(unit, saga.caller, saga.id, "compensated", saga.failure or "it was compensated")
    elif saga.caller is not None:
        answer(unit, saga.caller, saga.id, SagaEnded(saga_id=saga.id, result=saga.data))


def answer_again(unit: UnitOfWork, saga: Saga, caller: Caller) -> None:
    """The answer to a StartSaga that came again after the saga had ended: a lost reply must not hang anybody."""
    if saga.phase is Phase.COMPLETED:
        answer(unit, caller, saga.id, SagaEnded(saga_id=saga.id, result=saga.data))
    elif saga.phase is Phase.COMPENSATED:
        refuse(unit, caller, saga.id, "compensated", saga.failure or "it was compensated")


def answer(unit: UnitOfWork, caller: Caller, saga_id: str, reply: Reply) -> None:
    """Answer a command: done."""
    _reply(unit, caller, saga_id, reply.type, "done", reply.model_dump(mode="json"))


def refuse(unit: UnitOfWork, caller: Caller, saga_id: str, code: str, reason: str) -> None:
    """Answer a command: no."""
    _reply(unit, caller, saga_id, "refused", "refused", {"code": code, "reason": reason})


def _reply(
    unit: UnitOfWork, caller: Caller, saga_id: str, kind: str, outcome: Outcome, data: dict[str, object]
) -> None:
    envelope = Envelope(
        id=f"{caller.command_id}/reply",
        source=SOURCE,
        type=f"orchestrator.{kind}",
        subject=saga_id,
        time=unit.now,
        data=data,
        attempt=caller.attempt,
        answers=caller.command_id,
        outcome=outcome,
    )
    unit.send(caller.replyto, envelope)


def _send_commands(unit: UnitOfWork, decision: Decision) -> None:
    for dispatch in decision.dispatches:
        command = dispatch.command
        envelope = Envelope(
            id=dispatch.command_id,
            source=SOURCE,
            type=command.type,
            subject=decision.saga.id,
            time=unit.now,
            data=command.model_dump(mode="json"),
            attempt=dispatch.attempt,
            replyto=f"saga.reply.{command.participant}",
            undoes=dispatch.undoes,
        )
        unit.send(command.subject(), envelope)


def _announce(unit: UnitOfWork, saga: Saga, kind: str, number: int) -> None:
    """Tell whoever listens what has become of a saga, on `saga.event.<definition>.<kind>`."""
    envelope = Envelope(
        id=f"{saga.id}/event/{kind}/{unit.now.timestamp():.6f}/{number}",
        source=SOURCE,
        type=f"{saga.definition}.{kind}",
        subject=saga.id,
        time=unit.now,
        data={"status": saga.status, "failure": saga.failure, "stuck": saga.stuck},
    )
    unit.send(f"saga.event.{saga.definition}.{kind}", envelope)
