"""The sagas on which mutants are hunted: small ones that have, together, everything that a saga can have."""

from datetime import timedelta
from typing import Final

from orchestrator.definition import (
    Policy,
    Saga,
    SagaData,
    Signal,
    child,
    delay,
    parallel,
    reversible,
    reversible_each,
    step,
    step_each,
    wait_for,
)
from orchestrator.explorer import Bounds
from outbox.contracts import Command, Reply


class Shape(SagaData):
    """The explorer looks at shapes, not at data."""


class Fine(Reply):
    """A yes."""


class Work(Command[Fine], participant="worker"):
    """Something to do or to undo."""


class Approval(Signal):
    """A person says yes or no, before the pivot."""


class Receipt(Signal):
    """A person says yes or no, after the pivot."""


def first(_data: Shape) -> Work:
    return Work()


def second(_data: Shape) -> Work:
    return Work()


def third(_data: Shape) -> Work:
    return Work()


def pivot(_data: Shape) -> Work:
    return Work()


def last(_data: Shape) -> Work:
    return Work()


def undo(_data: Shape) -> Work:
    return Work()


def one_of_many(_data: Shape, _item: int) -> Work:
    return Work()


def undo_one(_data: Shape, _item: int) -> Work:
    return Work()


def always(_data: Shape) -> bool:
    return True


def many(_data: Shape) -> range:
    return range(2)


MINUTE: Final = timedelta(minutes=1)
FOR_EVER: Final = Policy(attempts=None)

TINY = Saga(
    name="tiny", data=Shape, reversible=(reversible(first, undo=undo),), pivot=step(pivot), retriable=(step(last),)
)
"""One of each kind."""

SMALL = Saga(
    name="small",
    data=Shape,
    reversible=(
        reversible(first, undo=undo),
        parallel(reversible(second, undo=undo), reversible(third, undo=undo)),
    ),
    pivot=step(pivot),
    retriable=(step(last),),
)
"""Parallel branches in the middle."""

APPROVED = Saga(
    name="approved",
    data=Shape,
    reversible=(reversible(first, undo=undo), wait_for(Approval, timeout=MINUTE)),
    pivot=step(pivot),
    retriable=(wait_for(Receipt, timeout=MINUTE),),
    deadline=timedelta(hours=1),
)
"""Waits on both sides of the pivot, and a deadline."""

ASKED_FOR_EVER = Saga(
    name="asked-for-ever",
    data=Shape,
    reversible=(
        parallel(wait_for(Approval), delay("cooling-off", MINUTE)),
        reversible(first, undo=undo, policy=FOR_EVER, if_unknown="stick"),
    ),
    pivot=step(pivot, policy=Policy(not_retried=frozenset({"fraud"}))),
    retriable=(step(last, policy=Policy(attempts=None)), wait_for(Receipt, timeout=MINUTE, otherwise="proceed")),
)
"""No end to patience: a wait without a timeout, policies without an end."""

OPTIONAL = Saga(
    name="optional",
    data=Shape,
    reversible=(reversible(first, undo=undo), reversible(second, undo=undo, when=always, if_unknown="stick")),
    pivot=step(pivot),
    retriable=(step(last, when=always),),
)
"""Steps that may be skipped."""

PARTS = Saga(
    name="parts",
    data=Shape,
    reversible=(reversible(first, undo=undo), reversible_each(many, one_of_many, undo=undo_one)),
    pivot=None,
)
"""One step for each item, and no point of no return: a child."""

LIMITED = Saga(
    name="limited",
    data=Shape,
    reversible=(reversible_each(many, one_of_many, undo=undo_one, limit=1),),
    pivot=step(pivot),
    deadline=timedelta(hours=1),
)
"""One item at a time."""

SHIPPED = Saga(
    name="shipped",
    data=Shape,
    reversible=(reversible(first, undo=undo),),
    pivot=step(pivot),
    retriable=(step_each(many, one_of_many, limit=1, policy=Policy(not_retried=frozenset({"gone"}))),),
)
"""Items after the pivot."""

PARENT = Saga(
    name="parent",
    data=Shape,
    reversible=(parallel(child(PARTS, lambda data: data), wait_for(Approval, timeout=MINUTE, otherwise="stick")),),
    pivot=child(SHIPPED, lambda data: data),
    retriable=(step(last),),
)
"""Sagas as steps."""

SHAPES = (TINY, SMALL, APPROVED, ASKED_FOR_EVER, OPTIONAL, PARTS, LIMITED, SHIPPED, PARENT)

BOUNDS = Bounds(attempts=2, orders=1, states=60_000)
