"""Deadlines, delays and waits fire through the database's timers, on both databases, by a clock that the test owns."""

from datetime import timedelta

import pytest

from orchestrator.definition import Saga, delay, parallel, reversible, step, wait_for
from orchestrator.events import Cancelled, PauseOrdered, ResumeOrdered, Signalled
from orchestrator.registry import Definitions
from tests.support.sagas import Approval, Bill, Hold, authorise, capture, release, reserve, void
from tests.support.world import DAWN, SQLITE_IS_ENOUGH, THREE_TIMES, Desk, OwnedClock, World, answer

MINUTE = timedelta(minutes=1)
INSTANT = timedelta(microseconds=1)
ATTEMPT = THREE_TIMES.timeout


class Both(Hold, Bill):
    """Goods and money."""


hurried = Saga(
    "hurried",
    Bill,
    reversible=[reversible(authorise, undo=void, policy=THREE_TIMES)],
    pivot=step(capture, policy=THREE_TIMES),
    deadline=MINUTE,
)
side_by_side = Saga(
    "side-by-side",
    Both,
    reversible=[
        parallel(
            reversible(reserve, undo=release, policy=THREE_TIMES),
            reversible(authorise, undo=void, policy=THREE_TIMES),
        )
    ],
    pivot=step(capture, policy=THREE_TIMES),
    deadline=3 * ATTEMPT,
)
patient = Saga(
    "patient",
    Bill,
    reversible=[wait_for(Approval, timeout=MINUTE), reversible(authorise, undo=void, policy=THREE_TIMES)],
    pivot=step(capture, policy=THREE_TIMES),
    retriable=[delay("settling", timedelta(days=2))],
)


@pytest.fixture
def definitions() -> Definitions:
    """Sagas with a deadline, with timers side by side, with a wait and a delay."""
    return Definitions([hurried, side_by_side, patient])


async def authorised(desk: Desk, saga_id: str) -> None:
    """The bank says yes."""
    await desk.receive(answer(f"{saga_id}/authorise/do", authorisation_code="A1"))


async def pass_attempts(desk: Desk, clock: OwnedClock, count: int) -> None:
    """Let so many attempts go by without an answer."""
    for _ in range(count):
        clock.advance(ATTEMPT)
        await desk.engine.fire_timers()


# --- deadlines -----------------------------------------------------------------------------------------------------


async def test_a_deadline_turns_the_saga_back_when_it_passes_and_not_before(
    world: World, desk: Desk, clock: OwnedClock
) -> None:
    saga_id = await desk.begin("hurried")
    clock.advance(MINUTE - INSTANT)
    await desk.engine.fire_timers()
    assert (await world.saga(saga_id)).status == "running"

    clock.advance(INSTANT)
    assert await desk.engine.fire_timers() == 1
    saga = await world.saga(saga_id)
    assert (saga.status, saga.failure) == ("compensating", "its deadline of 0:01:00 has passed")
    assert (f"{saga_id}/authorise/undo", 1) in await world.commands()

    await desk.receive(answer(f"{saga_id}/authorise/undo"))
    assert (await world.saga(saga_id)).status == "compensated"


async def test_no_deadline_counts_after_the_pivot_was_asked(world: World, desk: Desk, clock: OwnedClock) -> None:
    saga_id = await desk.begin("hurried")
    clock.advance(MINUTE - INSTANT)
    await authorised(desk, saga_id)
    assert (await world.saga(saga_id)).deadline_at is None
    await pass_attempts(desk, clock, 2)
    assert (await world.saga(saga_id)).status == "running"

    await desk.receive(answer(f"{saga_id}/capture/do"))
    assert (await world.saga(saga_id)).status == "completed"


@SQLITE_IS_ENOUGH
async def test_an_answer_that_comes_after_the_deadline_does_not_reach_the_pivot(
    world: World, desk: Desk, clock: OwnedClock
) -> None:
    """The timer has not fired yet; the answer finds out."""
    saga_id = await desk.begin("hurried")
    clock.advance(MINUTE)
    await authorised(desk, saga_id)

    assert (await world.saga(saga_id)).status == "compensating"
    assert [command for command, _ in await world.commands()] == [
        f"{saga_id}/authorise/do",
        f"{saga_id}/authorise/undo",
    ]


