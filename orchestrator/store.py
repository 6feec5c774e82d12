"""Where sagas are kept. Reads and locks whole batches, writes them with one statement a table."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import Row, Select, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.definition import base_name
from orchestrator.entries import ENTRIES, Entry
from orchestrator.model import ENDED, SAGA, Phase, Saga
from orchestrator.tables import saga_labels, saga_log, sagas
from outbox.bulk import BEFORE, Writes
from outbox.database import Database, among
from outbox.reasons import in_common


@dataclass(frozen=True, slots=True)
class Stored:
    """A saga as it stands in its row, or as it is about to."""

    saga: Saga
    revision: int
    key: str | None
    digest: str
    started_at: datetime
    generation: int = 1
    priority: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    """Written when the saga starts, and not read back."""

    stuck_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One decision about one saga, to be written. `revision` is the one that it makes."""

    stored: Stored
    entries: Sequence[Entry]
    at: datetime

    @property
    def is_new(self) -> bool:
        """Whether this is the saga's first decision."""
        return self.stored.revision == 1


class LostRace(Exception):
    """Another writer has changed a saga that this one had in hand. Its transaction is rolled back and done again."""


BEATEN: Final = "a saga was changed by another writer meanwhile"


class Store:
    """The sagas of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._say = _statements(database.dialect)

    async def lock(self, connection: AsyncConnection, saga_ids: Iterable[str]) -> dict[str, Stored]:
        """Lock these sagas, in id order, and read them."""
        found = await connection.execute(self._say.locking_by_id, {"wanted": sorted(set(saga_ids))})
        return {row.id: _stored(row) for row in found}

    async def read(self, connection: AsyncConnection, saga_ids: Iterable[str]) -> dict[str, Stored]:
        """Read these sagas, and lock none."""
        found = await connection.execute(self._say.by_id, {"wanted": sorted(set(saga_ids))})
        return {row.id: _stored(row) for row in found}

    async def lock_due(
        self, connection: AsyncConnection, fingerprints: Iterable[str], now: datetime, limit: int
    ) -> dict[str, Stored]:
        """Lock and read sagas whose timer has fired; those that another replica has in hand are passed over."""
        wanted = {"loaded": list(fingerprints), "now": now, "most": limit}
        return {row.id: _stored(row) for row in await connection.execute(self._say.locking_due, wanted)}

    async def due_ids(
        self, connection: AsyncConnection, fingerprints: Iterable[str], now: datetime, limit: int
    ) -> list[str]:
        """The ids of sagas whose timer has fired: nothing is locked, and no state is read."""
        wanted = {"loaded": list(fingerprints), "now": now, "most": limit}
        return list((await connection.execute(self._say.due_ids, wanted)).scalars())

    async def postpone(self, connection: AsyncConnection, saga_id: str, now: datetime, until: datetime) -> None:
        """Move a timer that cannot be fired out of the way of the others. `saga verify` will name the saga.

        One that is not due any more is another's: somebody has moved the saga on meanwhile.
        """
        still_due = update(sagas).where(sagas.c.id == saga_id, sagas.c.due_at <= now)
        await connection.execute(still_due.values(due_at=until))

    async def any_due(self, fingerprints: Iterable[str], now: datetime) -> bool:
        """A look that locks nothing."""
        async with self._database.glancing() as connection:
            return bool(await self.due_ids(connection, fingerprints, now, 1))

    async def find_by_key(
        self, connection: AsyncConnection, keys: Iterable[tuple[str, str]]
    ) -> dict[tuple[str, str], Stored]:
        """Sagas by (definition, key): the latest that used the key."""
        wanted: dict[str, set[str]] = defaultdict(set)
        for definition, key in keys:
            wanted[definition].add(key)
        found: dict[tuple[str, str], Stored] = {}
        for definition, ours in wanted.items():  # not all at once: SQLite then reads the whole table
            rows = await connection.execute(self._say.by_key, {"name": definition, "wanted": sorted(ours)})
            found |= {(row.definition, row.key): _stored(row) for row in rows}
        return found

    async def log(self, connection: AsyncConnection, saga_id: str) -> list[Entry]:
        """Everything that the log says of one saga."""
        query = select(saga_log.c.entries).where(saga_log.c.saga_id == saga_id).order_by(saga_log.c.revision)
        rows = (await connection.execute(query)).scalars()
        return [entry for row in rows for entry in ENTRIES.validate_json(row)]

    async def labels(self, connection: AsyncConnection, saga_id: str) -> dict[str, str]:
        """What a saga can be found by."""
        query = select(saga_labels.c.name, saga_labels.c.value).where(saga_labels.c.saga_id == saga_id)
        return {row.name: row.value for row in await connection.execute(query)}

    def write(self, writes: Writes, changes: Sequence[Change]) -> None:
        """Write sagas and log. The flush raises LostRace when a saga has moved on from the revision it was read at."""
        first: dict[str, Change] = {}
        last: dict[str, Change] = {}
        for change in changes:
            first.setdefault(change.stored.saga.id, change)
            last[change.stored.saga.id] = change
        new = [_row(last[saga_id]) for saga_id, change in first.items() if change.is_new]
        writes.insert(sagas, sorted(new, key=_by_key))
        writes.insert(saga_labels, [row for change in first.values() for row in _labels(change)])
        before = {saga_id: change.stored.revision - 1 for saga_id, change in first.items() if not change.is_new}
        updates = [_update(last[saga_id], revision) for saga_id, revision in before.items()]
        writes.update(sagas, updates, unchanged="revision", beaten=LostRace(BEATEN))
        writes.insert(saga_log, [_log_row(change) for change in changes], beaten=LostRace(BEATEN))


@dataclass(frozen=True, slots=True)
class _Statements:
    """What is asked all the time, and therefore built once."""

    by_id: Select[Any]
    locking_by_id: Select[Any]
    by_key: Select[Any]
    due_ids: Select[str]
    locking_due: Select[Any]


@cache
def _statements(dialect: str) -> _Statements:
    by_id = select(sagas).where(among(dialect, sagas.c.id, "wanted"))
    by_key = select(sagas).where(sagas.c.definition == bindparam("name"), among(dialect, sagas.c.key, "wanted"))
    is_due = sagas.c.due_at <= bindparam("now"), among(dialect, sagas.c.fingerprint, "loaded")
    due_ids = select(sagas.c.id).where(*is_due).order_by(sagas.c.due_at).limit(bindparam("most"))
    return _Statements(
        by_id=by_id,
        locking_by_id=by_id.order_by(sagas.c.id).with_for_update(),
        by_key=by_key.order_by(sagas.c.generation),
        due_ids=due_ids,
        locking_due=due_ids.with_only_columns(*sagas.c).with_for_update(skip_locked=True),
    )


_CHANGING = (
    *("id", "status", "revision", "state"),
    *("due_at", "begins_at", "incident", "stuck_at", "changed_at", "ended_at"),
)


def _by_key(row: Mapping[str, Any]) -> tuple[str, str]:
    """Two writers of the same keys insert them in the same order, or each would wait for the other."""
    return row["definition"], row["key"] or ""


def incident_of(saga: Saga) -> str | None:
    """What all sagas that are stuck for the same reason share."""
    found = next(((name, step.stuck) for name, step in saga.steps.items() if step.stuck), None)
    if found is None:
        return None
    step, reason = found
    return f"{saga.definition}/{base_name(step)}: {in_common(reason)}"[:200]


def _stored(row: Row[Any]) -> Stored:
    return Stored(
        SAGA.validate_json(row.state),
        row.revision,
        row.key,
        row.digest,
        row.started_at,
        row.generation,
        row.priority,
        stuck_at=row.stuck_at,
    )


def _row(change: Change) -> dict[str, Any]:
    saga = change.stored.saga
    ended, waits = saga.phase in ENDED, saga.phase is Phase.WAITING
    return {
        "id": saga.id,
        "definition": saga.definition,
        "fingerprint": saga.fingerprint,
        "key": change.stored.key,
        "generation": change.stored.generation,
        "digest": change.stored.digest,
        "status": saga.status,
        "revision": change.stored.revision,
        "state": SAGA.dump_json(saga, exclude_defaults=True).decode(),
        "due_at": None if ended else saga.due_at,
        "priority": change.stored.priority,
        "begins_at": saga.begins_at if waits else None,
        "incident": None if ended else incident_of(saga),
        "stuck_at": change.stored.stuck_at,
        "started_at": change.stored.started_at,
        "changed_at": change.at,
        "ended_at": change.at if ended else None,
    }


def _update(change: Change, revision_before: int) -> dict[str, Any]:
    row = _row(change)
    return {name: row[name] for name in _CHANGING} | {f"revision{BEFORE}": revision_before}


def _log_row(change: Change) -> dict[str, Any]:
    return {
        "saga_id": change.stored.saga.id,
        "revision": change.stored.revision,
        "at": change.at,
        "entries": ENTRIES.dump_json(list(change.entries)).decode(),
    }


def _labels(change: Change) -> list[dict[str, str]]:
    if not change.is_new:
        return []
    return [{"saga_id": change.stored.saga.id, "name": n, "value": v} for n, v in change.stored.labels.items()]
