"""The rows of a batch: read and locked together, changed in memory, written together."""

from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Any

from sqlalchemy import Column, Select, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.bulk import Writes
from outbox.database import Database, among
from participants.runtime.work import Key, Work


class Rows:
    """An identity map over one transaction. Absent rows are known to be absent."""

    def __init__(self, database: Database, connection: AsyncConnection) -> None:
        self._database = database
        self._connection = connection
        self._found: dict[Key, Any] = {}
        self._absent: set[Key] = set()
        self._changed: set[Key] = set()
        self._added: list[Any] = []

    async def read(self, keys: Iterable[Key]) -> None:
        """Read and lock what is not known yet, kind by kind and in key order."""
        wanted: dict[type[Any], set[str]] = defaultdict(set)
        for key in keys:
            if key not in self._found:
                wanted[key.kind].add(key.value)
        for kind in sorted(wanted, key=lambda kind: kind.table.name):
            await self._read_kind(kind, sorted(wanted[kind]))

    def open_work(self) -> Work:
        """A fresh overlay for one command."""
        return Work(self._found)

    def take(self, work: Work) -> None:
        """Keep what a handler has changed."""
        self._found.update(work.changes)
        self._changed.update(work.changes)
        self._added.extend(work.additions)

    async def write(self) -> None:
        """Write at once what was changed."""
        writes = Writes()
        self.hand_over(writes)
        await writes.flush(self._connection)

    def hand_over(self, writes: Writes) -> None:
        """INSERT what was absent, UPDATE what was there.

        A row that another replica has inserted meanwhile fails the batch, which is then done again and sees it.
        """
        inserts: dict[type[Any], list[dict[str, Any]]] = defaultdict(list)
        updates: dict[type[Any], list[dict[str, Any]]] = defaultdict(list)
        for key in sorted(self._changed, key=lambda key: (key.kind.table.name, key.value)):
            target = inserts if key in self._absent else updates
            target[key.kind].append(_columns(self._found[key]))
        for entity in self._added:
            inserts[type(entity)].append(_columns(entity))
        for kind, rows in inserts.items():
            writes.insert(kind.table, rows)
        for kind, rows in updates.items():
            writes.update(kind.table, rows)

    async def _read_kind(self, kind: type[Any], values: list[str]) -> None:
        key = _key_column(kind.table)
        for row in await self._connection.execute(_locking(self._database.dialect, kind.table), {"wanted": values}):
            entity = kind(**row._mapping)
            self._found[Key(kind, row._mapping[key.name])] = entity
        for value in values:
            if Key(kind, value) not in self._found:
                self._found[Key(kind, value)] = None
                self._absent.add(Key(kind, value))


@cache
def _locking(dialect: str, table: Table) -> Select[Any]:
    key = _key_column(table)
    return select(table).where(among(dialect, key, "wanted")).order_by(key).with_for_update()


def _key_column(table: Table) -> Column[Any]:
    column: Column[Any] = table.primary_key.columns[0]
    return column


def _columns(entity: Any) -> dict[str, Any]:
    return {name: getattr(entity, name) for name in entity.table.columns.keys()}  # noqa: SIM118 (columns iterate as columns)
