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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

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


class Blocked(Exception):
    """A statement has to wait for somebody."""


class Server:
    """One role's database. It outlives a schedule: `restore` makes it as new."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.disk = sqlite3.connect(":memory:", isolation_level=None, cached_statements=1000)
        self.is_up = True
        self.locks_rows = True
        self.on_commit: Callable[[], None] = lambda: None
        self.commits = 0
        """How often somebody has changed something."""

        self._kinds: dict[str, Kind] = {}
        self.sessions: list[Session] = []
        self._writer: Session | None = None
        self._locks: dict[str, Session] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._image: dict[str, list[tuple[Any, ...]]] = {}

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
        for session in [one for one in self.sessions if process is None or one.process is process]:
            session.end()

    def freeze(self, process: Traveller, seconds: float) -> int:
        """A process falls asleep. Returns how many of its transactions will be taken back meanwhile."""
        begun = [one for one in self.sessions if one.process is process and one.is_begun]
        if seconds <= IDLE_TIMEOUT:
            return 0
        for session in begun:
            asyncio.get_running_loop().call_later(IDLE_TIMEOUT, session.end)
        return len(begun)

    # --- for its sessions

    def kind_of(self, sql: str) -> Kind:
        """What a statement does."""
        kind = self._kinds.get(sql)
        if kind is None:
            kind = self._kinds[sql] = kind_of(sql)
        return kind

    def admit(self, session: "Session", kind: Kind) -> bool:
        """Let a statement run, and hold what it needs. Returns whether what it locks is passed over. Raises Blocked."""
        obstacle = self._obstacle(session, kind)
        if obstacle == "lock" and kind.locking == "skip":
            return True
        if obstacle is not None:
            raise Blocked
        session.is_begun = True
        if kind.writes and self._writer is None:
            self.disk.execute("BEGIN")
            self._writer = session
        if kind.locks is not None and self.locks_rows:
            self._locks[kind.locks] = session
        return False

    async def let_go_by(self) -> None:
        """Wait until somebody has let go of something. Raises sqlite3.OperationalError when it takes too long."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append(future)
        timer = loop.call_later(LOCK_TIMEOUT, _time_out, future)
        try:
            await future
        finally:
            timer.cancel()

    def release(self, session: "Session", verb: Literal["COMMIT", "ROLLBACK"]) -> None:
        """The end of a transaction, of whichever kind."""
        if self._writer is session:
            self._writer = None
            self.disk.execute(verb)
            if verb == "COMMIT":
                self.commits += 1
                self.on_commit()
        for table in [table for table, holder in self._locks.items() if holder is session]:
            del self._locks[table]
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _obstacle(self, session: "Session", kind: Kind) -> str | None:
        if self._writer is not None and self._writer is not session:
            return "writer"
        for table in (kind.locks, kind.changes):
            if table is not None and self._locks.get(table, session) is not session:
                return "lock"
        return None


def _time_out(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(sqlite3.OperationalError("canceling statement due to lock timeout"))


class Session:
    """A transaction of one process: of the one that is running when it is opened."""

    __slots__ = ("is_begun", "is_closed", "process", "server")

    def __init__(self, server: Server) -> None:
        self.server = server
        self.process = CURRENT.get()
        self.is_begun = False
        self.is_closed = False
        server.sessions.append(self)

    async def come_to(self, place: Place) -> None:
        """Come to a boundary. Raises sqlite3.OperationalError when the connection is of no use any more."""
        if self.process is not None:
            await self.process.come_to(place, self.end)
        if not self.server.is_up:
            self.end()
            raise sqlite3.OperationalError("the database does not answer")
        if self.is_closed:
            raise sqlite3.OperationalError("the server has closed the connection")

    async def commit(self) -> None:
        """Make it last."""
        if self.is_begun:
            await self.come_to("commit")
            self.is_begun = False
            self.server.release(self, "COMMIT")
            await self.come_to("committed")

    def rollback(self) -> None:
        """As if nothing had been."""
        if self.is_begun:
            self.is_begun = False
            self.server.release(self, "ROLLBACK")

    def end(self) -> None:
        """The connection is closed, by whichever side."""
        self.rollback()
        self.is_closed = True

    def leave(self) -> None:
        """It is over."""
        self.rollback()
        if self in self.server.sessions:
            self.server.sessions.remove(self)
