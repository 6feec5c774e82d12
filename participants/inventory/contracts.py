"""The published language of the inventory service."""

from typing import Annotated

from pydantic import Field

from outbox.contracts import Command, Event, Message, Reply

Name = Annotated[str, Field(min_length=1, max_length=100)]
Reference = Annotated[str, Field(min_length=1, max_length=64)]
"""An id that the caller mints, and undoes by."""


class StockLine(Message):
    """So many of one article."""

    sku: Name
    quantity: int = Field(gt=0, le=1_000_000)


class StockReserved(Reply):
    """The articles are set aside under the reservation's id."""


class StockReleased(Reply):
    """The articles are on the shelf again."""


class StockSold(Reply):
    """The articles have left the books."""


class ReserveStock(Command[StockReserved], participant="inventory"):
    """Set articles aside. All lines or none: refused when one of them is short."""

    reservation_id: Reference
    lines: Annotated[tuple[StockLine, ...], Field(max_length=500)]


class ReleaseStock(Command[StockReleased], participant="inventory"):
    """Undo ReserveStock."""

    reservation_id: Reference


class SellStock(Command[StockSold], participant="inventory"):
    """Turn what was set aside into what was sold."""

    reservation_id: Reference


class StockWasReserved(Event, type="stock.reserved"):
    """Articles were set aside."""

    reservation_id: Reference


class StockWasReleased(Event, type="stock.released"):
    """Articles were put back."""

    reservation_id: Reference


class StockWasSold(Event, type="stock.sold"):
    """Articles were sold."""

    reservation_id: Reference
