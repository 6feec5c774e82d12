"""The published language of the order service."""

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from outbox.contracts import Command, Event, Message, Reply

Price = Annotated[Decimal, Field(ge=0, max_digits=14, decimal_places=4, allow_inf_nan=False)]
"""An exact amount of money."""


class OrderLine(Message):
    """So many of one article, at this price each."""

    sku: str
    quantity: int = Field(gt=0)
    unit_price: Price


class OrderOpened(Reply):
    """The order is there, pending: its semantic lock is set."""


class OrderRejected(Reply):
    """The order is rejected, and its lock is lifted."""


class OrderConfirmed(Reply):
    """The order is confirmed, and its lock is lifted."""


class OpenOrder(Command[OrderOpened], participant="order"):
    """Open an order as pending. Refused when an order of this id is already pending or confirmed."""

    order_id: str
    placement_id: str
    customer_id: str
    lines: tuple[OrderLine, ...]
    currency: str


class RejectOrder(Command[OrderRejected], participant="order"):
    """Undo OpenOrder."""

    order_id: str
    placement_id: str


class ConfirmOrder(Command[OrderConfirmed], participant="order"):
    """Confirm a pending order."""

    order_id: str
    placement_id: str


class OrderWasCreated(Event, type="order.created"):
    """A pending order exists."""

    order_id: str
    customer_id: str


class OrderWasRejected(Event, type="order.rejected"):
    """A pending order was rejected."""

    order_id: str


class OrderWasConfirmed(Event, type="order.confirmed"):
    """A pending order was confirmed."""

    order_id: str
