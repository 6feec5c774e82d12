"""What the order service does."""

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Final

from outbox.contracts import Refused
from participants.order.contracts import (
    ConfirmOrder,
    OpenOrder,
    OrderConfirmed,
    OrderOpened,
    OrderRejected,
    OrderWasConfirmed,
    OrderWasCreated,
    OrderWasRejected,
    RejectOrder,
)
from participants.order.models import Order, participant
from participants.runtime import Key, Work

MAX_TOTAL: Final = Decimal(10**12)


def the_order(command: OpenOrder | RejectOrder | ConfirmOrder) -> Iterable[Key]:
    """The order that the command is about."""
    return [Key(Order, command.order_id)]


@participant.handles(OpenOrder, needs=the_order)
def open_order(command: OpenOrder, work: Work) -> OrderOpened:
    """A rejected order may be placed again; a pending or confirmed one may not."""
    existing = work.get(Order, command.order_id)
    if existing is not None and existing.status != "rejected":
        raise Refused("duplicate-order", f"order {command.order_id} is already {existing.status}")
    total = sum((line.unit_price * line.quantity for line in command.lines), Decimal(0))
    if total > MAX_TOTAL:
        raise Refused("too-large", f"the total of order {command.order_id}, {total}, is more than {MAX_TOTAL:,}")
    work.put(
        Order(
            order_id=command.order_id,
            placement_id=command.placement_id,
            customer_id=command.customer_id,
            lines=[line.model_dump(mode="json") for line in command.lines],
            currency=command.currency,
            total=total,
            status="pending",
        )
    )
    work.publish(OrderWasCreated(order_id=command.order_id, customer_id=command.customer_id))
    return OrderOpened()


@participant.handles(RejectOrder, needs=the_order)
def reject_order(command: RejectOrder, work: Work) -> OrderRejected:
    """Undo of open_order."""
    order = _locked_order(command, work)
    if order.status == "confirmed":
        raise Refused("order-confirmed", f"order {order.order_id} is confirmed and cannot be rejected")
    work.put(replace(order, status="rejected"))
    work.publish(OrderWasRejected(order_id=order.order_id))
    return OrderRejected()


@participant.handles(ConfirmOrder, needs=the_order)
def confirm_order(command: ConfirmOrder, work: Work) -> OrderConfirmed:
    """Lift the lock: from now on the order's facts are final."""
    order = _locked_order(command, work)
    if order.status == "rejected":
        raise Refused("order-rejected", f"order {order.order_id} is rejected and cannot be confirmed")
    work.put(replace(order, status="confirmed"))
    work.publish(OrderWasConfirmed(order_id=order.order_id))
    return OrderConfirmed()


def _locked_order(command: RejectOrder | ConfirmOrder, work: Work) -> Order:
    """The order, if it is this placement's."""
    order = work.get(Order, command.order_id)
    if order is None:
        raise Refused("unknown-order", f"there is no order {command.order_id}")
    if order.placement_id != command.placement_id:
        raise Refused("foreign-order", f"order {command.order_id} belongs to placement {order.placement_id}")
    return order
