"""The published language of the inventory service."""

from pydantic import Field

from outbox.contracts import Command, Event, Message, Reply


class StockLine(Message):
    """So many of one article."""

    sku: str
    quantity: int = Field(gt=0)


class StockReserved(Reply):
    """The articles are set aside under the reservation's id."""


class StockReleased(Reply):
    """The articles are on the shelf again."""


class StockSold(Reply):
    """The articles have left the books."""


class ReserveStock(Command[StockReserved], participant="inventory"):
    """Set articles aside. All lines or none: refused when one of them is short."""

    reservation_id: str
    lines: tuple[StockLine, ...]


class ReleaseStock(Command[StockReleased], participant="inventory"):
    """Undo ReserveStock."""

    reservation_id: str


class SellStock(Command[StockSold], participant="inventory"):
    """Turn what was set aside into what was sold."""

    reservation_id: str


class StockWasReserved(Event, type="stock.reserved"):
    """Articles were set aside."""

    reservation_id: str


class StockWasReleased(Event, type="stock.released"):
    """Articles were put back."""

    reservation_id: str


class StockWasSold(Event, type="stock.sold"):
    """Articles were sold."""

    reservation_id: str
