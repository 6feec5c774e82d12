"""What people order, on both databases: foreseen exactly, done once, and in the log with who and why."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from orchestrator.definition import Policy, Saga, reversible, step
from orchestrator.door import BadInput
from orchestrator.engine import NotLoaded, UnknownSaga
from orchestrator.events import (
    Cancelled,
    Event,
    PauseOrdered,
    Resolved,
    ResumeOrdered,
    Retried,
    Signalled,
)
from orchestrator.queries import Filter
from orchestrator.registry import Definitions
from orchestrator.store import incident_of
from orchestrator.tables import saga_log
from participants.payment.contracts import CapturePayment
from tests.support.sagas import FAMILY, Bill, authorise, capture, hold_stock, void
from tests.support.world import (
    DAWN,
    SQLITE_IS_ENOUGH,
    THREE_TIMES,
    Desk,
    OwnedClock,
    World,
    answer,
    definitions_with,
    received,
    waits_for_lock,
)

ATTEMPT = THREE_TIMES.timeout
APPROVED = Signalled("approval", "done", {"by": "eve"}, "eve")
TOUCHY = Policy(timeout=ATTEMPT, factor=1.0, jitter=0.0, not_retried=frozenset({"hold-ended"}))


def settle(data: Bill) -> CapturePayment:
    """A retriable step whose refusal nobody tries to overcome."""
    return CapturePayment(hold_id=data.saga_id)


touchy = Saga("touchy", Bill, [reversible(authorise, undo=void)], step(capture), [step(settle, policy=TOUCHY)])


@pytest.fixture
def definitions() -> Definitions:
    """Sagas that ask three times, and one that does not ask again after a certain refusal."""
    asking = definitions_with(THREE_TIMES, sagas=FAMILY)
    return Definitions([*asking.values(), touchy])


# --- what a saga may be in the middle of ---------------------------------------------------------------------------


async def time_out(desk: Desk, clock: OwnedClock) -> None:
    """Let a policy of three attempts be spent."""
    for _ in range(3):
        clock.advance(ATTEMPT)
        await desk.engine.fire_timers()


async def asked(desk: Desk, clock: OwnedClock) -> str:
    """Its first command is out."""
    return await desk.begin("charge")


async def waiting_for_a_person(desk: Desk, clock: OwnedClock) -> str:
    """It waits for an approval."""
    return await desk.begin("everything")


async def paused(desk: Desk, clock: OwnedClock) -> str:
    """Somebody has paused it, and the answer that it waited for is there."""
    saga_id = await desk.begin("charge")
    await desk.engine.tell(saga_id, PauseOrdered("eve", "stocktaking"))
    await desk.receive(answer(f"{saga_id}/authorise/do", authorisation_code="A1"))
    return saga_id


async def at_the_pivot(desk: Desk, clock: OwnedClock) -> str:
    """Its pivot was asked."""
    saga_id = await desk.begin("charge")
    await desk.receive(answer(f"{saga_id}/authorise/do", authorisation_code="A1"))
    return saga_id


async def stuck_at_the_pivot(desk: Desk, clock: OwnedClock) -> str:
    """Its pivot was asked, and gives no answer."""
    saga_id = await at_the_pivot(desk, clock)
    await time_out(desk, clock)
    return saga_id


async def stuck_on_the_way_back(desk: Desk, clock: OwnedClock) -> str:
    """It cannot undo what may have happened."""
    saga_id = await desk.begin("charge")
    await desk.engine.tell(saga_id, Cancelled("eve", "no need"))
    await time_out(desk, clock)
    return saga_id


async def stuck_after_the_pivot(desk: Desk, clock: OwnedClock) -> str:
    """A retriable step was refused for good."""
    return await stuck_in_settling(desk, "hold 01ARZ3NDEKTSV4RRFFQ69G5FAV is voided")


async def stuck_in_settling(desk: Desk, reason: str) -> str:
    """A saga whose last step was refused for this reason."""
    saga_id = await desk.begin("touchy")
    await desk.receive(
        answer(f"{saga_id}/authorise/do", authorisation_code="A1"),
        answer(f"{saga_id}/capture/do"),
        answer(f"{saga_id}/settle/do", "refused", code="hold-ended", reason=reason),
    )
    return saga_id


async def ended(desk: Desk, clock: OwnedClock) -> str:
    """All is done."""
    saga_id = await at_the_pivot(desk, clock)
    await desk.receive(answer(f"{saga_id}/capture/do"))
    return saga_id


Situation = Callable[[Desk, OwnedClock], Awaitable[str]]

BY, WHY = "ada", "I have looked at it"
RETRY, CANCEL = Retried(BY, WHY), Cancelled(BY, WHY)
PAUSE, RESUME, RESOLVE = PauseOrdered(BY, WHY), ResumeOrdered(BY, WHY), Resolved(BY, WHY)
NOT_HAPPENED = Cancelled(BY, WHY, pivot_did_not_happen=True)

OBEYED: tuple[tuple[Situation, Event, str, str], ...] = (
    (asked, PAUSE, "paused", "paused"),
    (paused, RESUME, "resumed", "running"),
    (asked, CANCEL, "cancel-ordered", "compensating"),
    (waiting_for_a_person, CANCEL, "cancel-ordered", "compensated"),
    (paused, CANCEL, "cancel-ordered", "paused"),
    (stuck_at_the_pivot, NOT_HAPPENED, "cancel-ordered", "compensating"),
    (stuck_at_the_pivot, RETRY, "retry-ordered", "running"),
    (stuck_on_the_way_back, RETRY, "retry-ordered", "compensating"),
    (stuck_after_the_pivot, RETRY, "retry-ordered", "running"),
    (asked, Resolved(BY, WHY, "authorise", {"authorisation_code": "A1"}), "done-by-hand", "running"),
    (stuck_at_the_pivot, RESOLVE, "done-by-hand", "completed"),
    (stuck_on_the_way_back, RESOLVE, "undone-by-hand", "compensated"),
    (stuck_after_the_pivot, Resolved(BY, WHY, "settle"), "done-by-hand", "completed"),
)

IN_VAIN: tuple[tuple[Situation, Event, str], ...] = (
    (asked, RESUME, "the saga is not paused"),
    (paused, PAUSE, "the saga is paused already, by eve"),
    (asked, RETRY, "nothing is stuck"),
    (asked, RESOLVE, "nothing is stuck"),
    (asked, Resolved(BY, WHY, "capture"), "step capture is not under way: pending"),
    (asked, Resolved(BY, WHY, "sing"), "the saga has no step sing: it has authorise, capture"),
    (at_the_pivot, CANCEL, "its pivot capture was asked and may have happened"),
    (at_the_pivot, NOT_HAPPENED, "its pivot capture was asked and may have happened"),
    (stuck_after_the_pivot, CANCEL, "it is past its point of no return: capture is done"),
    (stuck_on_the_way_back, CANCEL, "the saga turns back already"),
    (asked, APPROVED, "no step approval of charge waits for a signal"),
    *((ended, order, "the saga has ended: completed") for order in (RETRY, CANCEL, PAUSE, RESUME, RESOLVE)),
)


def named(value: object) -> str:
    """What a case is called."""
    return getattr(value, "__name__", type(value).__name__ if isinstance(value, Event) else str(value)[:20])


async def everything_stored(world: World, saga_id: str) -> tuple[Any, ...]:
    """What an order could change."""
    [[rows]] = await world.rows("orchestrator", select(func.count()).select_from(saga_log))
    return await world.saga(saga_id), await world.outgoing(), rows, await world.queries.incidents()


# --- orders that are obeyed, and orders in vain --------------------------------------------------------------------


@pytest.mark.parametrize(("situation", "order", "entry", "status"), OBEYED, ids=named)
async def test_an_order_is_foreseen_exactly_then_done_and_logged(
    world: World, desk: Desk, clock: OwnedClock, situation: Situation, order: Event, entry: str, status: str
) -> None:
    saga_id = await situation(desk, clock)
    before = await everything_stored(world, saga_id)
    foreseen = await desk.engine.foresee(saga_id, order)
    assert await everything_stored(world, saga_id) == before, "looking changes nothing"

    commands = set(await world.commands())
    told = await desk.engine.tell(saga_id, order)

    assert told == foreseen
    assert await world.saga(saga_id) == foreseen.saga
    assert foreseen.saga.status == status
    sent = {(dispatch.command_id, dispatch.attempt) for dispatch in foreseen.dispatches}
    assert set(await world.commands()) == commands | sent
    assert len(sent - commands) == len(foreseen.dispatches)
    [line] = [line.entry async for line in world.queries.whole_log(saga_id) if ordered_by_ada(line.entry)]
    assert (line.kind, getattr(line, "reason", "")) == (entry, WHY)


def ordered_by_ada(entry: object) -> bool:
    """Whether the log says that she wanted it."""
    return getattr(entry, "by", None) == BY


@pytest.mark.parametrize(("situation", "order", "why"), IN_VAIN, ids=named)
@SQLITE_IS_ENOUGH
async def test_an_order_in_vain_says_why_and_changes_nothing(
    world: World, desk: Desk, clock: OwnedClock, situation: Situation, order: Event, why: str
) -> None:
    saga_id = await situation(desk, clock)
    before = await everything_stored(world, saga_id)
    assert (await desk.engine.foresee(saga_id, order)).ignored == why
    assert (await desk.engine.tell(saga_id, order)).ignored == why
    assert await everything_stored(world, saga_id) == before


async def test_what_a_person_answers_for_is_what_the_saga_knows(world: World, desk: Desk, clock: OwnedClock) -> None:
    saga_id = await desk.begin("everything")
    await desk.engine.tell(saga_id, APPROVED)
    await desk.receive(answer(f"{saga_id}/reserve-stop[0]/do"))
    await desk.engine.tell(saga_id, Resolved(BY, WHY, "reserve-stop[1]"))
    await desk.engine.tell(saga_id, Resolved(BY, WHY, "authorise", {"authorisation_code": "by phone"}))

    saga = await world.saga(saga_id)
    assert (saga.data["code"], saga.steps["cooling-off"].status) == ("by phone", "asked")
    assert [saga.steps[name].by_hand for name in ("reserve-stop[0]", "reserve-stop[1]", "authorise")] == [
        False, True, True,
    ]  # fmt: skip


@SQLITE_IS_ENOUGH
async def test_a_reply_by_hand_that_is_none_is_refused(world: World, desk: Desk, clock: OwnedClock) -> None:
    saga_id = await desk.begin("everything")
    await desk.engine.tell(saga_id, APPROVED)
    await desk.receive(*(answer(f"{saga_id}/reserve-stop[{index}]/do") for index in range(2)))
    before = await everything_stored(world, saga_id)
    for ask in (desk.engine.foresee, desk.engine.tell):
        with pytest.raises(BadInput, match="the reply to authorise cannot be read: authorisation_code"):
            await ask(saga_id, Resolved(BY, WHY, "authorise", {"authorisation_code": 7}))
    assert await everything_stored(world, saga_id) == before


@SQLITE_IS_ENOUGH
async def test_an_order_for_nobody_or_for_a_stranger_says_so(world: World, desk: Desk) -> None:
    stranger = world.desk(definitions=Definitions([hold_stock]))
    saga_id = await desk.begin("charge")
    for engine in (desk.engine.tell, desk.engine.foresee):
        with pytest.raises(UnknownSaga, match="there is no saga nobody: `saga ls` lists them"):
            await engine("nobody", CANCEL)
    for engine in (stranger.engine.tell, stranger.engine.foresee):
        with pytest.raises(NotLoaded, match=r"began with charge v1 .* which is not loaded here"):
            await engine(saga_id, CANCEL)


# --- races -----------------------------------------------------------------------------------------------------------


async def test_two_people_who_order_the_same_at_once_are_obeyed_once(world: World) -> None:
    desks = [world.desk(), world.desk()]
    saga_ids = [await desks[0].begin("charge") for _ in range(5)]
    told = await asyncio.gather(*(desk.engine.tell(saga_id, CANCEL) for saga_id in saga_ids for desk in desks))

    assert sorted(decision.ignored or "" for decision in told) == [""] * 5 + ["the saga turns back already"] * 5
    for saga_id in saga_ids:
        assert (await world.log(saga_id)).count("cancel-ordered") == 1


async def test_an_order_and_an_answer_that_race_have_one_outcome(world: World) -> None:
    person, replies = world.desk(), world.desk()
    saga_ids = [await person.begin("charge") for _ in range(10)]
    await asyncio.gather(
        *(person.engine.tell(saga_id, CANCEL) for saga_id in saga_ids),
        *(replies.receive(answer(f"{one}/authorise/do", authorisation_code="A1")) for one in saga_ids),
    )
    sent = [command for command, _ in await world.commands()]
    for saga_id in saga_ids:
        forth, back = sent.count(f"{saga_id}/capture/do"), sent.count(f"{saga_id}/authorise/undo")
        assert (forth, back) in {(1, 0), (0, 1)}, "it has gone on, or back"


async def test_an_order_that_has_waited_for_an_answer_sees_what_came_of_it(
    on_postgresql: World, clock: OwnedClock
) -> None:
    world = on_postgresql
    person, replies = world.desk(), world.desk()
    saga_id = await at_the_pivot(person, clock)
    async with replies.outbox.unit_of_work() as unit:
        await replies.engine.process(unit, [received(answer(f"{saga_id}/capture/do"))])
        foreseen = await person.engine.foresee(saga_id, PAUSE)
        telling = asyncio.create_task(person.engine.tell(saga_id, PAUSE))
        async with asyncio.timeout(10):
            while not await waits_for_lock(world):
                await asyncio.sleep(0.01)
    assert foreseen.ignored is None, "it looks and does not wait"
    assert (await telling).ignored == "the saga has ended: completed"


# --- incidents -------------------------------------------------------------------------------------------------------


async def test_sagas_that_are_stuck_for_the_same_reason_are_one_incident(
    world: World, desk: Desk, clock: OwnedClock
) -> None:
    same = [
        await stuck_in_settling(desk, reason)
        for reason in (
            "hold 01ARZ3NDEKTSV4RRFFQ69G5FAV of 10.00 EUR is 'voided'",
            "hold 550e8400-e29b-41d4-a716-446655440000 of 1,250.5 EUR is 'captured'",
            "hold order-17 of 3 EUR is ''",
        )
    ]
    clock.advance(timedelta(minutes=1))
    [other] = [await stuck_in_settling(desk, "the bank is closed")]
    clock.advance(timedelta(minutes=1))
    same.append(await stuck_in_settling(desk, "hold h_1 of 4.00 EUR is 'lost'"))

    most, least = await world.queries.incidents()
    assert most.name == "touchy/settle: it was refused with hold-ended, which is not retried: hold # of # EUR is …"
    assert (most.sagas, most.first_at, most.last_at) == (4, DAWN, DAWN + timedelta(minutes=2))
    assert most.example in same
    assert (least.sagas, least.example) == (1, other)
    assert least.name.endswith("the bank is closed")
    assert sorted(await world.queries.ids(Filter(incident=most.name))) == sorted(same)


@pytest.mark.parametrize("solved_by", ["retry", "resolve", "answer"])
@SQLITE_IS_ENOUGH
async def test_an_incident_is_over_when_it_is_solved(
    world: World, desk: Desk, clock: OwnedClock, solved_by: str
) -> None:
    saga_id = await stuck_at_the_pivot(desk, clock)
    [incident] = await world.queries.incidents()
    assert incident.first_at == incident.last_at == clock.now()

    if solved_by == "answer":
        await desk.receive(answer(f"{saga_id}/capture/do"))
    else:
        await desk.engine.tell(saga_id, RETRY if solved_by == "retry" else RESOLVE)
    assert await world.queries.incidents() == []
    assert incident_of(await world.saga(saga_id)) is None


async def test_an_incident_counts_from_when_its_saga_got_stuck(world: World, desk: Desk, clock: OwnedClock) -> None:
    saga_id = await stuck_at_the_pivot(desk, clock)
    stuck_at = clock.now()
    clock.advance(timedelta(minutes=1))
    await desk.engine.tell(saga_id, PAUSE)
    [incident] = await world.queries.incidents()
    assert incident.first_at == stuck_at, "what happens to it meanwhile is no news"

    await desk.engine.tell(saga_id, RESUME)
    await desk.engine.tell(saga_id, RETRY)
    await time_out(desk, clock)
    [incident] = await world.queries.incidents()
    assert incident.first_at == clock.now(), "this is another time"
