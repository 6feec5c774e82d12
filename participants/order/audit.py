"""The proof that the order service kept its promises."""

from collections.abc import AsyncIterator, Mapping, Sequence

from sqlalchemy import select

from outbox.database import Database
from participants.order.models import Order
from participants.runtime.audit import Effect, Finding, effects_of, ids_in_batches

EFFECTS: Mapping[str, Effect] = {"pending": "partial", "confirmed": "applied", "rejected": "none"}


class OrderAuditor:
    """Audits orders."""

    participant = "order"

    def __init__(self, database: Database) -> None:
        self._database = database

    async def books(self) -> AsyncIterator[Finding]:
        """An order is pending, confirmed or rejected, and nothing else."""
        table = Order.table
        strange = select(table.c.order_id, table.c.status).where(table.c.status.not_in(EFFECTS))
        async with self._database.reading() as connection:
            rows = (await connection.execute(strange)).all()
        for row in rows:
            yield Finding(
                "order-status",
                f"order {row.order_id} has the status {row.status!r}",
                rows=(f"orders/{row.order_id}",),
            )

    def holders(self) -> AsyncIterator[list[str]]:
        """Whoever has an effect that was not undone."""
        table = Order.table
        return ids_in_batches(self._database, table.c.placement_id, table.c.status != "rejected")

    async def effects(self, saga_ids: Sequence[str]) -> Mapping[str, Effect]:
        """By the status of the order that the placement holds."""
        table = Order.table
        return await effects_of(self._database, table.c.placement_id, table.c.status, EFFECTS, saga_ids)
