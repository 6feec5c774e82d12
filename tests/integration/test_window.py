"""The window: who takes a place in it, on both databases."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from orchestrator.definition import Policy, Saga
from orchestrator.events import PauseOrdered, Signalled
from orchestrator.registry import Definitions
from orchestrator.window import Window
from tests.support.desk import with_policies
from tests.support.sagas import approved_hold, hold_stock
from tests.support.world import DAWN, SQLITE_IS_ENOUGH, Desk, OwnedClock, World, answer

HOUR = timedelta(hours=1)
SIZE = 10
ONCE = Policy(timeout=timedelta(minutes=3), cap=timedelta(minutes=3), attempts=1, jitter=0.0)

patient_hold = with_policies(hold_stock, ONCE)


@pytest.fixture
def definitions() -> Definitions:
    """A saga that is asked once, for three minutes, and one that waits for an approval first."""
    return Definitions([patient_hold, approved_hold])


def window(world: World, clock: OwnedClock, definition: Saga[Any] = patient_hold, size: int = SIZE) -> Window:
    return Window(world.databases["orchestrator"], clock, definition, size)


async def test_a_saga_takes_a_place_from_its_beginning_to_its_end(world: World, desk: Desk, clock: OwnedClock) -> None:
    seen = window(world, clock)
    assert await seen.places() == SIZE
    first, _ = [await desk.begin("hold-stock") for _ in range(2)]
    assert await seen.places() == SIZE - 2

    await desk.receive(answer(f"{first}/reserve/do"))
    assert await seen.places() == SIZE - 1


async def test_a_saga_that_turns_back_keeps_its_place_until_it_is_stuck(
    world: World, desk: Desk, clock: OwnedClock
) -> None:
    saga_id = await desk.begin("hold-stock")
    clock.advance(ONCE.timeout)
    assert await desk.engine.fire_timers() == 1
    assert (await world.saga(saga_id)).status == "compensating"
    assert await window(world, clock).places() == SIZE - 1

    clock.advance(ONCE.timeout)
    assert await desk.engine.fire_timers() == 1
    assert (await world.saga(saga_id)).status == "stuck"
    assert await window(world, clock).places() == SIZE


async def test_what_keeps_nobody_busy_takes_no_place(world: World, desk: Desk, clock: OwnedClock) -> None:
    await desk.start({}, saga="hold-stock", begins_at=DAWN + HOUR)
    paused = await desk.begin("hold-stock")
    await desk.engine.tell(paused, PauseOrdered("ada", "lunch"))
    assert await window(world, clock).places() == SIZE

    approved, _ = [await desk.begin("approved-hold") for _ in range(2)]
    assert await window(world, clock, approved_hold).places() == SIZE, "both wait for a person"
    await desk.engine.tell(approved, Signalled("approval", "done", {"by": "grace"}, "grace"))
    assert await window(world, clock, approved_hold).places() == SIZE - 1
    assert await window(world, clock).places() == SIZE


async def test_a_window_that_is_more_than_full_has_no_places(world: World, desk: Desk, clock: OwnedClock) -> None:
    for _ in range(3):
        await desk.begin("hold-stock")
    assert await window(world, clock, size=3).places() == 0
    assert await window(world, clock, size=2).places() == 0


@SQLITE_IS_ENOUGH
async def test_the_look_does_not_read_what_has_ended_or_waits(world: World, desk: Desk, clock: OwnedClock) -> None:
    database = world.databases["orchestrator"]
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        statements.append((statement, parameters))

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    await window(world, clock).places()
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)
    [(look, parameters)] = [one for one in statements if "count" in one[0]]
    async with database.reading() as connection:
        plan = [str(row.detail) for row in await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {look}", parameters)]
    assert [step for step in plan if "sagas" in step] == ["SEARCH sagas USING INDEX ix_sagas_due_at (due_at<?)"]
