"""What an auditor asks of every service: do your books balance, and what is left of this saga?"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from sqlalchemy import Column, ColumnElement, select

from outbox.database import Database

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


async def ids_in_batches(
    database: Database, column: Column[str], condition: ColumnElement[bool], size: int = 1000
) -> AsyncIterator[list[str]]:
    """The values of an indexed column, in order and in bounded memory."""
    last = ""
    while True:
        query = select(column).where(column > last, condition).order_by(column).limit(size)
        async with database.reading() as connection:
            batch = list((await connection.execute(query)).scalars())
        if not batch:
            return
        yield batch
        last = batch[-1]
