"""The proof that the inventory service kept its promises."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence

from sqlalchemy import or_, select

from outbox.database import Database
from participants.inventory.models import Reservation, Stock
from participants.runtime.audit import Effect, Finding, effects_of, ids_in_batches

EFFECTS: Mapping[str, Effect] = {"held": "partial", "sold": "applied", "released": "none"}


class InventoryAuditor:
    """Audits stock and reservations."""

    participant = "inventory"

    def __init__(self, database: Database) -> None:
        self._database = database

    async def books(self) -> AsyncIterator[Finding]:
        """Stock is constant and never negative, and what is reserved or sold is what the reservations say."""
        stock, reservations = Stock.table, Reservation.table
        held: Counter[str] = Counter()
        sold: Counter[str] = Counter()
        async with self._database.reading() as connection:
            async for lines, status in await connection.stream(select(reservations.c.lines, reservations.c.status)):
                for sku, quantity in lines.items():
                    {"held": held, "sold": sold}.get(status, Counter())[sku] += quantity
            broken = select(stock).where(
                or_(
                    stock.c.available + stock.c.reserved + stock.c.sold != stock.c.seeded,
                    stock.c.available < 0,
                    stock.c.reserved < 0,
                    stock.c.sold < 0,
                )
            )
            unbalanced = (await connection.execute(broken)).all()
            articles = (await connection.execute(select(stock.c.sku, stock.c.reserved, stock.c.sold))).all()
        for row in unbalanced:
            yield Finding(
                "stock-is-constant",
                f"article {row.sku}: {row.available} available + {row.reserved} reserved + {row.sold} sold "
                f"is not the {row.seeded} that were seeded, or one of them is negative",
                rows=(f"stock/{row.sku}",),
            )
        for row in articles:
            if (row.reserved, row.sold) != (held[row.sku], sold[row.sku]):
                yield Finding(
                    "stock-matches-reservations",
                    f"article {row.sku}: {row.reserved} reserved and {row.sold} sold, "
                    f"but reservations hold {held[row.sku]} and sold {sold[row.sku]}",
                    rows=(f"stock/{row.sku}",),
                )

    def holders(self) -> AsyncIterator[list[str]]:
        """Whoever has an effect that was not undone."""
        table = Reservation.table
        return ids_in_batches(self._database, table.c.reservation_id, table.c.status != "released")

    async def effects(self, saga_ids: Sequence[str]) -> Mapping[str, Effect]:
        """By the status of the reservation."""
        table = Reservation.table
        return await effects_of(self._database, table.c.reservation_id, table.c.status, EFFECTS, saga_ids)