@SQLITE_IS_ENOUGH
async def test_a_deadline_that_passes_while_the_saga_is_paused_counts_when_it_goes_on(
    world: World, desk: Desk, clock: OwnedClock
) -> None:
    saga_id = await desk.begin("hurried")
    await desk.engine.tell(saga_id, PauseOrdered("ada", "stocktaking"))
    clock.advance(2 * MINUTE)
    assert await desk.engine.fire_timers() == 0
    assert (await world.saga(saga_id)).status == "paused"

    await desk.engine.tell(saga_id, ResumeOrdered("ada", "all counted"))
    await desk.engine.fire_timers()
    assert (await world.saga(saga_id)).status == "compensating"


@SQLITE_IS_ENOUGH
async def test_a_deadline_of_a_saga_that_turns_back_already_is_nothing(
    world: World, desk: Desk, clock: OwnedClock
) -> None:
    saga_id = await desk.begin("hurried")
    await desk.engine.tell(saga_id, Cancelled("ada", "no need"))
    clock.advance(ATTEMPT - INSTANT)
    await desk.receive(answer(f"{saga_id}/authorise/undo"))
    before = await world.saga(saga_id)
    clock.advance(MINUTE)

    assert await desk.engine.fire_timers() == 0
    assert await world.saga(saga_id) == before


# --- two timers at once --------------------------------------------------------------------------------------------


async def test_two_steps_that_are_due_at_once_are_both_asked_again(world: World, desk: Desk, clock: OwnedClock) -> None:
    saga_id = await desk.begin("side-by-side")
    clock.advance(ATTEMPT)
    assert await desk.engine.fire_timers() == 1, "one saga"

    assert sorted(await world.commands()) == [
        (f"{saga_id}/{step}/do", attempt) for step in ("authorise", "reserve") for attempt in (1, 2)
    ]


async def test_a_deadline_and_the_last_attempts_that_end_at_once_undo_everything_once(
    world: World, desk: Desk, clock: OwnedClock
) -> None:
    saga_id = await desk.begin("side-by-side")
    await pass_attempts(desk, clock, 2)
    clock.advance(ATTEMPT)
    assert await desk.engine.fire_timers() == 1
    assert await desk.engine.fire_timers() == 0

    log = await world.log(saga_id)
    assert [log.count(entry) for entry in ("compensation-started", "undo-asked reserve", "undo-asked authorise")] == [
        1, 1, 1,
    ]  # fmt: skip
    await desk.receive(answer(f"{saga_id}/reserve/undo"), answer(f"{saga_id}/authorise/undo"))
    assert (await world.saga(saga_id)).status == "compensated"


@SQLITE_IS_ENOUGH
async def test_an_answer_and_a_timer_of_two_steps_in_one_instant_both_count(
    world: World, desk: Desk, clock: OwnedClock
) -> None:
    saga_id = await desk.begin("side-by-side")
    clock.advance(ATTEMPT)
    await authorised(desk, saga_id)
    await desk.engine.fire_timers()

    saga = await world.saga(saga_id)
    assert (saga.steps["authorise"].status, saga.steps["reserve"].attempt) == ("done", 2)


# --- waits and delays ----------------------------------------------------------------------------------------------


@SQLITE_IS_ENOUGH
async def test_a_signal_that_does_not_come_in_time_is_a_refusal(world: World, desk: Desk, clock: OwnedClock) -> None:
    saga_id = await desk.begin("patient")
    clock.advance(MINUTE - INSTANT)
    assert await desk.engine.fire_timers() == 0
    clock.advance(INSTANT)
    assert await desk.engine.fire_timers() == 1

    saga = await world.saga(saga_id)
    assert (saga.status, saga.failure) == ("compensated", "approval was refused: no signal came in 0:01:00")


async def test_a_delay_lasts_as_long_as_it_says_whoever_is_restarted_meanwhile(
    world: World, desk: Desk, clock: OwnedClock
) -> None:
    saga_id = await desk.begin("patient")
    await desk.engine.tell(saga_id, Signalled("approval", "done", {"by": "ada"}, "ada"))
    await authorised(desk, saga_id)
    await desk.receive(answer(f"{saga_id}/capture/do"))
    assert (await world.saga(saga_id)).due_at == DAWN + timedelta(days=2)

    clock.advance(timedelta(days=2) - INSTANT)
    assert await desk.engine.fire_timers() == 0
    clock.advance(INSTANT)
    assert await world.desk().engine.fire_timers() == 1, "another replica"
    assert (await world.saga(saga_id)).status == "completed"
