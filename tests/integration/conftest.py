"""Fixtures for the engine and what stands around it: an orchestrator's database, a clock of the test's own, no broker.

A module that needs other sagas than place-order overrides `definitions`.
"""

from collections.abc import AsyncIterator

import pytest

from orchestrator.registry import Definitions
from tests.support.messaging import OpenDatabase, opened
from tests.support.servers import DatabaseUrls, Postgres, PostgresDatabases
from tests.support.world import THREE_TIMES, Desk, OwnedClock, World, definitions_with


@pytest.fixture
async def open_database(database_urls: DatabaseUrls) -> AsyncIterator[OpenDatabase]:
    """Opens the database of a role, with its tables."""
    async with opened(database_urls) as open_one:
        yield open_one


@pytest.fixture
def clock() -> OwnedClock:
    """Stands still at dawn."""
    return OwnedClock()


@pytest.fixture
def definitions() -> Definitions:
    """What the replicas of the test run: place-order, asked three times, every ten seconds."""
    return definitions_with(THREE_TIMES)


@pytest.fixture
async def world(database_urls: DatabaseUrls, definitions: Definitions, clock: OwnedClock) -> AsyncIterator[World]:
    """An orchestrator's database of either kind, and the check that every saga's log is the truth."""
    async with World(database_urls, roles=["orchestrator"], definitions=definitions, clock=clock) as world:
        yield world
        assert await world.findings() == []


@pytest.fixture
async def on_postgresql(postgres: Postgres, definitions: Definitions, clock: OwnedClock) -> AsyncIterator[World]:
    """The same, for what SQLite with its one writer does not have."""
    databases = PostgresDatabases(postgres)
    try:
        async with World(databases, roles=["orchestrator"], definitions=definitions, clock=clock) as world:
            yield world
            assert await world.findings() == []
    finally:
        databases.drop()


@pytest.fixture
def desk(world: World) -> Desk:
    """One replica's engine."""
    return world.desk()
