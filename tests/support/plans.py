"""What the databases do to answer a statement: every statement that is executed is noted, and explained afterwards.

Nothing here knows how a statement is written. What counts is its plan: whoever reads a whole table to find a few rows
gets slower with every saga that has ever ended.
"""

import asyncio
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import orjson
from sqlalchemy import Engine, Table, event, text

from migrations.registry import MODELS
from outbox.database import Database
from tests.support.servers import Role
from tests.support.world import ROLES

EXPLAINED: Final = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", re.IGNORECASE)
HARMLESS_SCANS: Final = ("VIRTUAL TABLE", "CONSTANT ROW", "(subquery")
"""What SQLite calls a scan, and is no table: an array of parameters, a row of constants, what was found before."""


PARTIAL_INDEXES: Final = "SELECT indexrelid::regclass::text FROM pg_index WHERE indpred IS NOT NULL"
PREPARED: Final = """
SELECT name, statement, cardinality(parameter_types) FROM pg_prepared_statements
WHERE cardinality(parameter_types) > 0 AND statement NOT LIKE '%pg_%'
"""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as the driver got it."""

    role: Role
    text: str
    parameters: Sequence[Any]

    @property
    def takes_any(self) -> bool:
        """Whether the first rows that it meets will do: it needs no index."""
        return "LIMIT" in self.text and "WHERE" not in self.text and "ORDER BY" not in self.text

    @property
    def tables(self) -> set[str]:
        """The tables of its database that it names."""
        return set(re.findall(r"\w+", self.text)) & MODELS[self.role].tables.keys()


class Notes:
    """The statements of all services in this process; of each text the last. The test's own databases are not noted."""

    def __init__(self, but_not: Sequence[Database]) -> None:
        self._but_not = {id(database.engine.sync_engine) for database in but_not}
        self._noted: dict[tuple[Role, str], Statement] = {}

    @property
    def touched(self) -> set[tuple[Role, str]]:
        """Which tables of which role were named."""
        return {(one.role, table) for one in self._noted.values() for table in one.tables}

    def of(self, role: Role) -> list[Statement]:
        """What one role has said, in the order in which it said it first."""
        return [one for one in self._noted.values() if one.role == role]

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take notes while the block runs."""
        event.listen(Engine, "before_cursor_execute", self._note)
        try:
            yield
        finally:
            event.remove(Engine, "before_cursor_execute", self._note)

    def _note(self, connection: Any, _cursor: Any, sql: str, parameters: Any, _context: Any, many: bool) -> None:
        if id(connection.engine) in self._but_not or not EXPLAINED.match(sql):
            return
        role = role_of(connection.engine.url.database)
        statement = Statement(role, sql, tuple(parameters[0] if many else parameters))
        if not statement.takes_any:
            self._noted[role, sql] = statement


def role_of(database_name: str) -> Role:
    """Whose database it is: the tests name a database for its role."""
    return next(role for role in ROLES if Path(database_name).stem.partition("_")[0] == role)


async def scans(database: Database, statements: Sequence[Statement]) -> list[str]:
    """The statements of one database that read a whole table, or a whole index that is not partial."""
    if database.dialect == "sqlite":
        return await asyncio.to_thread(_scans_of_sqlite, str(database.url.database), statements)
    return await _scans_of_postgres(database.url.set(drivername="postgresql").render_as_string(False), statements)


# --- SQLite


def _scans_of_sqlite(path: str, statements: Sequence[Statement]) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        partial = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE sql LIKE '% WHERE %'")}
        found = []
        for statement in statements:
            rows = connection.execute(f"EXPLAIN QUERY PLAN {statement.text}", statement.parameters)
            plan = [row[3] for row in rows]
            if any(_is_scan(line, partial) for line in plan):
                found.append(_complaint(statement, "\n".join(plan)))
        return found


def _is_scan(line: str, partial: set[str]) -> bool:
    index = line.partition(" INDEX ")[2].split(" ")[0]
    return line.startswith("SCAN ") and index not in partial and not any(words in line for words in HARMLESS_SCANS)


# --- PostgreSQL


async def _scans_of_postgres(url: str, statements: Sequence[Statement]) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        partial = {row[0] for row in await connection.fetch(PARTIAL_INDEXES)}
        found = []
        for statement in statements:
            explained = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement.text}", *statement.parameters)
            [plan] = orjson.loads(explained)
            if any(_reads_all(node, partial) for node in _nodes(plan["Plan"])):
                found.append(_complaint(statement, "\n".join(_outline(plan["Plan"]))))
        return found
    finally:
        await connection.close()


async def kept_scans(database: Database) -> list[str]:
    """The statements for which a connection of a PostgreSQL database keeps a plan that reads a whole table.

    It is the connection that `database` uses when nobody else does.
    """
    async with database.transaction() as connection:
        partial = {row[0] for row in await connection.execute(text(PARTIAL_INDEXES))}
        found = []
        prepared = (await connection.execute(text(PREPARED))).all()
        assert prepared, "this connection has executed nothing"
        for name, statement, count in prepared:
            values = ", ".join(["NULL"] * count)
            explained = await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) EXECUTE {name}({values})")
            [plan] = explained.scalar_one()
            if any(_reads_all(node, partial) for node in _nodes(plan["Plan"])):
                found.append("\n".join([statement, *_outline(plan["Plan"])]))
        return found


def _outline(plan: dict[str, Any], depth: int = 1) -> Iterator[str]:
    words = [str(plan[name]) for name in ("Node Type", "Relation Name", "Index Name") if name in plan]
    conditions = [
        f"{name}: {plan[name]}" for name in ("Index Cond", "Filter", "Hash Cond", "Join Filter") if name in plan
    ]
    yield f"{'  ' * depth}{' '.join([*words, *conditions])} ({plan['Plan Rows']} rows)"
    for child in plan.get("Plans", ()):
        yield from _outline(child, depth + 1)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _reads_all(node: dict[str, Any], partial: set[str]) -> bool:
    if "Index Name" in node:
        return "Index Cond" not in node and node["Index Name"] not in partial
    return bool(node["Node Type"] == "Seq Scan")


def _complaint(statement: Statement, plan: str) -> str:
    return f"{statement.role}: {statement.text}\n{plan}"


# --- many rows


async def multiply(database: Database, table: Table, times: int, *own: str) -> None:
    """Copy every row of a table so many times. In the columns `own` each copy has values of its own."""
    names = [column.name for column in table.columns if column.autoincrement is not True]
    values = [f"{name} || '~' || number" if name in own else name for name in names]
    statement = (
        f"INSERT INTO {table.name} ({', '.join(names)}) "  # noqa: S608 (the names of our own tables)
        "WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < :times) "
        f"SELECT {', '.join(values)} FROM {table.name} CROSS JOIN numbers"
    )
    async with database.transaction() as connection:
        await connection.execute(text(statement), {"times": times})
