"""Whatever starts sagas by itself, no more of them are at work than the installation allows, and all of them end."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from orchestrator.definition import Policy
from orchestrator.outgoing import SOURCE
from orchestrator.registry import Definitions
from orchestrator.scheduler import Scheduler
from orchestrator.schedules import Schedules, Spec
from orchestrator.steps import StartSaga
from orchestrator.tables import throttles
from tests.support.desk import with_policies
from tests.support.messaging import asks
from tests.support.sagas import hold_stock
from tests.support.world import DAWN, Desk, OwnedClock, World, answer

SIZE = 10
HOUR = timedelta(hours=1)
PATIENT = Policy(timeout=timedelta(minutes=3), cap=timedelta(minutes=3), attempts=1, jitter=0.0)


@pytest.fixture
def definitions() -> Definitions:
    """A saga of one step, whose participant is given three minutes."""
    return Definitions([with_policies(hold_stock, PATIENT)])


@pytest.fixture
def narrow(world: World) -> Desk:
    """A replica with room for ten at work."""
    return world.desk(max_in_flight=SIZE)


async def wish(desk: Desk, numbers: Sequence[int], source: str = "/wishes") -> None:
    """A batch of commands to start sagas: of a service, or, with the orchestrator as their source, of sagas."""
    command = StartSaga(saga="hold-stock", input={})
    envelopes = [asks(command, f"wish-{number}") for number in numbers]
    await desk.carry_out(*(one.model_copy(update={"source": source}) for one in envelopes))


async def make_due(desk: Desk, clock: OwnedClock, count: int) -> None:
    """So many sagas for later, and it is later."""
    await desk.engine.start([desk.engine.request("hold-stock", {}, begins_at=DAWN + HOUR) for _ in range(count)])
    clock.advance(HOUR)


async def finish(desk: Desk, saga_ids: Sequence[str]) -> None:
    """The participant has come to these."""
    await desk.receive(*(answer(f"{saga_id}/reserve/do") for saga_id in saga_ids))


async def test_of_a_flood_of_commands_no_more_are_at_work_than_there_is_room_for_and_all_end(
    world: World, narrow: Desk
) -> None:
    for batch in range(5):
        await wish(narrow, range(batch * 20, batch * 20 + 20))
    assert (len(await world.in_state("running")), len(await world.in_state("waiting"))) == (SIZE, 90)

    at_work = []
    while running := await world.in_state("running"):
        at_work.append(len(running))
        await finish(narrow, running[:7])
        await narrow.admit()
    assert max(at_work) == SIZE
    assert len(await world.in_state("completed")) == 100
    assert await world.findings() == []


async def test_who_waits_begins_before_who_comes_later(world: World, narrow: Desk) -> None:
    await wish(narrow, range(SIZE + 1))
    await finish(narrow, await world.in_state("running"))
    await wish(narrow, range(100, 100 + SIZE))
    assert (len(await world.in_state("running")), len(await world.in_state("waiting"))) == (SIZE - 1, 2)


async def test_sagas_that_are_due_at_one_time_begin_as_there_is_room(
    world: World, narrow: Desk, clock: OwnedClock
) -> None:
    await make_due(narrow, clock, 25)
    for expected in (10, 10, 5):
        assert await narrow.admit() == expected
        assert await narrow.admit() == 0, "the window is full, or nobody waits"
        await finish(narrow, await world.in_state("running"))
    assert len(await world.in_state("completed")) == 25


async def test_two_replicas_do_not_both_fill_the_last_places(world: World, narrow: Desk, clock: OwnedClock) -> None:
    await make_due(narrow, clock, 30)
    replicas = [world.desk(max_in_flight=SIZE) for _ in range(3)]
    assert sum(await asyncio.gather(*(replica.admit() for replica in replicas))) == SIZE


async def test_a_child_begins_although_there_is_no_room(world: World, narrow: Desk) -> None:
    """Its parent is at work and waits for it: if it waited for a place, both would wait for ever."""
    await wish(narrow, range(SIZE))
    await wish(narrow, range(100, 103), source=SOURCE)
    assert (len(await world.in_state("running")), len(await world.in_state("waiting"))) == (SIZE + 3, 0)


async def test_a_saga_of_a_schedule_waits_for_room(world: World, narrow: Desk, clock: OwnedClock) -> None:
    await Schedules(narrow.engine).create(Spec("daily", "hold-stock", {}, "1 0 * * *", "UTC", "once"))
    await Schedules(narrow.engine).create(Spec("hourly", "hold-stock", {}, "* * * * *", "UTC", "once"))
    clock.advance(timedelta(days=1))
    await wish(narrow, range(SIZE))
    assert await Scheduler(narrow.engine).fire() == 2
    running = await world.in_state("running")
    assert (len(running), len(await world.in_state("waiting"))) == (SIZE, 2)
    await finish(narrow, running[:1])
    assert await narrow.admit() == 1


async def test_what_is_for_later_takes_no_place_of_those_that_begin_now(
    world: World, narrow: Desk, clock: OwnedClock
) -> None:
    later = [narrow.engine.request("hold-stock", {}, begins_at=DAWN + HOUR) for _ in range(SIZE)]
    now = [narrow.engine.request("hold-stock", {}) for _ in range(SIZE + 1)]
    async with narrow.outbox.unit_of_work() as unit:
        held = await narrow.engine.windows.hold_back(unit.connection, [*later, *now], clock.now())
        await narrow.engine.start_within(unit, held)
    assert held[:SIZE] == later
    assert (len(await world.in_state("running")), len(await world.in_state("waiting"))) == (SIZE, SIZE + 1)


async def test_without_a_limit_nobody_waits(world: World, desk: Desk) -> None:
    await wish(desk, range(3 * SIZE))
    assert len(await world.in_state("running")) == 3 * SIZE


async def test_the_admission_locks_nothing_while_nobody_waits(world: World, narrow: Desk) -> None:
    await wish(narrow, range(3))
    assert await narrow.admit() == 0
    assert await world.rows("orchestrator", throttles.select()) == []
