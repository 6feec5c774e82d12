"""Suspects: messages that may do harm, and what they have done, so that the harmless are told from the harmful.

How often a message was delivered says little about it: it comes again when its process was killed, and when another
replica should have it. So two other things are counted, in the database, for each event by its digest:

    failed   how often handling it has raised an error
    opened   how often it was opened, and no process came back to close it

An event that was delivered more than a few times is written down as opened, and committed, before it is handled; the
transaction that handles it closes it. Who is found open was in somebody's hand when that process died. From then on it
is opened with nothing else in hand, so that what kills neither takes others with it nor hides among them.
"""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import ColumnElement, delete, select, update

from outbox.unit_of_work import Outbox, UnitOfWork

GIVE_UP_AFTER: Final = 8
"""So many errors, and an event is buried."""

SUSPECT_AFTER: Final = 5
"""So many deliveries, and a message is handled with care."""

DEADLY_AFTER: Final = 5
"""So many deaths in a row, with nothing else in hand at all but the first, and an event is buried unopened."""


class Suspects:
    """What one pump knows of its suspects, a batch at a time."""

    def __init__(self, outbox: Outbox) -> None:
        self._database = outbox.database
        self._table = outbox.tables.suspects
        self._in_hand: dict[str, int] = {}

    async def deaths(self, unit: UnitOfWork, digests: Iterable[str]) -> dict[str, int]:
        """How many processes have died with each of these in hand. Locks the rows, in one order.

        Those that this process has opened itself do not count: it lives, and tries again after an outage.
        """
        wanted = sorted(set(digests))
        new = [{"digest": digest, "failed": 0, "opened": 0, "at": unit.now} for digest in wanted]
        if new:
            await unit.connection.execute(self._database.insert_new(self._table), new)
        found = select(self._table.c.digest, self._table.c.opened).where(self._any_of(wanted))
        rows = await unit.connection.execute(found.order_by(self._table.c.digest).with_for_update())
        return {row.digest: self._in_hand.get(row.digest, row.opened) for row in rows}

    async def open(self, unit: UnitOfWork, digests: Iterable[str]) -> None:
        """Write down that these are about to be handled."""
        deaths = await self.deaths(unit, digests)
        fresh = [digest for digest in deaths if digest not in self._in_hand]
        self._in_hand |= deaths
        opened = update(self._table).where(self._any_of(fresh))
        await unit.connection.execute(opened.values(opened=self._table.c.opened + 1, at=unit.now))

    async def close(self, unit: UnitOfWork, digests: Iterable[str]) -> None:
        """These were tried, and nobody died of it. Their errors are not forgotten."""
        closed = update(self._table).where(self._any_of(digests))
        await unit.connection.execute(closed.values(opened=0, at=unit.now))

    async def forget(self, unit: UnitOfWork, digests: Iterable[str]) -> None:
        """These are settled."""
        await unit.connection.execute(delete(self._table).where(self._any_of(digests)))

    async def note_failure(self, unit: UnitOfWork, digest: str, message_id: str, reason: str) -> int:
        """Handling this one raised an error, and nobody died of it. Returns how often that has happened."""
        await self.deaths(unit, [digest])
        noted = update(self._table).where(self._table.c.digest == digest)
        told = {"message_id": message_id, "reason": reason}
        values = noted.values(failed=self._table.c.failed + 1, opened=0, at=unit.now, **told)
        return int((await unit.connection.execute(values.returning(self._table.c.failed))).scalar_one())

    def let_go(self) -> None:
        """The batch is done with."""
        self._in_hand.clear()

    def _any_of(self, digests: Iterable[str]) -> ColumnElement[bool]:
        return self._database.any_of(self._table.c.digest, digests)
