"""What may happen to a saga in a specification: answers, silence, signals, and what people order. No I/O."""

from typing import Any, Literal

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
from orchestrator.model import Caller, StepState
from orchestrator.steps import Signal
from orchestrator.testing.specification import SAGA_ID, Happening, Specification
from outbox.contracts import Message, Reply

__tracebackhide__ = True

# --- participants ------------------------------------------------------------------------------------------------


def done(step: str, reply: Reply | None = None, /, **data: Any) -> Happening:
    """The command that is out for this step is answered "done", with a reply or with its fields."""
    fields = _fields(reply, data)
    return Happening(f"{step} is answered done", lambda spec: Answered(_command_id(spec, step), "done", fields))


def refused(step: str, reason: str = "for a reason", code: str = "no") -> Happening:
    """The command that is out for this step is answered "no"."""
    refusal = {"code": code, "reason": reason}
    words = f"{step} is refused ({code}: {reason})"
    return Happening(words, lambda spec: Answered(_command_id(spec, step), "refused", refusal))


def answered(command: str, outcome: Literal["done", "refused"] = "done", /, **reply: Any) -> Happening:
    """A reply to this command id comes, whether that is out or not. `saga-1/` is put before it."""
    return Happening(f"{command} is answered {outcome}", lambda _: Answered(f"{SAGA_ID}/{command}", outcome, reply))


def silence(step: str) -> Happening:
    """No answer comes: time goes on until the step's timer fires. It fires for a wait and for a delay too."""

    def fire(spec: Specification) -> Event:
        state = _state(spec, step)
        if state.due_at is None:
            raise AssertionError(f"no timer runs for {step}, which is {state.status}: silence changes nothing")
        spec.now = max(spec.now, state.due_at)
        return TimedOut(spec.saga.command_id(step), state.attempt)

    return Happening(f"no answer comes for {step}", fire)


def timer(step: str, attempt: int) -> Happening:
    """A timer of this attempt fires now, whether it is due or not."""
    words = f"the timer of attempt {attempt} of {step} fires"
    return Happening(words, lambda spec: TimedOut(_command_id(spec, step), attempt))


# --- signals and time --------------------------------------------------------------------------------------------


def signalled(step: str, signal: Signal | None = None, /, **data: Any) -> Happening:
    """A person or a webhook says yes, with a signal or with its fields."""
    fields = _fields(signal, data)
    return Happening(f"{step} is signalled", lambda _: Signalled(step, "done", fields, "ada"))


def signal_refused(step: str, reason: str = "for a reason") -> Happening:
    """A person says no."""
    return Happening(f"{step} is refused by a signal", lambda _: Signalled(step, "refused", {"reason": reason}, "ada"))


def admitted() -> Happening:
    """There is room for a saga that waited: it may begin."""
    return Happening("it is admitted", lambda _: Admitted())


def deadline() -> Happening:
    """Time goes on until the saga's deadline has passed. Where none runs, that is told all the same."""

    def fire(spec: Specification) -> Event:
        spec.now = max(spec.now, spec.saga.deadline_at or spec.now)
        return DeadlinePassed()

    return Happening("its deadline passes", fire)


# --- people ------------------------------------------------------------------------------------------------------


def retried(by: str = "ada", reason: str = "it is mended") -> Happening:
    """A person orders what is stuck to be tried again."""
    return Happening(f"{by} orders a retry", lambda _: Retried(by, reason))


def cancelled(by: str = "ada", reason: str = "not wanted", pivot_did_not_happen: bool = False) -> Happening:
    """A person orders the saga to turn back."""
    return Happening(f"{by} cancels it", lambda _: Cancelled(by, reason, pivot_did_not_happen))


def paused(by: str = "ada", reason: str = "to look at it") -> Happening:
    """A person orders that nothing more is sent."""
    return Happening(f"{by} pauses it", lambda _: PauseOrdered(by, reason))


def resumed(by: str = "ada", reason: str = "looked at") -> Happening:
    """A person lets the saga go on."""
    return Happening(f"{by} resumes it", lambda _: ResumeOrdered(by, reason))


def resolved(step: str | None = None, reply: Message | None = None, /, **data: Any) -> Happening:
    """A person answers for a step, or for all that are stuck: done, with this reply, or on the way back: undone."""
    order = Resolved("ada", "seen to it by hand", step, _fields(reply, data))
    return Happening(f"ada answers for {step or 'what is stuck'}", lambda _: order)


def undo_requested(command: str = "parent-1/child/undo", replyto: str = "saga.reply.orchestrator") -> Happening:
    """Whoever started the saga wants it undone, and sends this command."""
    return Happening("its caller undoes it", lambda _: UndoRequested(Caller(command, replyto)))


def _fields(message: Message | None, fields: dict[str, Any]) -> dict[str, Any]:
    return fields if message is None else {**message.model_dump(mode="json"), **fields}


def _command_id(spec: Specification, step: str) -> str:
    _state(spec, step)
    return spec.saga.command_id(step)


def _state(spec: Specification, step: str) -> StepState:
    if step not in spec.saga.steps:
        raise AssertionError(f"{spec.definition.name} has no step {step}: it has {', '.join(spec.saga.steps)}")
    return spec.saga.steps[step]
