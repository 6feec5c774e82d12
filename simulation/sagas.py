"""The sagas that are simulated: small ones that have, together, everything that a saga can have.

The steps are those of the services that come with Amends, so that the real auditors judge what is left.
"""

from datetime import timedelta
from decimal import Decimal
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
from orchestrator.registry import Definitions
from orchestrator.sagas.place_order import (
    PlaceOrder,
    authorise_payment,
    capture_payment,
    confirm_order,
    keep_authorisation,
    open_order,
    reject_order,
    release_stock,
    reserve_stock,
    sell_stock,
    void_payment,
)
from participants.inventory.contracts import ReleaseStock, ReserveStock, SellStock, StockLine

SECOND: Final = timedelta(seconds=1)

HASTY: Final = Policy(timeout=SECOND, attempts=2, factor=2.0, cap=10 * SECOND)
"""Gives up soon: what is reversible is undone because it may have happened."""

PATIENT: Final = Policy(timeout=2 * SECOND, attempts=5, factor=2.0, cap=15 * SECOND)
UNTIRING: Final = Policy(timeout=3 * SECOND, attempts=None, factor=1.5, cap=20 * SECOND)


class Approval(Signal):
    """A person says yes or no, before the pivot."""


class Receipt(Signal):
    """A person says yes, after the pivot."""


class Parts(SagaData):
    """So many things to set aside."""

    sku: str
    count: int


def each_part(data: PlaceOrder) -> range:
    """One for each line and one more."""
    return range(len(data.lines) + 1)


def reserve_part(data: PlaceOrder, item: int) -> ReserveStock:
    """Set one of them aside."""
    line = data.lines[0]
    return ReserveStock(reservation_id=f"{data.saga_id}/{item}", lines=(StockLine(sku=line.sku, quantity=1),))


def release_part(data: PlaceOrder, item: int) -> ReleaseStock:
    """Undo of reserve_part."""
    return ReleaseStock(reservation_id=f"{data.saga_id}/{item}")


def sell_part(data: PlaceOrder, item: int) -> SellStock:
    """What was set aside is sold."""
    return SellStock(reservation_id=f"{data.saga_id}/{item}")


def each_thing(data: Parts) -> range:
    """All of them."""
    return range(data.count)


def reserve_thing(data: Parts, item: int) -> ReserveStock:
    """Set one of them aside."""
    return ReserveStock(reservation_id=f"{data.saga_id}/{item}", lines=(StockLine(sku=data.sku, quantity=1),))


def release_thing(data: Parts, item: int) -> ReleaseStock:
    """Undo of reserve_thing."""
    return ReleaseStock(reservation_id=f"{data.saga_id}/{item}")


def parts_of(data: PlaceOrder) -> Parts:
    """What the child is to set aside."""
    return Parts(sku=data.lines[0].sku, count=2)


def reserve_gift(data: PlaceOrder) -> ReserveStock:
    """Something that there may be too little of."""
    return ReserveStock(reservation_id=f"{data.saga_id}/gift", lines=(StockLine(sku="gift", quantity=1),))


def sell_gift(data: PlaceOrder) -> SellStock:
    """What was set aside is given away."""
    return SellStock(reservation_id=f"{data.saga_id}/gift")


def is_large(data: PlaceOrder) -> bool:
    """Whether somebody should look at it."""
    return data.total > Decimal(15)


place_order = Saga(
    name="place-order",
    data=PlaceOrder,
    reversible=(
        reversible(open_order, undo=reject_order, policy=HASTY, undo_policy=PATIENT),
        reversible(reserve_stock, undo=release_stock, policy=HASTY, undo_policy=PATIENT),
        reversible(authorise_payment, undo=void_payment, then=keep_authorisation, policy=PATIENT, undo_policy=UNTIRING),
    ),
    pivot=step(capture_payment, policy=PATIENT),
    retriable=(step(sell_stock, policy=UNTIRING), step(confirm_order, policy=PATIENT)),
)
"""The saga of the product."""

approved_order = Saga(
    name="approved-order",
    data=PlaceOrder,
    reversible=(
        parallel(
            reversible(open_order, undo=reject_order, policy=HASTY, undo_policy=PATIENT),
            reversible(reserve_stock, undo=release_stock, policy=PATIENT, undo_policy=PATIENT),
        ),
        wait_for(Approval, timeout=40 * SECOND, when=is_large),
        reversible(authorise_payment, undo=void_payment, policy=HASTY, undo_policy=PATIENT, if_unknown="stick"),
    ),
    pivot=step(capture_payment, policy=HASTY),
    retriable=(
        parallel(step(sell_stock, policy=PATIENT), step(confirm_order, policy=HASTY)),
        wait_for(Receipt, timeout=20 * SECOND, otherwise="proceed"),
    ),
    deadline=timedelta(minutes=2),
)
"""Parallel branches, waits on both sides of the pivot, a deadline."""

part_order = Saga(
    name="part-order",
    data=PlaceOrder,
    reversible=(
        reversible_each(each_part, reserve_part, undo=release_part, limit=2, policy=HASTY, undo_policy=PATIENT),
        delay("cooling-off", 5 * SECOND),
        reversible(authorise_payment, undo=void_payment, policy=PATIENT, undo_policy=PATIENT),
    ),
    pivot=step(capture_payment, policy=UNTIRING),
    retriable=(step_each(each_part, sell_part, limit=1, policy=PATIENT),),
    max_in_flight=1,
)
"""One step for each item, a delay, one saga at a time."""

set_aside = Saga(
    name="set-aside",
    data=Parts,
    reversible=(reversible_each(each_thing, reserve_thing, undo=release_thing, policy=PATIENT, undo_policy=PATIENT),),
    pivot=None,
)
"""A child: it has no point of no return."""

parent_order = Saga(
    name="parent-order",
    data=PlaceOrder,
    reversible=(
        parallel(
            child(set_aside, parts_of, policy=HASTY, undo_policy=UNTIRING),
            reversible(open_order, undo=reject_order, policy=HASTY, undo_policy=PATIENT),
        ),
        reversible(authorise_payment, undo=void_payment, policy=HASTY, undo_policy=PATIENT),
    ),
    pivot=step(capture_payment, policy=PATIENT),
    retriable=(step(confirm_order, policy=PATIENT),),
)
"""A saga as a step."""

kit_order = Saga(
    name="kit-order",
    data=PlaceOrder,
    reversible=(
        child(set_aside, parts_of, policy=UNTIRING, undo_policy=UNTIRING),
        reversible(authorise_payment, undo=void_payment, policy=HASTY, undo_policy=PATIENT),
    ),
    pivot=step(capture_payment, policy=PATIENT),
    retriable=(step(reserve_gift, policy=PATIENT), step(sell_gift, policy=HASTY)),
)
"""A child that is waited for; and a step after the pivot that is refused until there is enough in stock."""

DEFINITIONS: Final = Definitions((place_order, approved_order, part_order, parent_order, kit_order))

ORDERED: Final = (
    "place-order",
    "place-order",
    "approved-order",
    "part-order",
    "part-order",
    "parent-order",
    "kit-order",
)
"""Which of them is ordered how often."""
