"""What can happen next: to a command on its way, to the saga, or because a person wants it. Values only, no I/O."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

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
from orchestrator.explorer.skeleton import NEVER, Choice
from orchestrator.model import Caller, Saga

SAGA_ID: Final = "saga-1"
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
DUE: Final = START + timedelta(hours=1)
"""When every timer is due: only whether one is due matters to the machine, never when."""

LATER: Final = DUE + timedelta(hours=1)
"""When the deadline passes: timers fire before it, and after it. What has passed is set to START."""

DONE: Final = "done"
REFUSED: Final = "refused"
REFUSED_FOR_GOOD: Final = "refused for good"

PARENT: Final = Caller("parent/child/undo", "saga.reply.parent")


class Move(NamedTuple):
    """One thing that happens. `name` is a command or a step; `chosen`: what the definition's functions said to it."""

    kind: str
    name: str = ""
    outcome: str = ""
    chosen: tuple[tuple[str, Choice], ...] = ()

    def __str__(self) -> str:
        said = "".join(f"; {step}: {_said(value)}" for step, value in self.chosen)
        return TEXTS[self.kind].format(name=short(self.name), outcome=self.outcome) + said


@lru_cache(maxsize=100_000)
def move_of(kind: str, name: str = "", outcome: str = "") -> Move:
    """A move; the same one for the same words, for there are many."""
    return Move(kind, name, outcome)


TEXTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "start": "the saga starts",
        "accept": "the saga is accepted, and has to wait",
        "reply": "the reply to {name} arrives: {outcome}",
        "timer": "the timer of {name} fires",
        "signal": "{name} is signalled: {outcome}",
        "deadline": "the deadline passes",
        "late": "the deadline passes, and nobody looks yet",
        "admit": "the saga is admitted",
        "undo-all": "whoever started the saga wants it undone",
        "foreign-reply": "a reply to another saga's {name} arrives",
        "old-timer": "a timer of an earlier attempt of {name} fires",
        "early-timer": "the timer of {name} fires too early",
        "cancel": "a person cancels the saga",
        "cancel-for-sure": "a person cancels the saga, and has seen to it that {name} does not happen",
        "pause": "a person pauses the saga",
        "resume": "a person resumes the saga",
        "retry": "a person orders a retry",
        "done-by-hand": "a person has looked: {name} is done",
        "undone-by-hand": "a person has seen to it that nothing is left of {name}",
    }
)
"""What a move says, by its kind."""

WISHES: Final = frozenset({"cancel", "pause", "undo-all"})
"""What nobody needs to do: an end must be within reach without it."""

MEANINGLESS: Final = frozenset({"foreign-reply", "old-timer", "early-timer"})
"""What changes nothing, whenever it happens."""


class Sent(NamedTuple):
    """What a command id says."""

    step: str
    direction: str
    round: int


@lru_cache(maxsize=10_000)
def parts(command: str) -> Sent:
    """`saga-1/open-order/do/2` -> open-order, do, 2."""
    _, step, direction, *round = command.split("/")
    return Sent(step, direction, int(round[0]) if round else 1)


def short(command: str) -> str:
    """A command id without its saga."""
    return command.removeprefix(f"{SAGA_ID}/")


def quoted(text: str) -> str:
    """A text as it stands in a program."""
    return json.dumps(str(text))


def event_of(move: Move, saga: Saga) -> Event:
    """What the machine is told when this happens."""
    return _EVENTS[move.kind](move, saga)


def time_of(move: Move) -> datetime:
    """When it happens: when what is due is due, or before."""
    return LATER if move.kind == "deadline" else DUE if move.kind in ("timer", "old-timer") else START


def _reply(move: Move, _saga: Saga) -> Event:
    if move.outcome == DONE:
        return Answered(move.name, "done")
    code = NEVER if move.outcome == REFUSED_FOR_GOOD else "refused"
    return Answered(move.name, "refused", {"code": code, "reason": move.outcome})


def _foreign_reply(move: Move, _saga: Saga) -> Event:
    return Answered(f"another/{short(move.name)}", "done")


def _timer(move: Move, saga: Saga) -> Event:
    return TimedOut(saga.command_id(move.name), saga.steps[move.name].attempt)


def _old_timer(move: Move, saga: Saga) -> Event:
    return TimedOut(saga.command_id(move.name), saga.steps[move.name].attempt - 1)


def _signal(move: Move, _saga: Saga) -> Event:
    if move.outcome == DONE:
        return Signalled(move.name, "done", {}, "somebody")
    return Signalled(move.name, "refused", {"reason": "no"}, "somebody")


_EVENTS: Final[Mapping[str, Callable[[Move, Saga], Event]]] = MappingProxyType(
    {
        "reply": _reply,
        "timer": _timer,
        "signal": _signal,
        "deadline": lambda _move, _saga: DeadlinePassed(),
        "admit": lambda _move, _saga: Admitted(),
        "undo-all": lambda _move, _saga: UndoRequested(PARENT),
        "foreign-reply": _foreign_reply,
        "old-timer": _old_timer,
        "early-timer": _timer,
        "cancel": lambda _move, _saga: Cancelled("ada", "it is not wanted"),
        "cancel-for-sure": lambda _move, _saga: Cancelled("ada", "it did not happen", pivot_did_not_happen=True),
        "pause": lambda _move, _saga: PauseOrdered("ada", "to look"),
        "resume": lambda _move, _saga: ResumeOrdered("ada", "it was looked at"),
        "retry": lambda _move, _saga: Retried("ada", "it is mended"),
        "done-by-hand": lambda move, _saga: Resolved("ada", "it was looked at", move.name),
        "undone-by-hand": lambda move, _saga: Resolved("ada", "it was looked at", move.name),
    }
)


def _said(value: Choice) -> str:
    if isinstance(value, bool):
        return "its condition holds" if value else "its condition does not hold"
    return f"{value} items" if value else "no items"
