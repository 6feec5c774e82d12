"""The real servers that tests run against: which PostgreSQL, and fresh databases in it.

Hundreds of tests want a database with the tables of a role. The migrations make it once, and the others are copies.
"""

import atexit
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal, Protocol

from sqlalchemy import make_url

from migrations.runner import upgrade
from orchestrator.embedded.postgres import EmbeddedPostgres, administer, create_statements, drop_statements
from outbox.database import Database

Role = Literal["orchestrator", "order", "inventory", "payment"]
EXISTING_POSTGRES_VARIABLE = "SAGA_TEST_POSTGRES_URL"


class Postgres(Protocol):
    """A PostgreSQL server that databases can be made in."""

    def url(self, database: str = ...) -> str: ...
    def create_database(self, *names: str, template: str = ...) -> None: ...
    def drop_database(self, *names: str) -> None: ...


class ExistingPostgres:
    """A server that somebody else runs; the user in its URL must be allowed to create databases."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)

    def url(self, database: str = "postgres") -> str:
        return self._render("postgresql+asyncpg", database)

    def create_database(self, *names: str, template: str = "template1") -> None:
        self._administer(create_statements(names, template))

    def drop_database(self, *names: str) -> None:
        self._administer(drop_statements(names))

    def _administer(self, statements: list[str]) -> None:
        administer(self._render("postgresql", self._url.database or "postgres"), *statements)

    def _render(self, driver: str, database: str) -> str:
        return self._url.set(drivername=driver, database=database).render_as_string(hide_password=False)


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """The server that SAGA_TEST_POSTGRES_URL names, or else one of our own that is gone afterwards."""
    if existing := os.environ.get(EXISTING_POSTGRES_VARIABLE):
        theirs = ExistingPostgres(existing)
        try:
            yield theirs
        finally:
            theirs.drop_database(*(name for (server, _), name in _templates.items() if server == theirs.url()))
    else:
        with EmbeddedPostgres(durable=False) as ours:
            yield ours


class DatabaseUrls(Protocol):
    """Gives each role its own database, empty at first. Asked again, it gives the same one."""

    def __call__(self, role: Role) -> str: ...

    async def migrated(self, role: Role) -> str:
        """The same, with the tables of this release."""
        ...


class SqliteDatabases:
    """One file per role in a folder that the test owns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, role: Role) -> str:
        return f"sqlite+aiosqlite:///{self._file(role)}"

    async def migrated(self, role: Role) -> str:
        """A copy of the role's first one, if nothing is there yet."""
        key = "sqlite", role
        if key not in _templates:
            _templates[key] = f"{_sqlite_templates.name}/{role}.db"
            await _migrate(f"sqlite:///{_templates[key]}", role)
        if not self._copy(_templates[key], self._file(role)):
            await _migrate(self(role), role)
        return self(role)

    def _copy(self, template: str, file: Path) -> bool:
        if file.exists():
            return False
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(template, file)
        return True

    def _file(self, role: Role) -> Path:
        return self._folder / f"{role}.db"


class PostgresDatabases:
    """One database per role, under names that no other test or run uses."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._suffix = secrets.token_hex(6)
        self._names: dict[Role, str] = {}

    def __call__(self, role: Role) -> str:
        if role not in self._names:
            self._create(role, "template1")
        return self._server.url(self._names[role])

    async def migrated(self, role: Role) -> str:
        """A copy of the role's first one, if nothing is there yet."""
        if role in self._names:
            await _migrate(self(role), role)
        else:
            self._create(role, await self._template(role))
        return self(role)

    def drop(self) -> None:
        """Drop them all, whoever is still connected."""
        if self._names:
            self._server.drop_database(*self._names.values())

    def _create(self, role: Role, template: str) -> None:
        name = f"{role}_{self._suffix}"
        self._server.create_database(name, template=template)
        self._names[role] = name

    async def _template(self, role: Role) -> str:
        key = self._server.url(), role
        if key not in _templates:
            name = f"{role}_template_{self._suffix}"
            self._server.create_database(name)
            await _migrate(self._server.url(name), role)
            _templates[key] = name
        return _templates[key]


_templates: Final[dict[tuple[str, Role], str]] = {}
"""(server, role) -> the database, or the file, that the others are copied from."""

_sqlite_templates: Final = TemporaryDirectory(prefix="amends-templates-")
atexit.register(_sqlite_templates.cleanup)


async def _migrate(url: str, role: Role) -> None:
    database = Database(url)
    await upgrade(database, role)
    await database.close()
