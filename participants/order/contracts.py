"""The published language of the order service."""

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from outbox.contracts import Command, Event, Message, Reply

Name = Annotated[str, Field(min_length=1, max_length=100)]
Reference = Annotated[str, Field(min_length=1, max_length=64)]
"""An id that the caller mints, and undoes by."""
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$")]
Price = Annotated[Decimal, Field(ge=0, max_digits=14, decimal_places=4, allow_inf_nan=False)]
"""An exact amount of money."""


class OrderLine(Message):
    """So many of one article, at this price each."""

    sku: Name
    quantity: int = Field(gt=0, le=1_000_000)
    unit_price: Price


class OrderOpened(Reply):
    """The order is there, pending: its semantic lock is set."""


class OrderRejected(Reply):
    """The order is rejected, and its lock is lifted."""


class OrderConfirmed(Reply):
    """The order is confirmed, and its lock is lifted."""


class OpenOrder(Command[OrderOpened], participant="order"):
    """Open an order as pending. Refused when an order of this id is already pending or confirmed."""

    order_id: Name
    placement_id: Reference
    customer_id: Name
    lines: Annotated[tuple[OrderLine, ...], Field(max_length=500)]
    currency: Currency


class RejectOrder(Command[OrderRejected], participant="order"):
    """Undo OpenOrder."""

    order_id: Name
    placement_id: Reference


class ConfirmOrder(Command[OrderConfirmed], participant="order"):
    """Confirm a pending order."""

    order_id: Name
    placement_id: Reference


class OrderWasCreated(Event, type="order.created"):
    """A pending order exists."""

    order_id: Name
    customer_id: Name


class OrderWasRejected(Event, type="order.rejected"):
    """A pending order was rejected."""

    order_id: Name


class OrderWasConfirmed(Event, type="order.confirmed"):
    """A pending order was confirmed."""

    order_id: Name
