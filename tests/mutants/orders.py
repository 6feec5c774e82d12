"""Mistakes about what people want, the deadline, and whoever started the saga."""

from dataclasses import replace
from typing import Any

from orchestrator import machine
from orchestrator.entries import (
    Asked,
    Begun,
    Compensated,
    CompensationStarted,
    Entry,
    Resumed,
    UndoneByHand,
    UndoOrdered,
)
from orchestrator.events import Cancelled, Resolved, ResumeOrdered, TimedOut
from orchestrator.machine import Decision
from orchestrator.model import Caller, Phase, Saga
from tests.mutants.planting import Decider, Mutant
from tests.mutants.shapes import APPROVED, LIMITED, OPTIONAL, PARTS, TINY

RIGHT_CONCLUDE = Decider.conclude
RIGHT_TIME_OUT = Decider.time_out
RIGHT_UNDO_ALL = Decider.undo_all
RIGHT_OBEY = Decider.obey
RIGHT_CANCEL = Decider.cancel
RIGHT_EVOLVE = machine.evolve


def _heedless(decider: Any, method: Any, *arguments: Any) -> Decision:
    """What a method decides when it does not know that the saga is paused."""
    paused = decider._saga.paused
    decider._saga = replace(decider._saga, paused=None)
    decision: Decision = method(decider, *arguments)
    return replace(decision, saga=replace(decision.saga, paused=decision.saga.paused or paused))


def _go_on_although_paused(decider: Any, entries: Any = ()) -> Decision:
    wanted = list(entries)
    if any(isinstance(entry, Resumed) for entry in wanted):
        return RIGHT_CONCLUDE(decider, wanted)  # type: ignore[no-any-return]
    return _heedless(decider, RIGHT_CONCLUDE, wanted)


def _time_out_although_paused(decider: Any, name: str, event: TimedOut) -> Decision:
    return _heedless(decider, RIGHT_TIME_OUT, name, event)


def _resume_and_do_nothing(decider: Any, order: Any) -> Decision:
    if isinstance(order, ResumeOrdered) and decider._saga.paused:
        decider._write(Resumed(order.by, order.reason))
        return Decision(decider._saga, tuple(decider._entries))
    return RIGHT_OBEY(decider, order)  # type: ignore[no-any-return]


def _there_is_always_a_way_back(_decider: Any) -> None:
    return None


def _cancel_only_what_runs(decider: Any, order: Cancelled) -> Decision:
    if decider._saga.stuck:
        return Decision(decider._saga, ignored="it is stuck")
    return RIGHT_CANCEL(decider, order)  # type: ignore[no-any-return]


def _retry_only_forgives(decider: Any, entry: Any) -> Decision:
    decider._write(entry)
    return decider.conclude()  # type: ignore[no-any-return]


def _by_hand_means_undone(decider: Any, name: str, order: Resolved) -> str | None:
    decider._write(UndoneByHand(name, order.by, order.reason))
    return None


def _answer_before_it_is_undone(decider: Any, caller: Caller) -> Decision:
    if decider._saga.phase is not Phase.COMPLETED:
        return RIGHT_UNDO_ALL(decider, caller)  # type: ignore[no-any-return]
    entries = [UndoOrdered(caller), CompensationStarted("whoever started it undoes it"), Compensated()]
    return decider.conclude(entries)  # type: ignore[no-any-return]


def _undo_whatever_has_completed(decider: Any, caller: Caller) -> Decision:
    started = CompensationStarted("whoever started it undoes it")
    return decider.conclude([UndoOrdered(caller), started])  # type: ignore[no-any-return]


def _undo_nothing_that_has_completed(decider: Any, caller: Caller) -> Decision:
    if decider._saga.phase is Phase.COMPLETED:
        return Decision(decider._saga, ignored="it has completed")
    return RIGHT_UNDO_ALL(decider, caller)  # type: ignore[no-any-return]


def _the_deadline_never_ends(saga: Saga, entry: Entry) -> Saga:
    return RIGHT_EVOLVE(saga, replace(entry, no_return=False) if isinstance(entry, Asked) else entry)


def _no_deadline_for_those_that_waited(saga: Saga, entry: Entry) -> Saga:
    return RIGHT_EVOLVE(saga, Begun() if isinstance(entry, Begun) else entry)


def _the_deadline_is_not_looked_at(decider: Any) -> Decision:
    return Decision(decider._saga, ignored="there is time")


def _the_deadline_kills(decider: Any) -> Decision:
    due = decider._saga.deadline_at
    if due is None or decider._now < due or decider._saga.phase is not Phase.RUNNING or decider._saga.paused:
        return Decision(decider._saga, ignored="no deadline runs")
    return decider.conclude([CompensationStarted("too late"), Compensated()])  # type: ignore[no-any-return]


EVERYTHING_CAN_BE_UNDONE = frozenset({Phase.COMPENSATED})

MUTANTS = (
    Mutant("a paused saga goes on", decider={"conclude": _go_on_although_paused}),
    Mutant("a paused saga asks again", decider={"time_out": _time_out_although_paused}),
    Mutant("a resumed saga does nothing", decider={"obey": _resume_and_do_nothing}),
    Mutant("a cancel turns back after the pivot", decider={"_no_way_back": _there_is_always_a_way_back}, shape=TINY),
    Mutant("what is stuck cannot be cancelled", decider={"cancel": _cancel_only_what_runs}, shape=OPTIONAL),
    Mutant("a retry asks nothing", decider={"retry": _retry_only_forgives}),
    Mutant("done by hand is taken for undone", decider={"_resolve": _by_hand_means_undone}, shape=TINY),
    Mutant("an undo of the whole is answered at once", decider={"undo_all": _answer_before_it_is_undone}, shape=PARTS),
    Mutant(
        "a completed saga with a pivot is undone",
        {"ENDED": EVERYTHING_CAN_BE_UNDONE},
        decider={"undo_all": _undo_whatever_has_completed},
        shape=TINY,
    ),
    Mutant("a completed child is not undone", decider={"undo_all": _undo_nothing_that_has_completed}, shape=PARTS),
    Mutant("the deadline counts after the pivot", {"evolve": _the_deadline_never_ends}, shape=APPROVED),
    Mutant("what had to wait has no deadline", {"evolve": _no_deadline_for_those_that_waited}, shape=LIMITED),
    Mutant("the deadline is not looked at", decider={"pass_deadline": _the_deadline_is_not_looked_at}, shape=APPROVED),
    Mutant("the deadline kills", decider={"pass_deadline": _the_deadline_kills}, shape=APPROVED),
)
