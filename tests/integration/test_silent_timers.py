"""No timer fires while no command can leave: ten minutes without NATS are no reason to give anything up."""

import asyncio
from datetime import timedelta
from typing import cast

import pytest

from orchestrator import timers as timers_module
from orchestrator.definition import Policy
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.engine import Engine
from orchestrator.timers import SENDING, run_timers
from outbox.clock import DatabaseClock
from outbox.outages import Outages, Resource, report_to
from outbox.relay import lane_to
from outbox.topology import EVENTS
from tests.support.servers import DatabaseUrls
from tests.support.waiting import eventually
from tests.support.world import ROLES, SQLITE_IS_ENOUGH, World, an_order, definitions_with

ASKED_ONCE = Policy(timeout=timedelta(seconds=2), attempts=1, factor=1.0, jitter=0.0)


class Counting:
    """An engine of which only the timers are looked at."""

    fired = 0

    async def fire_timers(self) -> int:
        self.fired += 1
        return 0

    async def fires(self) -> bool:
        """Whether it does, in the time of many ticks."""
        before = self.fired
        await asyncio.sleep(50 * timers_module.TICK)
        return self.fired > before


@pytest.mark.parametrize("noticed_by", SENDING)
async def test_no_timer_fires_while_no_command_can_leave(monkeypatch: pytest.MonkeyPatch, noticed_by: str) -> None:
    monkeypatch.setattr(timers_module, "TICK", 0.002)
    monkeypatch.setattr(timers_module, "SETTLING", 0.0)
    engine, outages = Counting(), Outages()
    report_to(outages)
    firing = asyncio.create_task(run_timers(cast(Engine, engine)))
    await eventually(engine.fires, "timers fire")
    outages.begins(Resource.NATS, noticed_by, "a test")
    await asyncio.sleep(0.1)  # for the one that is under way
    assert not await engine.fires()
    outages.ends(noticed_by)
    await eventually(engine.fires, "timers fire again")
    outages.begins(Resource.NATS, lane_to(EVENTS), "events are not taken, and commands are")
    assert await engine.fires()
    firing.cancel()
    await asyncio.gather(firing, return_exceptions=True)


@SQLITE_IS_ENOUGH
async def test_what_was_asked_before_an_outage_is_not_given_up_in_it(
    nats: EmbeddedNats, database_urls: DatabaseUrls
) -> None:
    """Every step may be asked once. Without NATS its time is over; with NATS it is answered all the same."""
    async with World(database_urls, nats.url, definitions=definitions_with(ASKED_ONCE)) as world:
        await world.start(*ROLES)
        assert await world.until_ended(await world.place(an_order())) == ["completed"]
        await asyncio.to_thread(nats.kill)
        saga_ids = await world.place(an_order(), an_order())

        async def is_overdue() -> bool:
            late = DatabaseClock().now() - timedelta(seconds=2)
            sagas = [await world.saga(saga_id) for saga_id in saga_ids]
            return all(saga.due_at is not None and saga.due_at < late for saga in sagas)

        await eventually(is_overdue, "the time of both is over")
        await asyncio.to_thread(nats.start)
        assert await world.until_ended(saga_ids) == ["completed"] * 2
        for saga_id in saga_ids:
            log = await world.log(saga_id)
            assert [line for line in log if line == "asked open-order"] == ["asked open-order"]
        assert await world.findings() == []
