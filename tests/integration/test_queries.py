"""The reading side on both databases: lists, one saga step by step, and the log as it grows."""

import itertools
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest
from sqlalchemy import insert

from orchestrator.cli.follow import Tail
from orchestrator.engine import UnknownSaga
from orchestrator.queries import Filter, Queries, Summary, to_json
from orchestrator.registry import Definitions
from orchestrator.tables import saga_log
from tests.support.servers import DatabaseUrls
from tests.support.world import DAWN, Desk, OwnedClock, World, an_order, answer

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def world(database_urls: DatabaseUrls, definitions: Definitions, clock: OwnedClock) -> AsyncIterator[World]:
    """Without the check at the end: some tests write into the log behind everybody's back."""
    async with World(database_urls, roles=["orchestrator"], definitions=definitions, clock=clock) as world:
        yield world


@pytest.fixture
def queries(world: World) -> Queries:
    """What is tested."""
    return world.queries


async def ids(world: World, *names: str, keys: Sequence[str | None] = ()) -> None:
    """Start a saga with each of these ids, the first of them with these keys."""
    desk = world.desk(ids=iter(names).__next__)
    pairs = itertools.zip_longest(names, keys)
    await desk.engine.start([desk.engine.request("place-order", an_order(), key) for _, key in pairs])


# --- lists ---------------------------------------------------------------------------------------------------------


async def search(queries: Queries, clock: OwnedClock, wanted: Filter) -> list[Summary]:
    return await queries.search(wanted, clock.now())


async def test_the_list_has_the_newest_first_and_ends_at_its_limit(
    queries: Queries, desk: Desk, clock: OwnedClock
) -> None:
    started = []
    for _ in range(3):
        started.append((await desk.start(an_order())).saga_id)
        clock.advance(MINUTE)

    assert [one.id for one in await search(queries, clock, Filter())] == started[::-1]
    assert [one.id for one in await search(queries, clock, Filter(limit=2))] == started[:0:-1]


async def test_the_list_is_filtered_by_time_status_and_definition(
    queries: Queries, desk: Desk, clock: OwnedClock
) -> None:
    early = (await desk.start(an_order())).saga_id
    clock.advance(MINUTE)
    late = (await desk.start(an_order())).saga_id
    await desk.receive(answer(f"{early}/open-order/do", "refused"))

    async def found(wanted: Filter) -> list[str]:
        return [one.id for one in await search(queries, clock, wanted)]

    assert await found(Filter(statuses=["compensated"])) == [early]
    assert await found(Filter(statuses=["running"])) == [late]
    assert await found(Filter(statuses=["running", "compensated"])) == [late, early]
    assert await found(Filter(statuses=["stuck"])) == []
    assert await found(Filter(definitions=["place-order"])) == [late, early]
    assert await found(Filter(definitions=["another"])) == []
    assert await found(Filter(started_before=DAWN + MINUTE)) == [early]
    assert await found(Filter(started_after=DAWN + MINUTE)) == [late]
    assert await found(Filter(statuses=["compensated"], started_after=DAWN + MINUTE)) == []


async def test_a_summary_counts_steps_and_seconds(queries: Queries, desk: Desk, clock: OwnedClock) -> None:
    saga_id = (await desk.start(an_order(), key="k-1")).saga_id
    clock.advance(MINUTE)
    await desk.receive(answer(f"{saga_id}/open-order/do"))
    [running] = await search(queries, clock, Filter())
    assert (running.key, running.done, running.undone, running.steps) == ("k-1", 1, 0, 6)
    assert (running.duration, running.reason) == (60.0, None)

    await desk.receive(answer(f"{saga_id}/reserve-stock/do", "refused", reason="sold out"))
    await desk.receive(answer(f"{saga_id}/open-order/undo"))
    clock.advance(MINUTE)
    [ended] = await search(queries, clock, Filter())
    assert (ended.status, ended.done, ended.undone) == ("compensated", 0, 1)
    assert ended.duration == 60.0, "time stands still for what has ended"
    assert "sold out" in str(ended.reason)


async def test_sagas_are_counted_by_status(queries: Queries, desk: Desk) -> None:
    first, second, _ = [(await desk.start(an_order())).saga_id for _ in range(3)]
    await desk.receive(answer(f"{first}/open-order/do", "refused"))

    assert await queries.counts() == {"running": 2, "compensated": 1}
    assert await queries.statuses([first, second, "nobody"]) == {first: "compensated", second: "running"}


