"""Databases of both kinds that a test may take away and give back."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Protocol

import asyncpg
from sqlalchemy import event, text

from orchestrator.embedded.postgres import EmbeddedPostgres
from outbox.database import Database


class Breakable(Protocol):
    """An empty database that can be out of reach for a while."""

    def open(self) -> Database:
        """Another door to it."""
        ...

    def outage(self) -> AbstractAsyncContextManager[None]:
        """While the block runs nobody gets through."""
        ...


class BreakableSqlite:
    """Its outage: somebody else holds the write lock, for longer than we are willing to wait."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def open(self) -> Database:
        database = Database(f"sqlite:///{self._file}")
        be_impatient(database)
        return database

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        with closing(sqlite3.connect(self._file, isolation_level=None)) as somebody:
            somebody.execute("BEGIN IMMEDIATE")
            yield


class BreakablePostgres:
    """Its outage: the server is not there."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server

    def open(self) -> Database:
        return Database(self._server.url())

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        await asyncio.to_thread(self._server.kill)
        try:
            yield
        finally:
            await asyncio.to_thread(self._server.start)


@contextmanager
def breakable_database(kind: str, folder: Path) -> Iterator[Breakable]:
    """An empty database of this kind, with a server of its own if it needs one."""
    if kind == "sqlite":
        yield BreakableSqlite(folder / "breakable.db")
    else:
        with EmbeddedPostgres() as server:
            yield BreakablePostgres(server)


def be_impatient(database: Database) -> None:
    """Let an SQLite database wait for a lock for 50 ms, and not for 15 s."""

    def shorten(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA busy_timeout=50")

    event.listen(database.engine.sync_engine, "connect", shorten)


@asynccontextmanager
async def failed_over(database: Database) -> AsyncIterator[None]:
    """A PostgreSQL database takes no writes while the block runs, and from those who connect meanwhile none later."""
    server = await asyncpg.connect(database.url.set(drivername="postgresql").render_as_string(hide_password=False))
    try:
        alter = f'ALTER DATABASE "{database.url.database}"'
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        await server.execute(f"{alter} SET default_transaction_read_only = on")
        await server.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")  # noqa: S608
        try:
            yield
        finally:
            await server.execute(f"{alter} RESET default_transaction_read_only")
    finally:
        await server.close()


@asynccontextmanager
async def locked(database: Database, table: str) -> AsyncIterator[None]:
    """Somebody holds a lock on a table of a PostgreSQL database, as CREATE INDEX does: nobody else can write to it."""
    async with database.transaction() as connection:
        await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        await connection.execute(text(f"LOCK TABLE {table} IN SHARE MODE"))
        yield
