"""Bring stock in."""

from collections.abc import Mapping

from outbox.database import Database
from participants.inventory.models import Stock
from participants.runtime import Key
from participants.runtime.rows import Rows


class NotEnoughStock(Exception):
    """A new quantity that is less than what is already reserved or sold."""


async def seed_stock(database: Database, quantities: Mapping[str, int]) -> None:
    """Let each article have had so many in all. Doing it twice changes nothing."""
    async with database.transaction() as connection:
        rows = Rows(database, connection)
        await rows.read(Key(Stock, sku) for sku in quantities)
        work = rows.open_work()
        for sku, quantity in quantities.items():
            stock = work.get(Stock, sku) or Stock(sku, 0, 0, 0, 0)
            available = quantity - stock.reserved - stock.sold
            if available < 0:
                raise NotEnoughStock(
                    f"article {sku}: {stock.reserved} reserved and {stock.sold} sold are more than {quantity}"
                )
            work.put(Stock(sku, quantity, available, stock.reserved, stock.sold))
        rows.take(work)
        await rows.write()
