"""A timer, or a beginning, that was lost to another replica is that replica's: nobody moves it out of the way.

Found by the simulation. A replica that fires its timers one by one took a lost race for a saga that cannot be handled,
and put its timer off: over the new one of the replica that had won, or into a saga that had ended meanwhile.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from orchestrator.engine import Engine
from orchestrator.store import BEATEN, LostRace
from orchestrator.tables import sagas
from outbox.unit_of_work import UnitOfWork
from tests.support.servers import DatabaseUrls
from tests.support.world import DAWN, SQLITE_IS_ENOUGH, THREE_TIMES, Desk, OwnedClock, World, an_order, definitions_with

pytestmark = SQLITE_IS_ENOUGH
DEFINITIONS = definitions_with(THREE_TIMES)


def losing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every race of this replica is lost from now on."""

    def lose(_engine: Engine, _unit: UnitOfWork, _stored: Any, _events: Sequence[Any]) -> None:
        raise LostRace(BEATEN)

    monkeypatch.setattr(type(desk.engine), "apply", lose)


async def test_a_timer_that_was_lost_to_another_replica_is_not_put_off(
    database_urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = OwnedClock()
    async with World(database_urls, roles=("orchestrator",), definitions=DEFINITIONS, clock=clock) as world:
        desk = world.desk()
        saga_id = (await desk.start(an_order())).saga_id
        due = (await world.saga(saga_id)).due_at
        clock.advance(timedelta(seconds=30))
        losing(desk, monkeypatch)
        await desk.engine.fire_timers()
        [row] = await world.rows("orchestrator", select(sagas.c.due_at))
        assert row.due_at == due
        assert await world.findings() == []


async def test_only_a_timer_that_is_still_due_is_put_off(database_urls: DatabaseUrls) -> None:
    clock = OwnedClock()
    async with World(database_urls, roles=("orchestrator",), definitions=DEFINITIONS, clock=clock) as world:
        desk = world.desk()
        saga_id = (await desk.start(an_order())).saga_id
        before = (await world.saga(saga_id)).due_at
        async with desk.outbox.unit_of_work() as unit:
            await desk.engine.store.postpone(unit.connection, saga_id, unit.now, DAWN + timedelta(hours=1))
        [row] = await world.rows("orchestrator", select(sagas.c.due_at))
        assert row.due_at == before, "it was set anew by whoever moved the saga on"


async def test_a_beginning_that_was_lost_to_another_replica_is_not_put_off(
    database_urls: DatabaseUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = OwnedClock()
    async with World(database_urls, roles=("orchestrator",), definitions=DEFINITIONS, clock=clock) as world:
        desk = world.desk()
        begins_at = DAWN + timedelta(seconds=10)
        await desk.start(an_order(), begins_at=begins_at)
        clock.advance(timedelta(seconds=30))
        losing(desk, monkeypatch)
        assert await desk.admit() == 0
        [row] = await world.rows("orchestrator", select(sagas.c.begins_at))
        assert row.begins_at == begins_at


async def test_a_saga_that_has_begun_meanwhile_is_not_made_to_wait(database_urls: DatabaseUrls) -> None:
    clock = OwnedClock()
    async with World(database_urls, roles=("orchestrator",), definitions=DEFINITIONS, clock=clock) as world:
        desk = world.desk()
        saga_id = (await desk.start(an_order())).saga_id
        await desk.admission._postpone(saga_id)
        [row] = await world.rows("orchestrator", select(sagas.c.begins_at))
        assert row.begins_at is None
