"""Copies rows of real sagas under ids of their own, set-based, in one role's database."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Executable,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal,
    select,
    text,
)

from orchestrator.composition import messaging_of
from orchestrator.tables import saga_log, sagas
from outbox.database import Database, UtcDateTime
from participants.inventory.models import Reservation
from participants.order.models import Order
from participants.payment.models import Hold, Posting

ORIGINALS: Final = 200
"""How many sagas are real, at most."""

ID: Final = 26
"""Characters of a saga's id."""

CARRIERS: Final = frozenset(
    {
        *("id", "saga_id", "state", "entries", "message_id", "order_id", "placement_id"),
        *("reservation_id", "hold_id", "posting_id", "entry_id"),
    }
)
"""Columns in which a saga's id, or its order's, is found."""


@dataclass(frozen=True, slots=True)
class Original:
    """A real saga that is copied."""

    saga_id: str
    order_id: str


def owned_tables(role: str) -> list[tuple[Table, Column[Any]]]:
    """A role's tables that have rows of single sagas, each with the column that begins with the saga's id."""
    if role == "orchestrator":
        return [(sagas, sagas.c.id), (saga_log, saga_log.c.saga_id)]
    inbox = messaging_of(role).inbox
    own = {
        "order": [(Order.table, Order.table.c.placement_id)],
        "inventory": [(Reservation.table, Reservation.table.c.reservation_id)],
        "payment": [(Hold.table, Hold.table.c.hold_id), (Posting.table, Posting.table.c.posting_id)],
    }
    return [*own[role], (inbox, inbox.c.message_id)]


class Copier:
    """Copies the rows that one role has of the originals."""

    def __init__(self, database: Database, role: str, prefix: str, originals: Sequence[Original]) -> None:
        self._database = database
        self._role = role
        self._prefix = prefix
        self._originals = originals
        self._metadata = MetaData()
        self._wanted = Table(
            "bench_originals",
            self._metadata,
            Column("saga_id", String(ID), primary_key=True),
            Column("order_id", String(100), nullable=False),
            Column("number", Integer, nullable=False),
        )
        self._statements = [self._copy(table, key) for table, key in owned_tables(role)]

    async def lay_out(self) -> None:
        """Set the originals' rows aside, so that each copy reads a small table."""
        async with self._database.transaction() as connection:
            await connection.run_sync(self._metadata.create_all)
            rows = [
                {"saga_id": one.saga_id, "order_id": one.order_id, "number": number}
                for number, one in enumerate(self._originals)
            ]
            await connection.execute(insert(self._wanted), rows)
            for table, key in owned_tables(self._role):
                theirs = select(table).where(func.substr(key, 1, ID).in_(select(self._wanted.c.saga_id)))
                aside = self._metadata.tables[f"bench_{table.name}"]
                await connection.execute(insert(aside).from_select(list(table.c), theirs))

    async def copy(self, first: int, last: int, at: datetime) -> None:
        """Make the copies number `first` to `last` of every original."""
        async with self._database.transaction() as connection:
            if self._database.dialect == "postgresql":
                await connection.execute(text("SET LOCAL synchronous_commit = off"))
            for statement in self._statements:
                await connection.execute(statement, {"first": first, "last": last, "moment": at})

    async def clear_away(self) -> None:
        """Drop what was set aside."""
        async with self._database.transaction() as connection:
            await connection.run_sync(self._metadata.drop_all)

    def _copy(self, table: Table, key: Column[Any]) -> Executable:
        aside = Table(f"bench_{table.name}", self._metadata, *(Column(column.name, column.type) for column in table.c))
        numbers = select(bindparam("first", type_=Integer).label("number")).cte("copies", recursive=True)
        more = select(numbers.c.number + 1).where(numbers.c.number < bindparam("last", type_=Integer))
        numbers = numbers.union_all(more)
        copied = [column for column in table.c if column.name != "position"]  # that one is counted by the database
        is_its = func.substr(aside.c[key.name], 1, ID) == self._wanted.c.saga_id
        rows = select(*(self._value(aside.c[column.name], numbers.c.number) for column in copied)).select_from(
            aside.join(self._wanted, is_its).join(numbers, literal(1) == 1)
        )
        return insert(table).from_select([column.name for column in copied], rows)

    def _value(self, column: Column[Any], number: ColumnElement[int]) -> ColumnElement[Any]:
        """A column of a copy."""
        if isinstance(column.type, UtcDateTime):
            return case((column.is_(None), None), else_=bindparam("moment", type_=UtcDateTime()))
        if column.name not in CARRIERS:
            return column
        count = literal(10 ** (ID - len(self._prefix) - 1)) + number * ORIGINALS + self._wanted.c.number
        new_id = literal(self._prefix) + cast(count, Text())
        new_order = self._wanted.c.order_id + literal(".") + cast(number, Text())
        new = func.replace(cast(column, Text()), self._wanted.c.saga_id, new_id)
        new = func.replace(new, self._wanted.c.order_id, new_order)
        return cast(new, JSON()) if self._is_json(column) else new

    def _is_json(self, column: Column[Any]) -> bool:
        return isinstance(column.type, JSON) and self._database.dialect == "postgresql"
