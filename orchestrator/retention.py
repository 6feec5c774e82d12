"""An end to sagas, their log and their labels, and with them to the inbox rows of the services (rule 12).

What goes is at rest: it has ended, and so has every saga that it is a part of, all of them long enough ago. A parent
that goes on may still undo its child, which then sends its undos: they need the child, and the inbox rows of what they
undo. And the command by which a child was started, or a participant was asked, may be delivered again for as long as
the broker keeps it: without the row that remembers it, it would be carried out twice. So the time counts from the end,
and may not be short.

Saga after saga is archived, in one consistent look that locks nothing; then the batch is deleted in one short
transaction, which passes over what is locked or has changed since. `outbox.archive` tells how it dies.

A limit: of what was pruned only the newest id is kept. A saga that is missing up to there passes for pruned, though it
may be lost; one that is missing after it never does. Whoever runs `saga verify` before `saga prune` overlooks none.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson
from sqlalchemy import ColumnElement, Row, Select, and_, case, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.tables import prunings, saga_labels, saga_log, sagas
from outbox.archive import Archive, Write, fields
from outbox.database import Database, among
from outbox.faults import Faults, NoFaults
from outbox.retention import SHORTEST, THE_BEGINNING, Advance, MessagingRetention, Needed, Tally, turn

LOG_ROWS_AT_ONCE: Final = 20_000
"""A batch ends here, however few sagas it has: one saga may have thousands of log rows."""

DEEPEST: Final = 100
"""Generations of parents that are looked at. Beyond that nothing is pruned."""

FEW_ROWS: Final = {"max_row_buffer": 50}
"""A row of the log may have a quarter of a megabyte."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which sagas are to go. Empty fields let everything pass."""

    before: datetime
    statuses: Sequence[str] = ()
    definitions: Sequence[str] = ()


