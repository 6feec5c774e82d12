"""Sagas that wait begin when their time has come and there is room: on both databases, with replicas side by side."""

import asyncio
import itertools
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from orchestrator.admission import AT_ONCE, CATCH_UP
from orchestrator.definition import Rate, Saga, reversible
from orchestrator.events import Cancelled, PauseOrdered, ResumeOrdered
from orchestrator.registry import Definitions
from orchestrator.tables import saga_log, sagas
from orchestrator.timers import TICK
from tests.support.sagas import Hold, charge, hold_stock, release, reserve
from tests.support.waiting import eventually
from tests.support.world import DAWN, SQLITE_IS_ENOUGH, Desk, OwnedClock, World, answer, waits_for_lock

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
LOOK = timedelta(seconds=TICK)
STEPS = (reversible(reserve, undo=release),)


def limited(name: str, **limits: Any) -> Saga[Hold]:
    """A saga of one step, within limits."""
    return Saga(name, Hold, STEPS, None, **limits)


crowded = limited("crowded", max_in_flight=3)
hurried = limited("hurried", max_in_flight=1, deadline=timedelta(minutes=1))
tenth = limited("tenth", rate=Rate(10))
slow = limited("slow", rate=Rate(6, timedelta(minutes=1)))
both = limited("both", rate=Rate(100), max_in_flight=2)


@pytest.fixture
def definitions() -> Definitions:
    """Sagas with limits of each kind, and one that has none."""
    return Definitions([crowded, hurried, tenth, slow, both, hold_stock])


async def accept(desk: Desk, saga: str, count: int, **options: Any) -> list[str]:
    """Start so many sagas in one transaction. Returns their ids."""
    requests = [desk.engine.request(saga, {}, **options) for _ in range(count)]
    return [result.saga_id for result in await desk.engine.start(requests)]


async def finish(desk: Desk, saga_ids: Sequence[str]) -> None:
    """Let sagas of one step complete."""
    await desk.receive(*(answer(f"{saga_id}/reserve/do") for saga_id in saga_ids))


# --- a time to begin -----------------------------------------------------------------------------------------------


async def test_a_saga_for_later_begins_at_its_time_and_not_before(world: World, desk: Desk, clock: OwnedClock) -> None:
    result = await desk.start({}, saga="hold-stock", begins_at=DAWN + HOUR)
    clock.advance(HOUR - timedelta(microseconds=1))
    assert (await desk.admit(), await desk.engine.fire_timers(), await world.commands()) == (0, 0, [])

    clock.advance(timedelta(microseconds=1))
    assert (await desk.admit(), await desk.admit()) == (1, 0)
    assert await world.commands() == [(f"{result.saga_id}/reserve/do", 1)]
    assert await world.log(result.saga_id) == ["started", "begun", "asked reserve"]


async def test_a_saga_for_later_takes_no_place_from_those_whose_time_has_come(world: World, desk: Desk) -> None:
    [later] = await accept(desk, "hurried", 1, begins_at=DAWN + HOUR, priority=9)
    [now] = await accept(desk, "hurried", 1)

    assert await desk.admit() == 1
    assert [(await world.saga(saga_id)).status for saga_id in (later, now)] == ["waiting", "running"]


async def test_more_sagas_than_are_begun_at_once_begin_in_batches(world: World, desk: Desk) -> None:
    await accept(desk, "hold-stock", AT_ONCE + 1, begins_at=DAWN)
    assert [await desk.admit() for _ in range(3)] == [AT_ONCE, 1, 0]


async def test_the_deadline_counts_from_the_beginning(world: World, desk: Desk, clock: OwnedClock) -> None:
    [first, second] = await accept(desk, "hurried", 2, priority=0)
    assert await desk.admit() == 1
    [waiting] = await world.in_state("waiting")
    clock.advance(HOUR)
    assert await desk.engine.fire_timers() == 1, "the one that has begun"
    begun = first if waiting == second else second
    assert (await world.saga(begun)).status == "compensating"
    await desk.receive(answer(f"{begun}/reserve/undo"))

    assert await desk.admit() == 1
    saga = await world.saga(waiting)
    assert (saga.status, saga.deadline_at) == ("running", clock.now() + timedelta(minutes=1))


# --- how many at a time --------------------------------------------------------------------------------------------


