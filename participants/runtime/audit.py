"""What an auditor asks of every service: do your books balance, and what is left of this saga?

A saga's rows are found by their reference: the saga's id, which a slash and a part may follow (`01J…/4`) when one saga
has several rows in a table. A part is made of letters, digits and hyphens.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, Protocol

from sqlalchemy import Column, ColumnElement, Select, Text, select

from outbox.database import Database, each

Effect = Literal["none", "partial", "applied"]
"""What a service holds of one saga: nothing, something that is not final, or all of it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken promise: which check found it, whose saga it is (if it is one's), which rows show it."""

    check: str
    message: str
    saga_id: str | None = None
    rows: tuple[str, ...] = ()


class Auditor(Protocol):
    """Reads one service's database, and writes nothing."""

    participant: str

    def books(self) -> AsyncIterator[Finding]:
        """Whatever does not balance within this service."""
        ...

    async def effects(self, saga_ids: Sequence[str]) -> Mapping[str, Effect]:
        """What this service holds of these sagas. A saga that is not in the answer has left nothing."""
        ...

    def holders(self) -> AsyncIterator[list[str]]:
        """The ids of all sagas of which this service holds something, in batches."""
        ...


AFTER_EVERY_PART: Final = "/" + "z" * 64
"""What a reference ends in that comes after all others of its saga, whatever order the database keeps texts in."""


def saga_of(reference: str) -> str:
    """The id of the saga that a reference belongs to."""
    return reference.partition("/")[0]


async def effects_of(
    database: Database,
    reference: Column[str],
    status: Column[str],
    meaning: Mapping[str, Effect],
    saga_ids: Sequence[str],
) -> dict[str, Effect]:
    """What the rows of each saga say, if all of its rows say the same; a saga without rows is left out.

    `reference` is indexed: each saga's rows are one short range of it.
    """
    found: dict[str, set[Effect]] = defaultdict(set)
    async with database.reading() as connection:
        rows = await connection.execute(_of_sagas(database.dialect, reference, status), {"sagas": list(saga_ids)})
        for row in rows:
            found[saga_of(row.reference)].add(meaning.get(row.status, "partial"))
    return {saga_id: _together(found[saga_id]) for saga_id in saga_ids if saga_id in found}


@cache
def _of_sagas(dialect: str, reference: Column[str], status: Column[str]) -> Select[str, str]:
    ids = each(dialect, "sagas").cast(Text())
    within = reference.between(ids, ids + AFTER_EVERY_PART)
    return select(reference.label("reference"), status.label("status")).where(within)


def _together(effects: set[Effect]) -> Effect:
    return next(iter(effects)) if len(effects) == 1 else "partial"


async def ids_in_batches(
    database: Database, column: Column[str], condition: ColumnElement[bool], size: int = 1000
) -> AsyncIterator[list[str]]:
    """The sagas of an indexed column of references, in order and in bounded memory."""
    last = ""
    while True:
        query = select(column).where(column > last, condition).order_by(column).limit(size)
        async with database.reading() as connection:
            batch = list((await connection.execute(query)).scalars())
        if not batch:
            return
        yield list(dict.fromkeys(map(saga_of, batch)))
        last = batch[-1]