class SagaRetention:
    """The sagas of the orchestrator's database that have had their time."""

    def __init__(self, database: Database, *, batch: int = 500, faults: Faults | None = None) -> None:
        self._database = database
        self._batch = batch
        self._faults = faults or NoFaults()

    async def count(self, wanted: Wanted) -> int:
        """How many sagas have ended long enough ago to be looked at."""
        query = select(func.count()).select_from(sagas).where(*_conditions(wanted))
        async with self._database.reading() as connection:
            return (await connection.execute(query)).scalar_one()

    async def prune(self, wanted: Wanted, archive: Archive | None, advance: Advance, *, dry_run: bool = False) -> Tally:
        """Archive, if there is an archive, and delete. Raises ArchiveFailed: what was not archived is still there."""
        tally, after = Tally(), (THE_BEGINNING, "")
        while batch := await self._next(wanted, after):
            after = (batch[-1].ended_at, batch[-1].id)
            unsettled = await self._unsettled([row.id for row in batch], wanted.before)
            at_rest = {row.id: row.revision for row in batch if row.id not in unsettled}
            pruned = len(at_rest) if dry_run else await self._prune(at_rest, wanted.before, archive)
            tally += Tally(pruned, len(batch) - pruned)
            advance(len(batch))
        return tally

    def needed(self, before: datetime) -> Needed:
        """Which commands may still be sent again: those of sagas that are not at rest, or that nobody knows of."""

        async def ask(message_ids: Sequence[str]) -> set[str]:
            owners = {message_id: message_id.partition("/")[0] for message_id in message_ids}
            saga_ids = sorted(set(owners.values()))
            keep = await self._unsettled(saga_ids, before)
            async with self._database.reading() as connection:
                keep |= await missing(connection, self._database, saga_ids)
            return {message_id for message_id, saga_id in owners.items() if saga_id in keep}

        return ask

    async def _next(self, wanted: Wanted, after: tuple[datetime, str]) -> list[Row[Any]]:
        async with self._database.reading() as connection:
            rows = list(await connection.execute(ended_long_ago(wanted, after, self._batch)))
        log_rows = 0
        for number, row in enumerate(rows):
            log_rows += row.revision  # each decision is one row of the log
            if log_rows > LOG_ROWS_AT_ONCE:
                return rows[: max(1, number)]
        return rows

    async def _unsettled(self, saga_ids: Sequence[str], before: datetime) -> set[str]:
        """Those to which something may still happen: they have not ended before then, or a saga above them has not."""
        found: set[str] = set()
        looked_at = {saga_id: {saga_id} for saga_id in saga_ids}
        async with self._database.reading() as connection:
            for _ in range(DEEPEST):
                if not looked_at:
                    break
                query = select(sagas.c.id, sagas.c.key, sagas.c.ended_at)
                above: dict[str, set[str]] = defaultdict(set)
                for row in await connection.execute(query.where(self._database.any_of(sagas.c.id, looked_at))):
                    if row.ended_at is None or row.ended_at >= before:
                        found |= looked_at[row.id]
                    elif (parent := _parent(row.key)) is not None:
                        above[parent] |= looked_at[row.id]
                looked_at = above
        return found.union(*looked_at.values())

    async def _prune(self, at_rest: Mapping[str, int], before: datetime, archive: Archive | None) -> int:
        if not at_rest:
            return 0
        self._faults.reach("prune.received")
        if archive is not None:
            at_rest = await self._archive(at_rest, before, archive)
        return await self._delete(at_rest)

    # --- archiving ---------------------------------------------------------------------------------------------------

    async def _archive(self, saga_ids: Mapping[str, int], before: datetime, archive: Archive) -> dict[str, int]:
        """Returns the revisions that are in the archive now. A saga whose log is not whole is left where it is."""
        written = {}
        still = and_(self._database.any_of(sagas.c.id, saga_ids), sagas.c.ended_at < before)
        with archive.batch() as write:
            async with self._database.reading() as connection:
                labels = await self._labels(connection, saga_ids)
                log = _Log(await self._stream(connection, _logs(still)))
                async for row in await self._stream(connection, select(sagas).where(still).order_by(sagas.c.id)):
                    if await _write_saga(write, row, labels.get(row.id, {}), log.of(row.id)) == row.revision:
                        written[row.id] = row.revision
        return written

    async def _stream(self, connection: AsyncConnection, query: Select[Any]) -> AsyncIterator[Row[Any]]:
        return aiter(await connection.stream(query, execution_options=FEW_ROWS))

    async def _labels(self, connection: AsyncConnection, saga_ids: Mapping[str, int]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = defaultdict(dict)
        query = select(saga_labels).where(self._database.any_of(saga_labels.c.saga_id, saga_ids))
        for row in await connection.execute(query.order_by(saga_labels.c.name)):
            found[row.saga_id][row.name] = row.value
        return found

    # --- deleting ----------------------------------------------------------------------------------------------------

    async def _delete(self, revisions: Mapping[str, int]) -> int:
        """Delete what is still at these revisions, and that nobody else has in hand. Returns how many sagas."""
        any_of = self._database.any_of
        query = select(sagas.c.id, sagas.c.revision, sagas.c.definition).where(any_of(sagas.c.id, revisions))
        async with turn(self._database) as connection:
            locked = await connection.execute(query.order_by(sagas.c.id).with_for_update(skip_locked=True))
            found = {row.id: row.definition for row in locked if row.revision == revisions[row.id]}
            for column in (saga_log.c.saga_id, saga_labels.c.saga_id, sagas.c.id):
                await connection.execute(delete(column.table).where(any_of(column, found)))
            await self._record(connection, found)
            self._faults.reach("prune.before-commit")
        self._faults.reach("prune.committed")
        return len(found)

    async def _record(self, connection: AsyncConnection, pruned: Mapping[str, str]) -> None:
        by_definition: dict[str, list[str]] = defaultdict(list)
        for saga_id, definition in pruned.items():
            by_definition[definition].append(saga_id)
        for definition, saga_ids in sorted(by_definition.items()):
            new = {"definition": definition, "sagas": 0, "last_id": ""}
            await connection.execute(self._database.insert_new(prunings), new)
            newest, last_id = max(saga_ids), prunings.c.last_id
            values = {
                "sagas": prunings.c.sagas + len(saga_ids),
                "last_id": case((last_id < newest, newest), else_=last_id),
            }
            await connection.execute(update(prunings).where(prunings.c.definition == definition).values(values))


class _Log:
    """Rows of several logs, in the order of their sagas: hands out one saga's after another's."""

    def __init__(self, rows: AsyncIterator[Row[Any]]) -> None:
        self._rows = rows
        self._waiting: Row[Any] | None = None

    async def of(self, saga_id: str) -> AsyncIterator[Row[Any]]:
        """The rows of this saga, which are the next."""
        row = self._waiting or await anext(self._rows, None)
        while row is not None and row.saga_id == saga_id:
            yield row
            row = await anext(self._rows, None)
        self._waiting = row


async def _write_saga(write: Write, saga: Row[Any], labels: Mapping[str, str], log: AsyncIterator[Row[Any]]) -> int:
    """One line, in pieces: a log may be larger than one would want in memory. Returns how many rows the log has."""
    head = orjson.dumps({"saga": fields(saga) | {"state": _json(saga.state)}, "labels": labels})
    write(head[:-1] + b',"log":[')
    count = 0
    async for row in log:
        line = {"position": row.position, "revision": row.revision, "at": row.at, "entries": _json(row.entries)}
        write((b"," if count else b"") + orjson.dumps(line))
        count += 1
    write(b"]}\n")
    return count


def _json(text: str) -> Any:
    """What cannot be read is kept as the text that it is."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


async def missing(connection: AsyncConnection, database: Database, saga_ids: Sequence[str]) -> set[str]:
    """Those of these sagas that are not there, and that were not pruned."""
    known = await connection.execute(_known(database.dialect), {"wanted": list(saga_ids)})
    absent = set(saga_ids) - set(known.scalars())
    if not absent:
        return absent
    pruned_up_to = max((await connection.execute(select(prunings.c.last_id))).scalars(), default="")
    return {saga_id for saga_id in absent if saga_id > pruned_up_to}


@cache
def _known(dialect: str) -> Select[str]:
    return select(sagas.c.id).where(among(dialect, sagas.c.id, "wanted"))


def ended_long_ago(wanted: Wanted, after: tuple[datetime, str], limit: int) -> Select[Any]:
    """The next sagas that have ended before then, in the order in which they ended."""
    ended_at, key = sagas.c.ended_at, sagas.c.id
    onwards = and_(ended_at >= after[0], or_(ended_at > after[0], key > after[1]))
    query = select(key, sagas.c.revision, ended_at).where(*_conditions(wanted), onwards)
    return query.order_by(ended_at, key).limit(limit)


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    conditions = [sagas.c.ended_at < wanted.before]
    if wanted.statuses:
        conditions.append(sagas.c.status.in_(wanted.statuses))
    if wanted.definitions:
        conditions.append(sagas.c.definition.in_(wanted.definitions))
    return conditions


def _logs(condition: ColumnElement[bool]) -> Select[Any]:
    """The logs of these sagas, one after another."""
    query = select(saga_log).join(sagas, sagas.c.id == saga_log.c.saga_id).where(condition)
    return query.order_by(sagas.c.id, saga_log.c.revision)


def _parent(key: str | None) -> str | None:
    """The key of a saga that a command has started is the command's id, which begins with who sent it."""
    owner, slash, _ = (key or "").partition("/")
    return owner if slash else None


# --- all together ----------------------------------------------------------------------------------------------------


class TooSoon(ValueError):
    """An age at which rows are still needed."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to go, and where it is archived. `statuses` and `definitions` narrow the sagas, and nothing else."""

    older_than: timedelta
    archive: Path | None
    """A folder; None: nothing is archived."""

    statuses: Sequence[str] = ()
    definitions: Sequence[str] = ()
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.older_than < SHORTEST:
            raise TooSoon(
                f"nothing younger than {SHORTEST.days} days is pruned: until then the broker may deliver a message "
                "again, and only the row that remembers it keeps it from being carried out twice"
            )

    def wanted(self, now: datetime) -> Wanted:
        """The sagas that are to go."""
        return Wanted(now - self.older_than, self.statuses, self.definitions)


@dataclass(slots=True)
class Report:
    """What went, and what had to stay. `inbox` and `dead_letters` are by role."""

    before: datetime
    sagas: Tally = field(default_factory=Tally)
    inbox: dict[str, Tally] = field(default_factory=dict)
    dead_letters: dict[str, Tally] = field(default_factory=dict)
    archives: list[Path] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """How many rows are old enough, and stay."""
        return sum(tally.kept for tally in (self.sagas, *self.inbox.values(), *self.dead_letters.values()))


class Pruner:
    """Prunes every database."""

    def __init__(self, saga_retention: SagaRetention, messaging: Sequence[MessagingRetention], now: datetime) -> None:
        self._sagas = saga_retention
        self._messaging = messaging
        self._now = now

    async def count(self, order: Order) -> int:
        """How many rows will be looked at."""
        wanted = order.wanted(self._now)
        return await self._sagas.count(wanted) + sum([await one.count(wanted.before) for one in self._messaging])

    async def run(self, order: Order, advance: Advance = lambda _: None) -> Report:
        """Inboxes first, while the sagas can still say what is needed; then sagas, then dead letters."""
        wanted, report, dry_run = order.wanted(self._now), Report(self._now - order.older_than), order.dry_run
        needed = self._sagas.needed(wanted.before)
        for one in self._messaging:
            report.inbox[one.role] = await one.prune_inbox(wanted.before, needed, advance, dry_run=dry_run)
        with self._archive(order, "sagas") as archive:
            report.sagas = await self._sagas.prune(wanted, archive, advance, dry_run=dry_run)
            _note(report, archive)
        with self._archive(order, "dead-letters") as archive:
            for one in self._messaging:
                tally = await one.prune_dead_letters(wanted.before, archive, advance, dry_run=dry_run)
                report.dead_letters[one.role] = tally
            _note(report, archive)
        return report

    def _archive(self, order: Order, name: str) -> "closing[Archive] | nullcontext[None]":
        return nullcontext() if order.archive is None else closing(Archive(order.archive, name, self._now))


def _note(report: Report, archive: Archive | None) -> None:
    if archive is not None and archive.is_there:
        report.archives.append(archive.path)