# --- finding one -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["AAA111", "aaa111", "AAA1", "aaa1", "111"])
async def test_a_saga_is_found_by_its_id_and_either_end_of_it(queries: Queries, world: World, text: str) -> None:
    await ids(world, "AAA111", "AAA222", "BBB333")
    assert await queries.find(text) == "AAA111"


async def test_a_saga_is_found_by_its_key(queries: Queries, desk: Desk) -> None:
    saga_id = (await desk.start(an_order(), key="Order 7%")).saga_id
    assert await queries.find("Order 7%") == saga_id


async def test_a_whole_id_wins_over_those_that_begin_with_it(queries: Queries, world: World) -> None:
    await ids(world, "AAA1", "AAA2", "AAA3", "AAA4", "AAA")
    assert await queries.find("AAA") == "AAA"


async def test_a_key_wins_over_ids_that_begin_or_end_with_it(queries: Queries, world: World) -> None:
    await ids(world, "AAA7", "BBB7", "7CCC", "7DDD", "EEE0", keys=[None] * 4 + ["7"])
    assert await queries.find("7") == "EEE0"


async def test_an_ambiguous_beginning_is_refused_with_examples(queries: Queries, world: World) -> None:
    await ids(world, "AAA111", "AAA222")
    with pytest.raises(UnknownSaga, match=r"AAA111.*AAA222.*write more"):
        await queries.find("AAA")


@pytest.mark.parametrize("text", ["", " "])
async def test_nothing_is_the_beginning_of_no_id(queries: Queries, world: World, text: str) -> None:
    """As of a variable of the shell that was never set."""
    await ids(world, "AAA111")
    with pytest.raises(UnknownSaga, match="no saga has an empty id"):
        await queries.find(text)


@pytest.mark.parametrize("text", ["nothing", "A%", "AAA_11", "%", "_"])
async def test_what_is_not_there_is_not_found(queries: Queries, world: World, text: str) -> None:
    await ids(world, "AAA111")
    with pytest.raises(UnknownSaga, match="there is no saga"):
        await queries.find(text)


# --- one saga ----------------------------------------------------------------------------------------------------


async def test_a_saga_that_is_not_there_cannot_be_looked_at(queries: Queries) -> None:
    with pytest.raises(UnknownSaga, match="there is no saga nobody"):
        await queries.get("nobody", DAWN)


async def test_the_steps_stand_in_the_order_of_the_definition(queries: Queries, desk: Desk) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    view = await queries.get(saga_id, DAWN)

    assert [(one.name, one.kind, one.participant) for one in view.steps] == [
        ("open-order", "reversible", "order"),
        ("reserve-stock", "reversible", "inventory"),
        ("authorise-payment", "reversible", "payment"),
        ("capture-payment", "pivot", "payment"),
        ("sell-stock", "retriable", "inventory"),
        ("confirm-order", "retriable", "order"),
    ]


async def test_a_step_tells_its_attempts_and_times(queries: Queries, desk: Desk, clock: OwnedClock) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    clock.advance(timedelta(seconds=10))
    await desk.engine.fire_timers()
    clock.advance(timedelta(seconds=1))
    await desk.receive(answer(f"{saga_id}/open-order/do"))
    clock.advance(timedelta(seconds=1))
    await desk.receive(answer(f"{saga_id}/reserve-stock/do", "refused", reason="sold out"))

    step, refused, untouched, *_ = (await queries.get(saga_id, clock.now())).steps
    assert (step.status, step.attempts, step.undo_attempts) == ("undoing", 2, 1)
    assert [step.asked_at, step.answered_at, step.undo_asked_at, step.undone_at, step.due_at] == [
        DAWN,
        DAWN + timedelta(seconds=11),
        DAWN + timedelta(seconds=12),
        None,
        DAWN + timedelta(seconds=22),
    ]
    assert (refused.status, refused.note, refused.answered_at) == ("refused", "sold out", DAWN + timedelta(seconds=12))
    assert (untouched.status, untouched.attempts, untouched.asked_at) == ("pending", 0, None)

    clock.advance(timedelta(seconds=1))
    await desk.receive(answer(f"{saga_id}/open-order/undo"))
    view = await queries.get(saga_id, clock.now())
    assert (view.steps[0].undone_at, view.steps[0].due_at) == (DAWN + timedelta(seconds=13), None)
    assert (view.summary.status, view.ended_at) == ("compensated", DAWN + timedelta(seconds=13))