async def test_no_more_begin_than_may_be_in_flight_and_room_is_refilled(world: World, desk: Desk) -> None:
    await accept(desk, "crowded", 8)
    assert await world.commands() == [], "all of them wait at first"

    seen = []
    while await desk.admit():
        assert await desk.admit() == 0, "there is no room"
        running = await world.in_state("running")
        seen.append(len(running))
        await finish(desk, running[:2])
    assert seen == [3, 3, 3, 2], "two have made room for two, until nobody waits"


async def test_a_saga_takes_its_place_until_it_has_ended(world: World, desk: Desk, clock: OwnedClock) -> None:
    """Also while it turns back, is paused, or waits for a person."""
    await accept(desk, "crowded", 6)
    assert await desk.admit() == 3
    one, two, three = await world.in_state("running")
    await desk.engine.tell(one, Cancelled("ada", "no need"))
    await desk.engine.tell(two, PauseOrdered("ada", "not now"))
    await desk.receive(answer(f"{three}/reserve/do", "refused"))  # ends
    assert await desk.admit() == 1

    await desk.receive(answer(f"{one}/reserve/undo"))
    assert await desk.admit() == 1
    assert (await world.saga(two)).status == "paused"


async def test_two_replicas_never_fill_the_last_place_twice(world: World) -> None:
    desks = [world.desk(), world.desk()]
    await accept(desks[0], "crowded", 30)
    ended: set[str] = set()
    while len(ended) < 30:
        await asyncio.gather(*(desk.admit() for desk in desks * 3))
        running = await world.in_state("running")
        assert 0 < len(running) <= 3
        await asyncio.gather(finish(desks[0], running[:2]), *(desk.admit() for desk in desks))
        assert len(await world.in_state("running")) <= 3
        ended = set(await world.in_state("completed"))

    assert await most_in_flight(world) == 3


async def test_a_replica_waits_for_the_one_that_counts(on_postgresql: World) -> None:
    """Otherwise both would count before either has written."""
    world = on_postgresql
    one, two = world.desk(), world.desk()
    await accept(one, "crowded", 6)
    async with one.outbox.unit_of_work() as unit:
        await one.admission._admit(unit, "crowded")
        second = asyncio.create_task(two.admit())
        await eventually(lambda: waits_for_lock(world), "the second replica waits")
    assert await second == 0
    assert len(await world.in_state("running")) == 3


async def test_limits_of_one_saga_are_no_limits_of_another(world: World, desk: Desk) -> None:
    await accept(desk, "crowded", 4)
    await accept(desk, "both", 3)
    await accept(desk, "hold-stock", 5)
    assert len(await world.in_state("running")) == 5
    assert await desk.admit() == 3 + 1, "the rate lets the first of `both` begin"


# --- how many in a stretch of time -----------------------------------------------------------------------------------


async def beginnings(desk: Desk, clock: OwnedClock, looks: int, every: timedelta = LOOK) -> list[int]:
    """How many begin at each of so many looks."""
    found = []
    for _ in range(looks):
        found.append(await desk.admit())
        clock.advance(every)
    return found


async def test_a_rate_is_kept_look_by_look(desk: Desk, clock: OwnedClock) -> None:
    await accept(desk, "tenth", 100)
    found = await beginnings(desk, clock, 25)
    assert found[:3] == [1, 2, 2]
    assert max(sum(found[start : start + 5]) for start in range(20)) <= 10, "in any second"
    assert sum(found) == 1 + 24 * 2


@SQLITE_IS_ENOUGH
async def test_a_rate_that_was_not_needed_for_a_while_is_no_licence_for_a_crowd(desk: Desk, clock: OwnedClock) -> None:
    await accept(desk, "tenth", 1)
    assert await desk.admit() == 1
    clock.advance(HOUR)
    await accept(desk, "tenth", 100)
    assert await beginnings(desk, clock, 3) == [1, 2, 2]


@SQLITE_IS_ENOUGH
async def test_looks_that_come_late_do_not_slow_a_rate(desk: Desk, clock: OwnedClock) -> None:
    await accept(desk, "tenth", 100)
    found = await beginnings(desk, clock, 21, every=CATCH_UP)
    assert sum(found) == 1 + 20 * 4


