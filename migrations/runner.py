"""Up, down, and where are we: each in one transaction, so that a failed migration leaves the database as it was.

Alembic is usually driven through an env.py and a global `op`. Two databases that are migrated at once in one event loop
would share that global, and one would get the other's tables. Here a revision is handed its `op`.

Any number of replicas may upgrade at once. On PostgreSQL they queue on an advisory lock that ends with the
transaction, on SQLite on the write lock; whoever comes second finds everything done.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from migrations.drift import drift
from migrations.errors import NoSuchRevision, WrongDatabase
from migrations.history import head, history, position, revisions
from migrations.registry import MODELS
from outbox.database import Database
from outbox.errors import DatabaseOutOfReach

logging.getLogger("alembic").setLevel(logging.WARNING)


async def upgrade(database: Database, role: str, revision: str = "head") -> list[str]:
    """Bring the database up to `revision`, and tell which revisions were applied, oldest first: none if it is there.

    The file of an SQLite database is made, and its folder. Raises WrongDatabase, NoSuchRevision, DatabaseOutOfReach.
    """
    history(role)
    _make_folder(database)
    async with _alone(database) as connection:
        return await connection.run_sync(_upgrade, role, revision, str(database))


async def downgrade(database: Database, role: str, revision: str) -> list[str]:
    """Take the database back to `revision` ("base": no tables), and tell which revisions were undone, newest first.

    What the tables and columns of these revisions held is lost. Raises WrongDatabase, NoSuchRevision,
    DatabaseOutOfReach.
    """
    history(role)
    if _is_absent(database):
        return []
    async with _alone(database) as connection:
        return await connection.run_sync(_downgrade, role, revision, str(database))


async def current(database: Database, role: str) -> str | None:
    """The revision that the database is at; None: no tables yet. Raises WrongDatabase, DatabaseOutOfReach."""
    history(role)
    if _is_absent(database):
        return None
    async with database.reading() as connection:
        return await connection.run_sync(_current, role, str(database))


async def check(database: Database, role: str) -> list[str]:
    """What differs between the database and this release's models, one sentence each; none when they agree.

    Raises WrongDatabase, DatabaseOutOfReach.
    """
    found = await current(database, role)
    if found is None:
        return [f"the database {database} has no tables yet: run `saga db upgrade`"]
    async with database.reading() as connection:
        differences = await connection.run_sync(drift, MODELS[role])
    if found == head(role):
        return differences
    behind = f"the database is at {found} and this release works with {head(role)}: run `saga db upgrade`"
    return [behind, *differences]


def _upgrade(connection: Connection, role: str, revision: str, name: str) -> list[str]:
    if _current(connection, role, name) is None:
        _refuse_strangers(connection, role, name)
    return _run(connection, role, lambda found: history(role)._upgrade_revs(revision, found))


def _downgrade(connection: Connection, role: str, revision: str, name: str) -> list[str]:
    if _current(connection, role, name) is None:
        return []
    return _run(connection, role, lambda found: history(role)._downgrade_revs(revision, found))


def _run(connection: Connection, role: str, plan: Any) -> list[str]:
    """Take the steps that `plan` names, given where the database is."""
    taken: list[str] = []

    def steps(found: Any, _context: MigrationContext) -> Any:
        todo = plan(found)
        taken.extend(step.revision.revision for step in todo)
        return todo

    context = MigrationContext.configure(connection, opts={"fn": steps})
    try:
        context.run_migrations(op=Operations(context))
    except CommandError as error:
        raise NoSuchRevision(f"{error}. The revisions of {role} are {', '.join(revisions(role))}") from error
    return taken


def _current(connection: Connection, role: str, name: str) -> str | None:
    return position(role, MigrationContext.configure(connection).get_current_heads(), name)


def _refuse_strangers(connection: Connection, role: str, name: str) -> None:
    """Without a revision a database must hold none of our names, or the first one would fail half-way through."""
    taken = sorted(set(MODELS[role].tables) & set(inspect(connection).get_table_names()))
    if taken:
        raise WrongDatabase(
            f"the database {name} holds the tables {', '.join(taken)}, but not which release made them: "
            f"they are not ours to change. Give the role {role} an empty database"
        )


@asynccontextmanager
async def _alone(database: Database) -> AsyncIterator[AsyncConnection]:
    """A transaction that no other migration of the same database runs beside."""
    async with database.transaction() as connection:
        if database.dialect == "postgresql":
            await connection.execute(text("SET LOCAL lock_timeout = 0"))  # whoever migrates may take a while
            await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('amends migrations'))"))
        yield connection


def _file(database: Database) -> Path | None:
    path = database.url.database if database.dialect == "sqlite" else None
    return None if path in (None, "", ":memory:") else Path(str(path))


def _is_absent(database: Database) -> bool:
    """Whether there is not even a file, which looking would make."""
    file = _file(database)
    return file is not None and not file.exists()


def _make_folder(database: Database) -> None:
    if (file := _file(database)) is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseOutOfReach(f"the folder of the database {database} cannot be made ({error})") from error
