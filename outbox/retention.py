"""An end to what messaging keeps: rows of the inbox that nothing can ask for any more, and old dead letters (rule 12).

An inbox row stands between a command and its second application, so it goes only when that command cannot come again.
The broker may deliver what it keeps, for KEPT_FOR: nothing younger than SHORTEST is touched. And whoever sent the
command may send it anew: it is asked (`Needed`), because a service does not know its callers.

Everything is done in batches. Each is a transaction of its own, after which others have their turn.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Column, Row, Select, Table, and_, delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.archive import Archive, as_line, fields
from outbox.database import Database
from outbox.dead_letters import LETTERS_AT_ONCE
from outbox.faults import Faults, NoFaults
from outbox.tables import MessagingTables
from outbox.topology import KEPT_FOR

MARGIN: Final = timedelta(days=1)
"""For clocks that differ, and for messages that waited in an outbox before the broker had them."""

SHORTEST: Final = KEPT_FOR + MARGIN
"""Nothing is deleted sooner than this: until then the broker could still deliver what the rows guard against."""

LONGEST_REST: Final = 1.0
THE_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)

Needed = Callable[[Sequence[str]], Awaitable[Collection[str]]]
"""Which of these message ids may still be sent again: their rows are kept."""

Advance = Callable[[int], None]
"""Is told how many more rows have been looked at."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many were deleted (or would be), and how many that are old enough had to stay."""

    pruned: int = 0
    kept: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.pruned + other.pruned, self.kept + other.kept)


@asynccontextmanager
async def turn(database: Database) -> AsyncIterator[AsyncConnection]:
    """One short transaction, and then a rest that is as long: SQLite's one writer has to let the others write."""
    began = time.monotonic()
    async with database.transaction() as connection:
        yield connection
    await asyncio.sleep(min(LONGEST_REST, time.monotonic() - began))


class MessagingRetention:
    """What messaging keeps in one role's database."""

    def __init__(
        self, role: str, database: Database, tables: MessagingTables, *, batch: int = 500, faults: Faults | None = None
    ) -> None:
        self.role = role
        self._database = database
        self._tables = tables
        self._batch = batch
        self._faults = faults or NoFaults()

    async def count(self, before: datetime) -> int:
        """How many rows are old enough to be looked at."""
        moments = (self._tables.inbox.c.received_at, *(table.c.at for table in self._of_letters))
        queries = [select(func.count()).select_from(at.table).where(at < before) for at in moments]
        async with self._database.reading() as connection:
            return sum([(await connection.execute(query)).scalar_one() for query in queries])

    @property
    def _of_letters(self) -> tuple[Table, Table]:
        return self._tables.dead_letters, self._tables.dead_letter_log

    async def prune_inbox(self, before: datetime, needed: Needed, advance: Advance, *, dry_run: bool = False) -> Tally:
        """Delete what was received before this, and is not needed."""
        tally, after = Tally(), (THE_BEGINNING, "")
        while batch := await self._read(old_inbox(self._tables.inbox, before, after, self._batch)):
            after = (batch[-1].received_at, batch[-1].message_id)
            keep = set(await needed([row.message_id for row in batch]))
            useless = [row.message_id for row in batch if row.message_id not in keep]
            pruned = len(useless) if dry_run else await self._delete(self._tables.inbox.c.message_id, useless)
            tally += Tally(pruned, len(batch) - pruned)
            advance(len(batch))
        return tally

    async def prune_dead_letters(
        self, before: datetime, archive: Archive | None, advance: Advance, *, dry_run: bool = False
    ) -> Tally:
        """Archive, if there is an archive, and delete what was buried before this, and what people did about it.

        Suspects of that age go, too: the broker has forgotten them.
        """
        if not dry_run:
            await self._delete_suspects(before)
        tallies = [await self._prune_letters(table, before, archive, advance, dry_run) for table in self._of_letters]
        return sum(tallies, Tally())

    async def _prune_letters(
        self, letters: Table, before: datetime, archive: Archive | None, advance: Advance, dry_run: bool
    ) -> Tally:
        tally, last = Tally(), 0
        while batch := await self._read(old_letters(letters, before, last, min(self._batch, LETTERS_AT_ONCE))):
            last, ids = batch[-1].id, [row.id for row in batch]
            if archive is not None and not dry_run:
                self._archive(archive, batch)
            pruned = len(ids) if dry_run else await self._delete(letters.c.id, ids)
            tally += Tally(pruned, len(batch) - pruned)
            advance(len(batch))
        return tally

    async def _delete_suspects(self, before: datetime) -> None:
        digest, at = self._tables.suspects.c.digest, self._tables.suspects.c.at
        old = select(digest).where(at < before).limit(self._batch)
        while batch := [row.digest for row in await self._read(old)]:
            if not await self._delete(digest, batch):
                return  # others have them in hand

    async def _read(self, query: Select[Any]) -> list[Row[Any]]:
        async with self._database.reading() as connection:
            return list(await connection.execute(query))

    def _archive(self, archive: Archive, letters: Sequence[Row[Any]]) -> None:
        with archive.batch() as write:
            for letter in letters:
                write(as_line({"role": self.role, **fields(letter)}))

    async def _delete(self, key: Column[Any], values: Sequence[Any]) -> int:
        """Returns how many were deleted: what another run has in hand is left to it."""
        if not values:
            return 0
        ours = select(key).where(self._database.any_of(key, values)).order_by(key).with_for_update(skip_locked=True)
        async with turn(self._database) as connection:
            found = list((await connection.execute(ours)).scalars())
            await connection.execute(delete(key.table).where(self._database.any_of(key, found)))
            self._faults.reach("prune.before-commit")
        self._faults.reach("prune.committed")
        return len(found)


def old_inbox(inbox: Table, before: datetime, after: tuple[datetime, str], limit: int) -> Select[Any]:
    """The next rows of an inbox that were received before this, oldest first."""
    at, key = inbox.c.received_at, inbox.c.message_id
    onwards = and_(at >= after[0], or_(at > after[0], key > after[1]))
    return select(key, at).where(at < before, onwards).order_by(at, key).limit(limit)


def old_letters(letters: Table, before: datetime, last: int, limit: int) -> Select[Any]:
    """The next dead letters that were buried before this. There is no index on the time: there are never many."""
    return select(letters).where(letters.c.at < before, letters.c.id > last).order_by(letters.c.id).limit(limit)
