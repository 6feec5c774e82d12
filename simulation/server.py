"""A database server, simulated: SQLite in memory beneath, and above it what a server does that SQLite does not.

- Transactions of several replicas are open at once (READ COMMITTED). Whoever writes first holds the others off until
  it has committed; whoever locked rows (`FOR UPDATE`) holds off those who want to lock or change that table.
- A replica that falls asleep in a transaction is rolled back, and its connection closed, as PostgreSQL does it.
- It goes away and comes back; a connection breaks; the answer to a COMMIT is lost.
- With `locks=False` no row lock is ever held: what stays then is the check of the revision (rule 7).

Rows are locked by the table, not each for itself: coarser than PostgreSQL, and never laxer.
"""

import asyncio
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Select
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_dbapi
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool
from sqlalchemy.util.concurrency import await_

from simulation.boundary import CURRENT, Place, Traveller

LOCK_TIMEOUT: Final = 5.0
IDLE_TIMEOUT: Final = 10.0
"""Seconds, as in `outbox.database.SERVER_SETTINGS`."""

Locking = Literal["none", "wait", "skip"]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a statement does."""

    writes: bool
    changes: str | None
    """The table whose rows it changes or removes."""

    locking: Locking
    locks: str | None


_HEAD: Final = re.compile(r"\s*(\w+)(?:\s+(?:OR\s+\w+\s+)?(?:INTO\s+|FROM\s+)?(\w+))?", re.IGNORECASE)
_LOCK: Final = re.compile(r"/\*(wait|skip) (\w+)\*/")


def kind_of(sql: str) -> Kind:
    """Read off a statement what it does."""
    head, lock = _HEAD.match(sql), _LOCK.search(sql)
    verb, table = (head[1].upper(), head[2]) if head else ("", None)
    locking: Locking = "none" if lock is None else "wait" if lock[1] == "wait" else "skip"
    changes = table if verb in ("UPDATE", "DELETE") else None
    return Kind(verb not in ("SELECT", "PRAGMA", "EXPLAIN"), changes, locking, lock[2] if lock else None)


class Server:
    """One role's database. It outlives a schedule: `restore` makes it as new."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.disk = sqlite3.connect(":memory:", isolation_level=None, cached_statements=1000)
        self.is_up = True
        self.locks_rows = True
        self.on_commit: Callable[[], None] = lambda: None
        self._kinds: dict[str, Kind] = {}
        self._sessions: list[Session] = []
        self._writer: Session | None = None
        self._locks: dict[str, Session] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._image: dict[str, list[tuple[Any, ...]]] = {}

    # --- for SQLAlchemy

    def engine_options(self) -> Mapping[str, Any]:
        """Another driver, and a connection for each transaction."""
        return {"module": _Driver(self), "poolclass": NullPool}

    def prepare(self, engine: AsyncEngine) -> None:
        """SQLite's own compiler leaves `FOR UPDATE` out."""
        engine.dialect.statement_compiler = _Compiler

    # --- for the simulation

    def remember(self) -> None:
        """This is how `restore` makes it."""
        names = [row[0] for row in self.disk.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        self._image = {name: list(self.disk.execute(f'SELECT * FROM "{name}"')) for name in names}  # noqa: S608

    def restore(self, *, locks: bool = True) -> None:
        """As new."""
        self.close_all()
        self.is_up, self.locks_rows, self.on_commit = True, locks, lambda: None
        self._waiting.clear()
        self.disk.execute("BEGIN")
        for name, rows in self._image.items():
            self.disk.execute(f'DELETE FROM "{name}"')  # noqa: S608
            if rows:
                marks = ",".join("?" * len(rows[0]))
                self.disk.executemany(f'INSERT INTO "{name}" VALUES ({marks})', rows)  # noqa: S608
        self.disk.execute("COMMIT")

    def ask(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """A look past everybody, at what is committed. Not while somebody writes."""
        return self.disk.execute(sql, values).fetchall()

    @property
    def is_writing(self) -> bool:
        """Whether somebody has written what is not committed yet."""
        return self._writer is not None

    def close_all(self, process: Traveller | None = None) -> None:
        """Close the connections of a process that has died, or all."""
        for session in [one for one in self._sessions if process is None or one.process is process]:
            session.end()

    def freeze(self, process: Traveller, seconds: float) -> int:
        """A process falls asleep. Returns how many of its transactions will be taken back meanwhile."""
        begun = [one for one in self._sessions if one.process is process and one.is_begun]
        if seconds <= IDLE_TIMEOUT:
            return 0
        for session in begun:
            asyncio.get_running_loop().call_later(IDLE_TIMEOUT, session.end, session.number)
        return len(begun)

    # --- for its sessions

    def open(self, session: "Session") -> None:
        """Somebody has connected."""
        self._sessions.append(session)

    def kind_of(self, sql: str) -> Kind:
        """What a statement does."""
        kind = self._kinds.get(sql)
        if kind is None:
            kind = self._kinds[sql] = kind_of(sql)
        return kind

    async def admit(self, session: "Session", kind: Kind) -> bool:
        """Wait until a statement may run. Returns whether what it locks is passed over."""
        while (obstacle := self._obstacle(session, kind)) is not None:
            if obstacle == "lock" and kind.locking == "skip":
                return True
            await self._wait()
            session.check()
        if kind.writes and self._writer is None:
            self.disk.execute("BEGIN")
            self._writer = session
        if kind.locks is not None and self.locks_rows:
            self._locks[kind.locks] = session
        return False

    def release(self, session: "Session", verb: Literal["COMMIT", "ROLLBACK"]) -> None:
        """The end of a transaction, of whichever kind."""
        if self._writer is session:
            self._writer = None
            self.disk.execute(verb)
            if verb == "COMMIT":
                self.on_commit()
        for table in [table for table, holder in self._locks.items() if holder is session]:
            del self._locks[table]
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def forget(self, session: "Session") -> None:
        """Somebody has left."""
        if session in self._sessions:
            self._sessions.remove(session)

    def _obstacle(self, session: "Session", kind: Kind) -> str | None:
        if self._writer is not None and self._writer is not session:
            return "writer"
        for table in (kind.locks, kind.changes):
            if table is not None and self._locks.get(table, session) is not session:
                return "lock"
        return None

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        timer = loop.call_later(LOCK_TIMEOUT, _time_out, future)
        try:
            await future
        finally:
            timer.cancel()


def _time_out(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(sqlite3.OperationalError("canceling statement due to lock timeout"))


class Session(AdaptedConnection):
    """A connection, as SQLAlchemy sees it. It belongs to the process that is running when it is opened."""

    __slots__ = ("_connection", "is_begun", "is_closed", "number", "process", "server")

    def __init__(self, server: Server) -> None:
        self._connection = self
        self.server = server
        self.process = CURRENT.get()
        self.is_begun = False
        self.is_closed = False
        self.number = 0
        """Counts its transactions."""

        server.open(self)

    def cursor(self, server_side: bool = False) -> "Cursor":
        """For one statement."""
        return Cursor(self)

    def commit(self) -> None:
        """Make it last."""
        if self.is_begun:
            await_(self._commit())

    def rollback(self) -> None:
        """As if nothing had been."""
        if self.is_begun:
            self.is_begun = False
            self.number += 1
            self.server.release(self, "ROLLBACK")

    def close(self) -> None:
        """Leave."""
        self.end()
        self.server.forget(self)

    terminate = close

    def create_function(self, *_args: Any, **_options: Any) -> None:
        """Nobody needs `regexp`."""

    def end(self, number: int | None = None) -> None:
        """The server closes the connection; if a number is given, only in this very transaction."""
        if number is None or (number == self.number and self.is_begun):
            self.rollback()
            self.is_closed = True

    async def run(self, sql: str, values: Any, many: bool) -> tuple[Any, list[Any], int, int]:
        """One statement: description, rows, how many were met, the last id."""
        await self._pass("statement")
        kind = self.server.kind_of(sql)
        self.is_begun = True
        passes_over = await self.server.admit(self, kind)
        disk = self.server.disk
        done = disk.executemany(sql, values) if many else disk.execute(sql, values)
        rows = done.fetchall() if done.description else []
        if passes_over:
            rows = []
        return done.description, rows, done.rowcount, done.lastrowid or 0

    async def _commit(self) -> None:
        await self._pass("commit")
        self.is_begun = False
        self.number += 1
        self.server.release(self, "COMMIT")
        await self._pass("committed")

    async def _pass(self, place: Place) -> None:
        if self.process is not None:
            await self.process.come_to(place, self.end)
        self.check()

    def check(self) -> None:
        """Raises sqlite3.OperationalError when the connection is of no use any more."""
        if not self.server.is_up:
            self.end()
            raise sqlite3.OperationalError("the database does not answer: no active connection")
        if self.is_closed:
            raise sqlite3.OperationalError("the server has closed the connection: no active connection")


class Cursor:
    """What SQLAlchemy needs of a cursor. All rows are there at once."""

    arraysize = 1
    server_side = False

    def __init__(self, session: Session) -> None:
        self._session = session
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid = 0

    def execute(self, sql: str, values: Any = ()) -> "Cursor":
        """One statement."""
        self.description, self._rows, self.rowcount, self.lastrowid = await_(
            self._session.run(sql, values or (), False)
        )
        return self

    def executemany(self, sql: str, values: Sequence[Any]) -> "Cursor":
        """One statement for each row."""
        self.description, self._rows, self.rowcount, self.lastrowid = await_(self._session.run(sql, values, True))
        return self

    def fetchone(self) -> Any:
        """The next row."""
        return self._rows.pop(0) if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Some rows."""
        size = self.arraysize if size is None else size
        taken, self._rows = self._rows[:size], self._rows[size:]
        return taken

    def fetchall(self) -> list[Any]:
        """All rows."""
        taken, self._rows = self._rows, []
        return taken

    def close(self) -> None:
        """Nothing is held."""
        self._rows = []

    async def _async_soft_close(self) -> None:
        """Nothing is held."""


class _Driver(AsyncAdapt_aiosqlite_dbapi):
    """aiosqlite's place is taken by the server."""

    def __init__(self, server: Server) -> None:
        aiosqlite = __import__("aiosqlite")
        super().__init__(aiosqlite, sqlite3)
        self._server = server

    def connect(self, *_args: Any, **_options: Any) -> Any:
        """A connection for whoever is running."""
        return Session(self._server)


class _Compiler(SQLiteCompiler):
    """Leaves a mark where a server would lock rows."""

    def for_update_clause(self, select: Select[Any], **_options: Any) -> str:
        """`/*wait sagas*/` or `/*skip sagas*/`."""
        wanted, [source, *_] = select._for_update_arg, select.get_final_froms()
        how = "skip" if wanted is not None and wanted.skip_locked else "wait"
        return f" /*{how} {getattr(source, 'name', '')}*/"
