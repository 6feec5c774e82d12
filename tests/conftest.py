"""Fixtures for real servers. With pytest-xdist each worker has its own; none of them outlives the run.

A server that cannot be started fails the tests that ask for it: they are never skipped.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from orchestrator.embedded.nats_server import EmbeddedNats
from tests.support.servers import (
    DatabaseUrls,
    Postgres,
    PostgresDatabases,
    SqliteDatabases,
    postgres_server,
)

settings.register_profile("steady", derandomize=True)
"""What CI asks for: a change fails for what it has changed. `make test` looks for more each time."""


@pytest.fixture(autouse=True)
def log_of_its_own() -> Iterator[None]:
    """A test that runs a command in this process lets the log go to its own stderr, which ends with the test."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNats]:
    """One server for the whole run, for tests that leave nothing in it and do not stop it."""
    with EmbeddedNats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[EmbeddedNats]:
    """A server of the test's own: empty, and free to be killed, restarted or wiped."""
    with EmbeddedNats(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def nats_url(nats: EmbeddedNats) -> str:
    """Where the test's own server is."""
    return nats.url


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for the whole run, without fsync. To stop or kill one, make an EmbeddedPostgres."""
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_urls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DatabaseUrls]:
    """Runs the test on each kind of database; `database_urls("order")` is the URL of a fresh, empty one."""
    if request.param == "sqlite":
        yield SqliteDatabases(tmp_path)
        return
    databases = PostgresDatabases(request.getfixturevalue("postgres"))
    try:
        yield databases
    finally:
        databases.drop()
