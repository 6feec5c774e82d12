"""The real servers that tests run against: which PostgreSQL, and fresh databases in it."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

from sqlalchemy import make_url

from orchestrator.embedded.postgres import EmbeddedPostgres, administer, create_statements, drop_statements

Role = Literal["orchestrator", "order", "inventory", "payment"]
EXISTING_POSTGRES_VARIABLE = "SAGA_TEST_POSTGRES_URL"


class Postgres(Protocol):
    """A PostgreSQL server that databases can be made in."""

    def url(self, database: str = ...) -> str: ...
    def create_database(self, *names: str) -> None: ...
    def drop_database(self, *names: str) -> None: ...


class ExistingPostgres:
    """A server that somebody else runs; the user in its URL must be allowed to create databases."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)

    def url(self, database: str = "postgres") -> str:
        return self._render("postgresql+asyncpg", database)

    def create_database(self, *names: str) -> None:
        self._administer(create_statements(names))

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
        yield ExistingPostgres(existing)
    else:
        with EmbeddedPostgres(durable=False) as server:
            yield server


class DatabaseUrls(Protocol):
    """Gives each role its own database, empty at first. Asked again, it gives the same one."""

    def __call__(self, role: Role) -> str: ...


class SqliteDatabases:
    """One file per role in a folder that the test owns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, role: Role) -> str:
        return f"sqlite+aiosqlite:///{self._folder / role}.db"


class PostgresDatabases:
    """One database per role, under names that no other test or run uses."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._suffix = secrets.token_hex(6)
        self._names: dict[Role, str] = {}

    def __call__(self, role: Role) -> str:
        if role not in self._names:
            name = f"{role}_{self._suffix}"
            self._server.create_database(name)
            self._names[role] = name
        return self._server.url(self._names[role])

    def drop(self) -> None:
        """Drop them all, whoever is still connected."""
        if self._names:
            self._server.drop_database(*self._names.values())
