"""Orders for many sagas on both databases: each saga once, no faster than allowed, and no further when many fail."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from orchestrator import bulk
from orchestrator.bulk import Bulk, Limits, Outcome, Wish
from orchestrator.definition import Saga, SagaData, reversible
from orchestrator.engine import NotLoaded, UnknownSaga
from orchestrator.entries import RetryOrdered
from orchestrator.events import Cancelled, PauseOrdered, Resolved, Retried
from orchestrator.model import Phase
from orchestrator.queries import Filter
from orchestrator.registry import Definitions
from orchestrator.sagas.place_order import place_order
from orchestrator.store import LostRace
from outbox.contracts import Command, Reply
from outbox.errors import MessageTooLarge
from tests.support.world import THREE_TIMES, Desk, OwnedClock, World, an_order, answer, definitions_with

UNLIMITED = Limits(rate=None)
RETRY = Wish(Retried("ada", "it is mended"))
PAUSE = Wish(PauseOrdered("ada", "lunch"))
CANCEL = Wish(Cancelled("ada", "not wanted"))


class Heard(Reply):
    """Somebody listened."""


class Speak(Command[Heard], participant="order"):
    """Say this."""

    text: str


class Talk(SagaData):
    """What is said, and how often it is said again when it is taken back."""

    text: str
    times: int


def speak(data: Talk) -> Speak:
    """Say it once."""
    return Speak(text=data.text)


def take_back(data: Talk) -> Speak:
    """Undo of speak: maybe more than a message can hold."""
    return Speak(text=data.text * data.times)


talk = Saga(name="talk", data=Talk, reversible=[reversible(speak, undo=take_back)], pivot=None)


@pytest.fixture
def definitions() -> Definitions:
    """place-order and talk, asked three times, every ten seconds."""
    return definitions_with(THREE_TIMES, sagas=[place_order, talk])


@pytest.fixture
def named(world: World) -> Desk:
    """A desk whose sagas are called a, b, c, …: orders are carried out in this order."""
    return world.desk(ids=map(chr, itertools.count(ord("a"))).__next__)


async def start(desk: Desk, count: int) -> list[str]:
    """So many orders, each of which has been asked to be opened."""
    requests = [desk.engine.request("place-order", an_order()) for _ in range(count)]
    return [result.saga_id for result in await desk.engine.start(requests)]


async def let_time_out(desk: Desk, clock: OwnedClock, times: int) -> None:
    """Nobody answers, so often."""
    for _ in range(times):
        clock.advance(THREE_TIMES.timeout)
        await desk.engine.fire_timers()


async def start_stuck(desk: Desk, clock: OwnedClock, count: int) -> list[str]:
    """So many orders that are stuck on their way back: nobody answers, and nobody undoes."""
    saga_ids = await start(desk, count)
    await let_time_out(desk, clock, 6)
    return saga_ids


async def all_outcomes(work: Bulk) -> list[Outcome]:
    """What comes of it, all at once."""
    return [one async for outcomes in work.carry_out() for one in outcomes]


def kinds(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """id -> what came of it."""
    return {one.saga_id: one.kind for one in outcomes}


# --- what a filter lets pass ---------------------------------------------------------------------------------------


async def test_all_that_is_stuck_for_one_reason_is_retried_and_nothing_else(
    world: World, named: Desk, clock: OwnedClock
) -> None:
    stuck = await start_stuck(named, clock, 3)
    late = await start(named, 1)
    for name in ("open-order", "reserve-stock"):
        await named.receive(answer(f"{late[0]}/{name}/do"))
    await let_time_out(named, clock, 6)  # stuck too, but for another step
    running = await start(named, 1)
    incidents = await world.queries.incidents()
    assert [(one.sagas, one.example) for one in incidents] == [(3, stuck[0]), (1, late[0])]

    wanted = Filter(incident=incidents[0].name)
    work = Bulk(named.engine, world.queries, RETRY, wanted, UNLIMITED)
    assert kinds(await all_outcomes(work)) == dict.fromkeys(stuck, "done")
    assert work.tally == {"done": 3}

    assert await world.queries.statuses([*stuck, *late, *running]) == {
        **dict.fromkeys(stuck, "compensating"),
        late[0]: "stuck",
        running[0]: "running",
    }
    orders = [line.entry async for line in world.queries.whole_log(stuck[1]) if isinstance(line.entry, RetryOrdered)]
    assert orders == [RetryOrdered("ada", "it is mended")]
    assert (f"{stuck[1]}/open-order/undo", 4) in await world.commands()


async def test_pages_and_transactions_are_small_and_every_saga_is_taken_once(world: World, desk: Desk) -> None:
    saga_ids = await start(desk, 2 * bulk.PAGE + 1)
    work = Bulk(desk.engine, world.queries, PAUSE, Filter(statuses=["running"]), UNLIMITED)
    batches = [outcomes async for outcomes in work.carry_out()]

    assert max(len(outcomes) for outcomes in batches) == bulk.MOST_AT_ONCE
    assert [one.saga_id for outcomes in batches for one in outcomes] == sorted(saga_ids)
    assert await world.queries.counts() == {"paused": len(saga_ids)}


async def test_a_saga_that_has_moved_on_since_it_was_found_is_passed_over(world: World, named: Desk) -> None:
    first, second, third = await start(named, 3)
    work = Bulk(named.engine, world.queries, PAUSE, Filter(statuses=["running"]), Limits(rate=10))
    outcomes = []
    async for batch in work.carry_out():
        outcomes += batch
        if len(outcomes) == 1:
            await named.receive(answer(f"{second}/open-order/do", "refused"))

    assert kinds(outcomes) == {first: "done", second: "moved-on", third: "done"}
    assert outcomes[1].why == "it has moved on: it is compensated"
    assert not work.was_stopped


async def test_what_somebody_else_has_retried_meanwhile_is_not_retried_again(
    world: World, named: Desk, clock: OwnedClock
) -> None:
    _, second = await start_stuck(named, clock, 2)
    [incident] = await world.queries.incidents()
    work = Bulk(named.engine, world.queries, RETRY, Filter(incident=incident.name), Limits(rate=10))
    outcomes = []
    async for batch in work.carry_out():
        outcomes += batch
        if len(outcomes) == 1:
            await named.engine.tell(second, Retried("bob", "I was faster"))

    assert [one.kind for one in outcomes] == ["done", "moved-on"]
    assert [line for line in await world.log(second) if line == "retry-ordered"] == ["retry-ordered"]


# --- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [Limits(rate=None, max_failures=2), Limits(rate=20, max_failures=2)])
async def test_it_stops_at_the_last_failure_that_is_allowed_and_leaves_the_rest(
    world: World, named: Desk, clock: OwnedClock, limits: Limits
) -> None:
    """Of six sagas the second and the third may be past their pivot; at this rate two share a transaction."""
    saga_ids = await start(named, 6)
    for past in saga_ids[1:3]:
        await named.receive(answer(f"{past}/open-order/do"))
        await named.receive(answer(f"{past}/reserve-stock/do"))
        await named.receive(answer(f"{past}/authorise-payment/do", authorisation_code="7"))
    work = Bulk(named.engine, world.queries, CANCEL, Filter(statuses=["running"]), limits)
    outcomes = await all_outcomes(work)

    assert list(kinds(outcomes).values()) == ["done", "refused", "refused"]
    assert outcomes[1].why == "its pivot capture-payment was asked and may have happened"
    assert work.was_stopped
    statuses = await world.queries.statuses(saga_ids)
    assert [statuses[one] for one in saga_ids] == [
        "compensating", "running", "running", "running", "running", "running",
    ]  # fmt: skip


async def test_it_goes_no_faster_than_it_may(world: World, desk: Desk) -> None:
    await start(desk, 8)
    work = Bulk(desk.engine, world.queries, PAUSE, Filter(statuses=["running"]), Limits(rate=20))
    loop = asyncio.get_running_loop()
    begin = loop.time()
    batches = [outcomes async for outcomes in work.carry_out()]

    assert [len(outcomes) for outcomes in batches] == [2, 2, 2, 2]
    assert loop.time() - begin >= 6 / 20  # the first two at once, then two every tenth of a second


@pytest.mark.parametrize(("rate", "at_once"), [(0.1, 1), (9, 1), (50, 5), (10_000, 100), (None, 100)])
def test_how_many_share_a_transaction_follows_from_the_rate(rate: float | None, at_once: int) -> None:
    assert Limits(rate=rate).at_once == at_once


# --- before it is done ---------------------------------------------------------------------------------------------


async def test_what_is_foreseen_is_exactly_what_happens_then(world: World, named: Desk, clock: OwnedClock) -> None:
    saga_ids = await start_stuck(named, clock, 2)
    before = await world.sagas(), await world.outgoing()
    work = Bulk(named.engine, world.queries, RETRY, Filter(statuses=["stuck"]), UNLIMITED)
    foreseen = [one async for outcomes in work.foresee() for one in outcomes]
    assert (await world.sagas(), await world.outgoing()) == before

    assert await bulk.carry_out(named.engine, saga_ids, RETRY) == foreseen
    told = [(sent.command_id, sent.attempt) for one in foreseen if one.decision for sent in one.decision.dispatches]
    assert told == [(f"{saga_id}/open-order/undo", 4) for saga_id in saga_ids]
    sent = {(one.id, one.attempt) for one in await world.outgoing()} - {(one.id, one.attempt) for one in before[1]}
    assert sent == set(told)
    for one in foreseen:
        assert one.decision is not None
        assert await world.saga(one.saga_id) == one.decision.saga


async def test_a_saga_that_is_not_what_was_meant_is_left_alone(world: World, named: Desk, clock: OwnedClock) -> None:
    """Somebody says that a step is done; the saga is on its way back by now, where it would be called undone."""
    [saga_id] = await start_stuck(named, clock, 1)
    before = await world.saga(saga_id)

    def turns_back(saga: Any) -> str | None:
        return "it turns back" if saga.phase is Phase.COMPENSATING else None

    wish = Wish(Resolved("ada", "it is there", "open-order"), unless=turns_back)
    [outcome] = await bulk.carry_out(named.engine, [saga_id], wish)
    assert (outcome.kind, outcome.why) == ("refused", "it turns back")
    assert await world.saga(saga_id) == before


# --- what goes wrong -----------------------------------------------------------------------------------------------


class LosesRaces:
    """Somebody else is faster, so often; at the last moment, when all is written and nothing is committed."""

    def __init__(self, times: int) -> None:
        self._times: Iterator[int] = iter(range(times))

    def reach(self, point: str) -> None:
        """Lose there."""
        if point == "orchestrator.before-commit" and next(self._times, None) is not None:
            raise LostRace("somebody else was faster")


async def test_a_race_that_is_lost_is_run_again_and_done_once(world: World, desk: Desk) -> None:
    saga_ids = await start(desk, 3)
    unlucky = world.desk(faults=LosesRaces(bulk.RACES))
    outcomes = await bulk.carry_out(unlucky.engine, saga_ids, PAUSE)

    assert kinds(outcomes) == dict.fromkeys(saga_ids, "done")
    assert [await world.log(saga_id) for saga_id in saga_ids] == [["started", "asked open-order", "paused"]] * 3


async def test_races_that_are_always_lost_are_failures_and_not_endless(world: World, desk: Desk) -> None:
    [saga_id] = await start(desk, 1)
    unlucky = world.desk(faults=LosesRaces(100))
    [outcome] = await bulk.carry_out(unlucky.engine, [saga_id], PAUSE)

    assert (outcome.kind, outcome.why) == ("refused", "somebody else was faster")
    assert (await world.saga(saga_id)).paused is None


async def test_one_saga_that_cannot_be_handled_holds_nobody_back(world: World, named: Desk) -> None:
    texts = [("x", 1), ("x" * 10_000, 1000), ("y", 1)]
    saga_ids = [await named.begin("talk", text=text, times=times) for text, times in texts]
    first, loud, last = saga_ids
    outcomes = await bulk.carry_out(named.engine, saga_ids, CANCEL)

    assert kinds(outcomes) == {first: "done", loud: "refused", last: "done"}
    assert isinstance(outcomes[1].error, MessageTooLarge)
    assert await world.queries.statuses(saga_ids) == {first: "compensating", loud: "running", last: "compensating"}


async def test_failures_are_counted_too_where_one_saga_is_taken_after_the_other(world: World, named: Desk) -> None:
    saga_ids = [await named.begin("talk", text="x" * 10_000, times=1000) for _ in range(3)]
    outcomes = await bulk.carry_out(named.engine, saga_ids, CANCEL, max_failures=2)
    assert kinds(outcomes) == dict.fromkeys(saga_ids[:2], "refused")


async def test_who_is_unknown_or_not_loaded_is_told_apart(world: World, desk: Desk) -> None:
    [saga_id] = await start(desk, 1)
    stranger = world.desk(definitions=Definitions([talk]))
    known, unknown = await bulk.carry_out(stranger.engine, [saga_id, "nobody"], PAUSE)

    assert (known.kind, type(known.error), known.why) == ("refused", NotLoaded, str(known.error))
    assert (unknown.kind, type(unknown.error)) == ("refused", UnknownSaga)
    assert (await world.saga(saga_id)).paused is None