@SQLITE_IS_ENOUGH
async def test_a_slow_rate_keeps_its_distance(desk: Desk, clock: OwnedClock) -> None:
    """Six in a minute: no stretch of a minute has seven, however the looks fall."""
    await accept(desk, "slow", 30)
    at: list[datetime] = []
    for pause in (10.2, 9.6, 0.3, 0.3) * 10:
        at.extend([clock.now()] * await desk.admit())
        clock.advance(timedelta(seconds=pause))
    assert len(at) >= 18
    assert min(later - earlier for earlier, later in itertools.pairwise(at)) >= timedelta(seconds=10)


async def test_a_rate_and_a_limit_hold_together(world: World, desk: Desk, clock: OwnedClock) -> None:
    await accept(desk, "both", 10)
    assert await beginnings(desk, clock, 3) == [1, 1, 0]
    await finish(desk, await world.in_state("running"))
    assert await beginnings(desk, clock, 2) == [1, 1]


# --- who is first ----------------------------------------------------------------------------------------------------


async def test_the_most_urgent_begin_first_and_among_equals_who_came_first(
    world: World, desk: Desk, clock: OwnedClock
) -> None:
    order = []
    for name, priority in (("early", 0), ("low", -5), ("high", 7), ("late", 0), ("higher", 1000)):
        [saga_id] = await accept(desk, "hurried", 1, priority=priority)
        order.append((saga_id, name))
        clock.advance(SECOND)
    names = dict(order)
    begun = []
    while await desk.admit():
        [running] = await world.in_state("running")
        begun.append(names[running])
        await finish(desk, [running])
    assert begun == ["higher", "high", "early", "late", "low"]


# --- orders, and what is not ours ------------------------------------------------------------------------------------


async def test_a_saga_that_is_paused_while_it_waits_begins_when_it_may(world: World, desk: Desk) -> None:
    [saga_id] = await accept(desk, "crowded", 1)
    await desk.engine.tell(saga_id, PauseOrdered("ada", "not today"))
    assert (await world.saga(saga_id)).status == "paused"
    assert await desk.admit() == 0

    await desk.engine.tell(saga_id, ResumeOrdered("ada", "today"))
    assert (await world.saga(saga_id)).status == "waiting"
    assert await desk.admit() == 1


@SQLITE_IS_ENOUGH
async def test_a_saga_that_is_cancelled_while_it_waits_never_begins(world: World, desk: Desk) -> None:
    [saga_id] = await accept(desk, "hold-stock", 1, begins_at=DAWN)
    await desk.engine.tell(saga_id, Cancelled("ada", "a typing error"))

    assert await desk.admit() == 0
    assert ((await world.saga(saga_id)).status, await world.commands()) == ("compensated", [])


async def test_sagas_that_are_not_loaded_are_left_waiting_and_hold_back_nobody(world: World, desk: Desk) -> None:
    [strange] = await accept(desk, "crowded", 1)
    stranger = world.desk(definitions=Definitions([charge, hold_stock]))
    await accept(desk, "hold-stock", 1, begins_at=DAWN)

    assert await stranger.admit() == 1
    assert (await world.saga(strange)).status == "waiting"
    assert await desk.admit() == 1


@pytest.mark.parametrize("saga", ["hurried", "hold-stock"])
async def test_a_saga_that_cannot_be_read_holds_back_no_other(
    world: World, desk: Desk, clock: OwnedClock, saga: str
) -> None:
    """Not of its own kind, and not of those that come after it."""
    [broken] = await accept(desk, saga, 1, priority=9, begins_at=DAWN)
    [healthy] = await accept(desk, saga, 1, begins_at=DAWN)
    [another] = await accept(desk, "slow", 1)
    [state] = await world.rows("orchestrator", select(sagas.c.state).where(sagas.c.id == broken))
    await world.execute("orchestrator", update(sagas).where(sagas.c.id == broken).values(state='{"no": "state"}'))

    assert await desk.admit() == 2
    await world.execute("orchestrator", update(sagas).where(sagas.c.id == broken).values(state=state.state))
    assert [(await world.saga(saga_id)).status for saga_id in (healthy, another)] == ["running", "running"]
    assert await desk.admit() == 0, "the broken one is out of the way for a while"
    await finish(desk, [healthy])
    clock.advance(HOUR)
    assert await desk.admit() == 1


async def most_in_flight(world: World) -> int:
    """The most that were ever in flight, as the log tells it."""
    rows = await world.rows("orchestrator", select(saga_log.c.entries).order_by(saga_log.c.position))
    now = most = 0
    for row in rows:
        now += row.entries.count('"begun"') - row.entries.count('"completed"')
        most = max(most, now)
    return most
