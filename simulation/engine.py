"""SQLAlchemy on a simulated server: what stands in for its AsyncEngine and AsyncConnection.

Statements are compiled and executed by SQLAlchemy as ever, at once and in this thread, for the server is in memory.
What is left of asynchrony is what counts: each statement and each commit is a boundary, where a process may be held up
or die. (AsyncEngine itself would take a thread, four switches of a greenlet and a task for each transaction.)
"""

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from sqlalchemy import Connection, Engine, Executable, Select, StaticPool, create_engine
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from simulation.server import Blocked, Server, Session

FETCHED: Final = 1


def open_engine(server: Server, **options: Any) -> AsyncEngine:
    """As `create_async_engine` does it."""
    return cast(AsyncEngine, SimulatedEngine(server, options))


class SimulatedEngine:
    """Hands out transactions on one server."""

    def __init__(self, server: Server, options: dict[str, Any]) -> None:
        self._server = server
        self._wire = Wire(server)
        self.sync_engine: Engine = create_engine(
            "sqlite://", creator=lambda: self._wire, poolclass=StaticPool, **options
        )
        self.sync_engine.dialect.statement_compiler = _Compiler
        self.dialect = self.sync_engine.dialect
        self._sync = self.sync_engine.connect()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator["SimulatedConnection"]:
        """A transaction: committed when the block ends well, rolled back when it does not."""
        connection = SimulatedConnection(Session(self._server), self._sync, self._wire)
        try:
            yield connection
            await connection.commit()
        finally:
            connection.session.leave()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator["SimulatedConnection"]:
        """A transaction that is rolled back."""
        connection = SimulatedConnection(Session(self._server), self._sync, self._wire)
        try:
            yield connection
        finally:
            connection.session.leave()

    async def dispose(self) -> None:
        """The server outlives its clients."""


class SimulatedConnection:
    """As much of an AsyncConnection as is used."""

    __slots__ = ("_sync", "_wire", "dialect", "session")

    def __init__(self, session: Session, sync: Connection, wire: "Wire") -> None:
        self.session = session
        self.dialect = sync.dialect
        self._sync = sync
        self._wire = wire

    async def execute(self, statement: Executable, parameters: Any = None) -> Any:
        """One statement. Waits for whoever holds what it needs."""
        try:
            await self.session.come_to("statement")
            while True:
                self._wire.session = self.session
                try:
                    return self._sync.execute(statement, parameters)
                except Blocked:
                    await self.session.server.let_go_by()
                    await self.session.come_to("statement")
        except sqlite3.OperationalError as error:
            raise OperationalError(None, None, error) from error

    async def stream(self, statement: Executable, parameters: Any = None) -> AsyncIterator[Any]:
        """One statement, its rows one by one."""
        return _one_by_one(await self.execute(statement, parameters))

    async def commit(self) -> None:
        """Make it last."""
        try:
            await self.session.commit()
        except sqlite3.OperationalError as error:
            raise OperationalError(None, None, error) from error

    async def execution_options(self, **_options: Any) -> "SimulatedConnection":
        """There is one way to read."""
        return self

    async def run_sync(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Let a function have the connection."""
        self._wire.session = self.session
        return function(self._sync, *arguments)


async def _one_by_one(rows: Any) -> AsyncIterator[Any]:
    for row in rows:
        yield row


class Wire:
    """The one DBAPI connection of a server. Whose transaction it is that executes is told to it each time."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.session: Session | None = None

    def cursor(self) -> "Cursor":
        """For one statement."""
        return Cursor(self)

    def commit(self) -> None:
        """The session sees to that."""

    def rollback(self) -> None:
        """The session sees to that."""

    def close(self) -> None:
        """It stays open."""

    def create_function(self, *_arguments: Any, **_options: Any) -> None:
        """Nobody needs `regexp`."""


class Cursor:
    """What SQLAlchemy needs of a cursor. All rows are there at once."""

    arraysize = 1

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = 0

    def execute(self, sql: str, values: Any = ()) -> None:
        """One statement. Raises Blocked."""
        passes_over = self._admit(sql)
        self._take(self._wire.server.disk.execute(sql, values))
        if passes_over:
            self._rows = []

    def executemany(self, sql: str, values: Sequence[Any]) -> None:
        """One statement for each row. Raises Blocked."""
        self._admit(sql)
        self._take(self._wire.server.disk.executemany(sql, values))

    def fetchone(self) -> Any:
        """The next row."""
        return self._rows.pop(0) if self._rows else None

    def fetchmany(self, size: int = FETCHED) -> list[Any]:
        """Some rows."""
        taken, self._rows = self._rows[:size], self._rows[size:]
        return taken

    def fetchall(self) -> list[Any]:
        """All rows."""
        taken, self._rows = self._rows, []
        return taken

    def close(self) -> None:
        """Nothing is held."""

    def _admit(self, sql: str) -> bool:
        server, session = self._wire.server, self._wire.session
        return session is not None and server.admit(session, server.kind_of(sql))

    def _take(self, done: sqlite3.Cursor) -> None:
        self.description, self.rowcount, self.lastrowid = done.description, done.rowcount, done.lastrowid
        self._rows = done.fetchall() if done.description else []


class _Compiler(SQLiteCompiler):
    """Leaves a mark where a server would lock rows: SQLite's own compiler leaves `FOR UPDATE` out."""

    def for_update_clause(self, select: Select[Any], **_options: Any) -> str:
        """`/*wait sagas*/` or `/*skip sagas*/`."""
        wanted, [source, *_] = select._for_update_arg, select.get_final_froms()
        how = "skip" if wanted is not None and wanted.skip_locked else "wait"
        return f" /*{how} {getattr(source, 'name', '')}*/"