async def test_a_stuck_step_says_why(queries: Queries, desk: Desk, clock: OwnedClock) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    await desk.receive(
        answer(f"{saga_id}/open-order/do"),
        answer(f"{saga_id}/reserve-stock/do"),
        answer(f"{saga_id}/authorise-payment/do", authorisation_code="A1"),
    )
    for _ in range(3):
        clock.advance(timedelta(seconds=10))
        await desk.engine.fire_timers()

    view = await queries.get(saga_id, clock.now())
    [pivot] = [step for step in view.steps if step.name == "capture-payment"]
    assert (view.summary.status, pivot.attempts, pivot.due_at) == ("stuck", 3, None)
    assert "3 attempts" in str(pivot.note)
    assert view.summary.reason == f"capture-payment: {pivot.note}"


async def test_a_saga_without_its_definition_can_be_looked_at(world: World, desk: Desk) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    view = await Queries(world.databases["orchestrator"], Definitions([])).get(saga_id, DAWN)
    assert [(one.name, one.kind, one.participant) for one in view.steps][:2] == [
        ("open-order", "?", "?"),
        ("reserve-stock", "?", "?"),
    ]


async def test_a_view_goes_to_json_flat(queries: Queries, desk: Desk) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    view = to_json(await queries.get(saga_id, DAWN))
    assert (view["id"], view["status"], view["steps"][0]["name"]) == (saga_id, "running", "open-order")


# --- the log -----------------------------------------------------------------------------------------------------


async def test_the_log_is_read_page_by_page(queries: Queries, desk: Desk) -> None:
    first, second = [(await desk.start(an_order())).saga_id for _ in range(2)]
    await desk.receive(answer(f"{first}/open-order/do"))

    whole = await queries.log()
    assert [(line.saga_id, line.revision, line.entry.kind) for line in whole] == [
        (first, 1, "started"),
        (first, 1, "asked"),
        (second, 1, "started"),
        (second, 1, "asked"),
        (first, 2, "done"),
        (first, 2, "asked"),
    ]
    page = await queries.log(limit=1)
    assert page == whole[:2], "a decision is never torn apart"
    assert await queries.log(after=page[-1].position, limit=1) == whole[2:4]
    assert await queries.log(after=whole[-1].position) == []
    assert await queries.log(first) == [*whole[:2], *whole[4:]]
    assert await queries.log(first, after=whole[0].position) == whole[4:]
    assert [line async for line in queries.whole_log()] == whole
    assert [line async for line in queries.whole_log(second)] == whole[2:4]


async def test_a_tail_tells_every_row_once_also_one_that_becomes_visible_late(
    queries: Queries, desk: Desk, world: World, clock: OwnedClock
) -> None:
    """A position is given before its row is committed: the row at the gap comes when its writer commits."""
    tail = Tail(queries, None)
    first = (await desk.start(an_order())).saga_id
    assert [line.saga_id for line in await tail.more()] == [first, first]

    last = await queries.last_position()
    row = {"revision": 1, "entries": '[{"kind": "completed"}]'}
    early = insert(saga_log).values(position=last + 2, saga_id="EARLY", at=clock.now(), **row)
    late = insert(saga_log).values(position=last + 1, saga_id="LATE", at=clock.now(), **row)
    await world.execute("orchestrator", early)
    assert [line.saga_id for line in await tail.more()] == ["EARLY"]
    await world.execute("orchestrator", late)
    assert [line.saga_id for line in await tail.more()] == ["LATE"]
    assert await tail.more() == []


async def test_a_tail_goes_on_when_more_happens_at_once_than_a_page_holds(
    queries: Queries, world: World, clock: OwnedClock
) -> None:
    tail = Tail(queries, None)
    assert await tail.more() == []
    row = {"revision": 1, "entries": '[{"kind": "completed"}]', "at": clock.now()}
    rows = [row | {"saga_id": f"S{number}"} for number in range(2500)]
    for part in range(0, 2500, 500):
        await world.execute("orchestrator", insert(saga_log).values(rows[part : part + 500]))
    assert len(await tail.more()) == 2500
    await world.execute("orchestrator", insert(saga_log).values(rows[0] | {"saga_id": "LAST"}))
    assert [line.saga_id for line in await tail.more()] == ["LAST"]


async def test_a_log_line_goes_to_json_flat(queries: Queries, desk: Desk) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    line = (await queries.log())[1].to_json()
    assert line | {"position": 0, "due_at": ""} == {
        "position": 0,
        "saga_id": saga_id,
        "revision": 1,
        "at": "2026-01-01T00:00:00+00:00",
        "kind": "asked",
        "step": "open-order",
        "round": 1,
        "attempt": 1,
        "tries": 1,
        "due_at": "",
        "no_return": False,
    }
