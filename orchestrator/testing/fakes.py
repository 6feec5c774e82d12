"""Fake participants for a rehearsal: what they answer is a script, and how they answer is the protocol. No I/O.

A script says what a command is answered: a reply, a `Refused`, SILENCE, a function of the command that returns or
raises one of these, or a list of them for one asking after another (the last one stands for all that follow).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Any, Final, TypeAlias

from orchestrator.definition import Saga, base_name
from orchestrator.events import Answered
from orchestrator.machine import Dispatch
from orchestrator.steps import Signal
from outbox.contracts import Command, Message, Refused, Reply

__tracebackhide__ = True


class CannotRehearse(Exception):
    """The script of a rehearsal does not fit the saga, or the saga does not come to an end. Says what to change."""


class Silence(Enum):
    """No answer, ever."""

    SILENCE = "silence"


SILENCE: Final = Silence.SILENCE
"""The command is lost, or its answer is: nobody knows."""


@dataclass(frozen=True, slots=True)
class Late:
    """An answer that takes its time. Make it with `late()`."""

    by: timedelta
    answer: Any


def late(by: timedelta, answer: "Answer | Signal") -> Late:
    """This answer, or this signal, so much later."""
    return Late(by, answer)


Answer: TypeAlias = Reply | Refused | Silence | Late | Callable[[Any], Reply | Refused | Silence | Late]
"""What a participant says to a command."""

Script: TypeAlias = Mapping[type[Command[Any]] | str, Answer | Sequence[Answer]]
"""By the type of the command; by the step's name (`book-room`, or `book-room[1]` for one of several); or by the step's
name and `/undo` for its undo. A step's name goes before a type, and an instance's before its step's.
"""

SignalAnswer: TypeAlias = Signal | Refused | Silence | Late
SignalScript: TypeAlias = Mapping[type[Signal] | str, SignalAnswer | Sequence[SignalAnswer]]
"""By the type of the signal, or by the name of the step: what it gets when its turn has come."""


@dataclass(slots=True)
class Inbox:
    """What participants remember: the answer to every command that they have handled, tombstones included."""

    answers: dict[str, Answered] = field(default_factory=dict)

    def handle(self, sent: Dispatch, carry_out: Callable[[], Answered | None]) -> Answered | None:
        """The stored answer to a command that was handled before; else `carry_out` it, and remember the answer.

        An undo that comes before its do leaves a tombstone, which the do then finds. To what was refused there is
        nothing to undo.
        """
        if sent.command_id not in self.answers:
            answer = self._answer(sent, carry_out)
            if answer is None:
                return None
            self.answers[sent.command_id] = answer
        return self.answers[sent.command_id]

    def _answer(self, sent: Dispatch, carry_out: Callable[[], Answered | None]) -> Answered | None:
        undone = None if sent.undoes is None else self.answers.get(sent.undoes)
        if undone is not None and undone.outcome == "refused":
            return Answered(sent.command_id, "done")
        answer = carry_out()
        if sent.undoes is not None and undone is None and answer is not None and answer.outcome == "done":
            self.answers[sent.undoes] = Answered(sent.undoes, "refused", {"code": "undone", "reason": "undone before"})
        return answer


def spoken(answer: Any, sent: Dispatch) -> Answered | None:
    """What is on the wire: an answer to this command, or nothing. Raises CannotRehearse for what is no answer to it."""
    if answer is SILENCE:
        return None
    if isinstance(answer, Refused):
        return Answered(sent.command_id, "refused", {"code": answer.code, "reason": answer.reason})
    expected = sent.command.reply
    if not isinstance(answer, expected):
        name = type(sent.command).__name__
        raise CannotRehearse(
            f"{name} is answered by {expected.__name__} or Refused, not by {answer!r}; mend the script"
        )
    return Answered(sent.command_id, "done", answer.model_dump(mode="json"))


def unhurried(answer: Any, command: Command[Any] | None = None) -> tuple[timedelta, Any]:
    """(how long it takes, the answer itself): a function is called, and what is late is taken out of its wrapping."""
    taken = timedelta(0)
    while isinstance(answer, Late) or (callable(answer) and command is not None):
        if isinstance(answer, Late):
            taken, answer = taken + answer.by, answer.answer
            continue
        try:
            answer = answer(command)
        except Refused as refusal:
            answer = refusal
    return taken, answer


def choose(script: Mapping[Any, Any], keys: Iterable[Any], attempt: int) -> Any:
    """What a script says under the first of these keys that it has, to this attempt; None when it says nothing."""
    found = next((script[key] for key in keys if key in script), None)
    if not isinstance(found, list | tuple):
        return found
    return found[min(attempt, len(found)) - 1]


def keys_of(sent: Dispatch) -> list[Any]:
    """Under which keys a script may speak of a command, the most exact one first."""
    instance = sent.command_id.split("/")[1]
    suffix = "" if sent.undoes is None else "/undo"
    return [instance + suffix, base_name(instance) + suffix, type(sent.command)]


def default_answer(sent: Dispatch) -> Message:
    """ "Done", with nothing in it. Raises CannotRehearse when the reply must have something in it."""
    reply = sent.command.reply
    needed = [name for name, field in reply.model_fields.items() if field.is_required()]
    if not needed:
        return reply()
    key = keys_of(sent)[0]
    values = ", ".join(f"{name}=…" for name in needed)
    raise CannotRehearse(
        f"the script has no answer for step {key}, and {reply.__name__} needs one; "
        f'add {{"{key}": {reply.__name__}({values})}}, or under {type(sent.command).__name__}'
    )


def check(definition: Saga[Any], answers: Mapping[Any, Any], signals: Mapping[Any, Any]) -> None:
    """A script speaks of what there is. Raises CannotRehearse."""
    specs = [spec for saga in family(definition) for spec in saga.steps.values()]
    steps = {spec.name for spec in specs if spec.command}
    undos = {f"{spec.name}/undo" for spec in specs if spec.undo}
    commands = {one for spec in specs for one in (spec.command, spec.undo_command) if one}
    waits = {spec.name for spec in specs if spec.signal} | {spec.signal for spec in specs if spec.signal}
    _check_keys("answers", answers, steps | undos | commands, definition)
    _check_keys("signals", signals, waits, definition)


def family(definition: Saga[Any]) -> list[Saga[Any]]:
    """A saga, its children, their children."""
    children = (spec.child for spec in definition.steps.values() if spec.child is not None)
    return [definition, *(one for child in children for one in family(child))]


def _check_keys(what: str, script: Mapping[Any, Any], known: set[Any], definition: Saga[Any]) -> None:
    for key, value in script.items():
        if _general(key) not in known:
            names = ", ".join(sorted(name for name in known if isinstance(name, str)))
            raise CannotRehearse(
                f"{what} speaks of {_name(key)}, which {definition.name} does not have; it has: {names or 'none'}"
            )
        if isinstance(value, list | tuple) and not value:
            raise CannotRehearse(f"{what} has an empty list for {_name(key)}; leave it out, or say SILENCE")


def _general(key: Any) -> Any:
    """`book-room[1]/undo` -> `book-room/undo`."""
    if not isinstance(key, str):
        return key
    name, slash, undo = key.partition("/")
    return base_name(name) + slash + undo


def _name(key: Any) -> str:
    return key if isinstance(key, str) else getattr(key, "__name__", repr(key))
