"""Set-based writes: any number of rows in one statement, and one statement for any number of rows.

A statement that is sent once for each row costs PostgreSQL a bind and an execution a row, and its driver does not say
how many rows were met. So the rows travel as one array a column (`unnest`), which the server joins with the table:
the text is the same for every number of rows, and the count is exact. SQLite runs in our own process: there a statement
a row costs next to nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    Column,
    Enum,
    Executable,
    Insert,
    String,
    Table,
    Text,
    Update,
    and_,
    bindparam,
    column,
    func,
    insert,
    literal,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

Row = Mapping[str, Any]

BEFORE: Final = "_before"
GIVEN: Final = "given"  # a parameter may not have the name of a column


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of one table that are written in one way. `beaten` is raised when others have written them meanwhile."""

    table: Table
    names: tuple[str, ...]
    is_update: bool = False
    known: bool = False
    unchanged: str | None = None
    beaten: Exception | None = field(default=None, compare=False)


class Writes:
    """What a transaction is about to write, gathered to be sent as one statement: each that is sent is a round trip.

    Nothing that is gathered may depend on the order in which it is written.
    """

    def __init__(self) -> None:
        self._parts: dict[_Part, list[Row]] = {}

    def insert(
        self, table: Table, rows: Sequence[Row], *, known: bool = False, beaten: Exception | None = None
    ) -> None:
        """`INSERT`, as `insert_rows` does. Raises `beaten` when it is flushed, and one of the keys is taken."""
        if rows:
            self._gather(_Part(table, tuple(rows[0]), known=known, beaten=beaten), rows)

    def update(
        self, table: Table, rows: Sequence[Row], *, unchanged: str | None = None, beaten: Exception | None = None
    ) -> None:
        """`UPDATE`, as `update_rows` does. Raises `beaten` when it is flushed, and meets fewer rows than are given."""
        if rows:
            self._gather(_Part(table, tuple(rows[0]), True, unchanged=unchanged, beaten=beaten), rows)

    async def flush(self, connection: AsyncConnection) -> None:
        """Send what was gathered, if anything was."""
        parts, self._parts = self._parts, {}
        try:
            met = await self._send(connection, parts)
        except IntegrityError as error:
            for part in parts:
                if part.beaten is not None and not part.is_update and part.table.name == _table_of(error):
                    raise part.beaten from error
            raise
        for (part, rows), count in zip(parts.items(), met, strict=True):
            if part.is_update and part.beaten is not None and count != len(rows):
                raise part.beaten

    def _gather(self, part: _Part, rows: Sequence[Row]) -> None:
        self._parts.setdefault(part, []).extend(rows)

    async def _send(self, connection: AsyncConnection, parts: Mapping[_Part, Sequence[Row]]) -> list[int]:
        """Returns how many rows of each part were met; of an INSERT that is not counted."""
        if len(parts) < 2 or connection.dialect.name == "sqlite":
            return [await _send_part(connection, part, rows) for part, rows in parts.items()]
        values: dict[str, Any] = {}
        for number, (part, rows) in enumerate(parts.items()):
            values |= _columns(rows, part.names, f"{GIVEN}{number}_")
        return list((await connection.execute(_together(tuple(parts)), values)).one())


def _table_of(error: IntegrityError) -> str:
    """The table whose key is taken: PostgreSQL names it, SQLite its columns (`UNIQUE constraint failed: table.id`)."""
    named: str | None = getattr(getattr(error.orig, "__cause__", None), "table_name", None)
    return named or str(error.orig).partition(": ")[2].partition(".")[0]


async def _send_part(connection: AsyncConnection, part: _Part, rows: Sequence[Row]) -> int:
    if part.is_update:
        return await update_rows(connection, part.table, rows, unchanged=part.unchanged)
    await insert_rows(connection, part.table, rows, known=part.known)
    return 0


async def insert_rows(connection: AsyncConnection, table: Table, rows: Sequence[Row], *, known: bool = False) -> None:
    """`INSERT` rows that all have the same columns. With `known`, those whose key is already there are passed over."""
    if not rows:
        return
    names = tuple(rows[0])
    if connection.dialect.name == "sqlite":
        await connection.execute(_insert_one(table, known), rows)
    else:
        await connection.execute(_insert(table, names, known), _columns(rows, names))


async def update_rows(
    connection: AsyncConnection, table: Table, rows: Sequence[Row], *, unchanged: str | None = None
) -> int:
    """`UPDATE` rows by their primary key; returns how many there were. A key may come once.

    With `unchanged`, a row is left alone unless this column still has the value that the row's `<column>_before` says.
    """
    if not rows:
        return 0
    names = tuple(rows[0])
    if connection.dialect.name == "sqlite":
        renamed = [{f"{GIVEN}_{name}": value for name, value in row.items()} for row in rows]
        return (await connection.execute(_update_one(table, names, unchanged), renamed)).rowcount
    return (await connection.execute(_update(table, names, unchanged), _columns(rows, names))).rowcount


def _columns(rows: Sequence[Row], names: Sequence[str], prefix: str = f"{GIVEN}_") -> dict[str, list[Any]]:
    return {prefix + name: [row[name] for row in rows] for name in names}


def _of(table: Table, name: str) -> Column[Any]:
    """The column that a parameter is compared with, or written to. (A column may end in `_before` itself.)"""
    return table.c[name] if name in table.c else table.c[name.removesuffix(BEFORE)]


@cache
def _together(parts: tuple[_Part, ...]) -> Executable:
    """One statement for all parts, which answers with how many rows each has met."""
    counts: list[Any] = []
    inserts = []
    for number, part in enumerate(parts):
        name, prefix = f"part{number}", f"{GIVEN}{number}_"
        if part.is_update:
            updated = _update(part.table, part.names, part.unchanged, prefix).returning(literal(1)).cte(name)
            counts.append(select(func.count()).select_from(updated).scalar_subquery())
        else:
            inserts.append(_insert(part.table, part.names, part.known, prefix).cte(name))
            counts.append(literal_column("0"))
    return select(*(count.label(f"met{number}") for number, count in enumerate(counts))).add_cte(*inserts)


@cache
def _insert_one(table: Table, known: bool) -> Insert:
    return sqlite.insert(table).on_conflict_do_nothing() if known else insert(table)


@cache
def _insert(table: Table, names: tuple[str, ...], known: bool, prefix: str = f"{GIVEN}_") -> postgresql.Insert:
    given = _given(table, names, prefix)
    statement = postgresql.insert(table).from_select(names, select(*(given.c[name] for name in names)))
    return statement.on_conflict_do_nothing() if known else statement


@cache
def _update(table: Table, names: tuple[str, ...], unchanged: str | None, prefix: str = f"{GIVEN}_") -> Update:
    given = _given(table, names, prefix)
    return _matching(table, names, unchanged, lambda name: given.c[name])


@cache
def _update_one(table: Table, names: tuple[str, ...], unchanged: str | None) -> Update:
    return _matching(table, names, unchanged, lambda name: bindparam(f"{GIVEN}_{name}", type_=_of(table, name).type))


def _matching(table: Table, names: Sequence[str], unchanged: str | None, new: Callable[[str], Any]) -> Update:
    keys = [column.name for column in table.primary_key.columns]
    conditions = [table.c[name] == new(name) for name in keys]
    guard = f"{unchanged}{BEFORE}"
    if unchanged is not None:
        conditions.append(table.c[unchanged] == new(guard))
    values = {name: new(name) for name in names if name not in keys and name != guard}
    return update(table).where(and_(*conditions)).values(values)


def _given(table: Table, names: Sequence[str], prefix: str) -> Any:
    kinds = {name: _unbounded(_of(table, name).type) for name in names}
    arrays = [bindparam(prefix + name, type_=postgresql.ARRAY(kind, dimensions=1)) for name, kind in kinds.items()]
    columns = [column(name, kind) for name, kind in kinds.items()]
    return func.unnest(*arrays).table_valued(*columns, name="given").render_derived()


def _unbounded(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """Without its length: PostgreSQL cuts a text short that is cast to `VARCHAR(n)`, and refuses one that is stored."""
    return Text() if isinstance(kind, String) and not isinstance(kind, Enum) else kind
