"""Schedules on both databases: each time has its saga, once, whoever starts it, and whatever breaks meanwhile."""

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, text, update
from structlog.testing import capture_logs

from orchestrator import tables
from orchestrator.cron import AT_ONCE, BadCron, Missed
from orchestrator.definition import Policy
from orchestrator.door import BadInput
from orchestrator.registry import Definitions
from orchestrator.scheduler import RETRIED_AFTER, Scheduler
from orchestrator.schedules import (
    BadSchedule,
    Run,
    Schedule,
    ScheduleExists,
    Schedules,
    Spec,
    UnknownSchedule,
    key_of,
    past_runs_of,
    request_of,
)
from outbox.errors import DatabaseOutOfReach
from tests.support.servers import DatabaseUrls, Postgres, PostgresDatabases
from tests.support.waiting import eventually
from tests.support.world import DAWN, Desk, OwnedClock, World, an_order, definitions_with

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
DEFINITIONS = definitions_with(Policy(timeout=timedelta(seconds=10), attempts=3, factor=1.0, jitter=0.0))


@pytest.fixture
def clock() -> OwnedClock:
    """Stands still at dawn, 2026-01-01T00:00:00Z."""
    return OwnedClock()


@pytest.fixture
async def world(database_urls: DatabaseUrls, clock: OwnedClock) -> AsyncIterator[World]:
    """An orchestrator's database, and the check that every saga's log is the truth."""
    async with World(database_urls, roles=["orchestrator"], definitions=DEFINITIONS, clock=clock) as world:
        yield world
        assert await world.findings() == []


@pytest.fixture
async def on_postgresql(postgres: Postgres, clock: OwnedClock) -> AsyncIterator[World]:
    """The same, for what SQLite with its one writer does not have."""
    databases = PostgresDatabases(postgres)
    async with World(databases, roles=["orchestrator"], definitions=DEFINITIONS, clock=clock) as world:
        yield world
        assert await world.findings() == []
    databases.drop()


@pytest.fixture
def desk(world: World) -> Desk:
    """One replica's engine."""
    return world.desk()


@pytest.fixture
def schedules(desk: Desk) -> Schedules:
    """What people keep."""
    return Schedules(desk.engine)


@pytest.fixture
def scheduler(desk: Desk) -> Scheduler:
    """What looks at the clock."""
    return Scheduler(desk.engine)


def nightly(name: str = "nightly", **changes: Any) -> Spec:
    """Every hour of UTC, unless it is changed."""
    order = an_order() | {"order_id": "order of {scheduled_at}"}
    values: dict[str, Any] = {"definition": "place-order", "input": order, "cron": "0 * * * *", "timezone": "UTC"}
    return Spec(name=name, **(values | {"missed": "once"} | changes))


def at(text: str) -> datetime:
    """`01-01T03:00`, in 2026."""
    return datetime.fromisoformat(f"2026-{text}+00:00")


async def keys(world: World) -> list[str]:
    """The keys of all sagas, in the order of their times."""
    rows = await world.rows("orchestrator", select(tables.sagas.c.key).order_by(tables.sagas.c.key))
    return [row.key for row in rows]


async def times(world: World) -> list[str]:
    """The times that have a saga, of the only schedule."""
    return [key.partition("@2026-")[2] for key in await keys(world)]


async def filled(schedules: Schedules, name: str, begin: datetime, end: datetime, *, dry: bool = False) -> list[Run]:
    """A backfill, in one piece."""
    return [run async for batch in schedules.backfill(name, begin, end, dry=dry) for run in batch]


# --- by the clock --------------------------------------------------------------------------------------------------


async def test_a_saga_begins_when_its_time_has_come_and_not_before(
    world: World, schedules: Schedules, scheduler: Scheduler, clock: OwnedClock
) -> None:
    kept = await schedules.create(nightly())
    assert (kept.next_at, kept.last_at, kept.paused) == (DAWN + HOUR, None, False)

    clock.advance(HOUR - SECOND)
    assert await scheduler.fire() == 0
    clock.advance(SECOND)
    assert await scheduler.fire() == 1
    assert await scheduler.fire() == 0

    [saga] = await world.sagas()
    assert await keys(world) == ["nightly@2026-01-01T01:00:00Z"]
    assert (saga.definition, saga.data["order_id"]) == ("place-order", "order of 2026-01-01T01:00:00Z")
    assert await world.commands() == [(f"{saga.id}/open-order/do", 1)]
    moved = await schedules.get("nightly")
    assert (moved.next_at, moved.last_at) == (DAWN + 2 * HOUR, DAWN + HOUR)


async def test_the_placeholder_is_filled_wherever_it_stands(
    world: World, schedules: Schedules, scheduler: Scheduler, clock: OwnedClock
) -> None:
    line = {"sku": "lamp {scheduled_at}", "quantity": 2, "unit_price": "1.00"}
    order = {"order_id": "{scheduled_at}/{scheduled_at}", "customer_id": "{scheduled}", "lines": [line]}
    await schedules.create(nightly(input=order | {"currency": "EUR"}))
    clock.advance(HOUR)
    await scheduler.fire()

    [saga] = await world.sagas()
    time = "2026-01-01T01:00:00Z"
    assert (saga.data["order_id"], saga.data["customer_id"]) == (f"{time}/{time}", "{scheduled}")
    assert saga.data["lines"][0] | {"unit_price": None} == {"sku": f"lamp {time}", "quantity": 2, "unit_price": None}


@pytest.mark.parametrize(
    ("cron", "eve", "run"),
    [
        ("30 2 * * *", "03-28T12:00", ["03-29T01:00:00Z", "03-30T00:30:00Z"]),
        ("0 3 * * *", "03-28T12:00", ["03-29T01:00:00Z", "03-30T01:00:00Z"]),
        ("30 2 * * *", "10-24T12:00", ["10-25T00:30:00Z", "10-26T01:30:00Z"]),
        ("0 2-3 * * *", "10-24T12:00", ["10-25T00:00:00Z", "10-25T02:00:00Z", "10-26T01:00:00Z", "10-26T02:00:00Z"]),
        ("*/60 2 * * *", "10-24T12:00", ["10-25T00:00:00Z", "10-25T01:00:00Z", "10-26T01:00:00Z"]),
    ],
)
async def test_two_nights_around_a_change_of_the_clocks(
    world: World,
    schedules: Schedules,
    scheduler: Scheduler,
    clock: OwnedClock,
    cron: str,
    eve: str,
    run: list[str],
) -> None:
    clock.advance(at(eve) - DAWN)
    await schedules.create(nightly(cron=cron, timezone="Europe/Berlin", missed="skip"))
    for _ in range(8 * 24):
        clock.advance(15 * MINUTE)
        await scheduler.fire()
    assert await times(world) == run


@pytest.mark.parametrize(
    ("missed", "run"),
    [
        ("skip", []),
        ("once", ["01-01T05:00:00Z"]),
        ("all", [f"01-01T0{hour}:00:00Z" for hour in range(1, 6)]),
    ],
)
async def test_what_was_missed_is_skipped_or_run_once_or_all_of_it(
    world: World, schedules: Schedules, scheduler: Scheduler, clock: OwnedClock, missed: Missed, run: list[str]
) -> None:
    await schedules.create(nightly(missed=missed))
    clock.advance(5 * HOUR + 30 * MINUTE)

    with capture_logs() as logs:
        assert await scheduler.fire() == len(run)
    assert await times(world) == run
    [warning] = logs
    assert (warning["event"], warning["since"]) == ("a schedule has missed times", "2026-01-01T01:00:00Z")
    assert warning["started_now"] == len(run)
    moved = await schedules.get("nightly")
    assert (moved.next_at, moved.last_at) == (DAWN + 6 * HOUR, DAWN + 5 * HOUR if run else None)

    clock.advance(30 * MINUTE)
    assert await scheduler.fire() == 1
    assert await times(world) == [*run, "01-01T06:00:00Z"]


async def test_of_two_times_that_have_come_the_first_is_missed_however_late_it_is(
    world: World, schedules: Schedules, scheduler: Scheduler, clock: OwnedClock
) -> None:
    await schedules.create(nightly(cron="* * * * *"))
    clock.advance(2 * MINUTE)
    with capture_logs() as logs:
        assert await scheduler.fire() == 1
    assert [entry["since"] for entry in logs] == ["2026-01-01T00:01:00Z"]
    assert await times(world) == ["01-01T00:02:00Z"]


async def test_what_is_skipped_has_not_run(schedules: Schedules, scheduler: Scheduler, clock: OwnedClock) -> None:
    await schedules.create(nightly(missed="skip"))
    clock.advance(HOUR)
    await scheduler.fire()
    clock.advance(90 * MINUTE)
    with capture_logs():
        assert await scheduler.fire() == 0
    moved = await schedules.get("nightly")
    assert (moved.last_at, moved.next_at) == (DAWN + HOUR, DAWN + 3 * HOUR)


async def test_many_missed_runs_are_started_in_bounded_batches(
    world: World, schedules: Schedules, scheduler: Scheduler, clock: OwnedClock
) -> None:
    await schedules.create(nightly(cron="* * * * *", missed="all"))
    clock.advance((2 * AT_ONCE + 5) * MINUTE)

    assert [await scheduler.fire() for _ in range(4)] == [AT_ONCE, AT_ONCE, 5, 0]
    assert len(set(await keys(world))) == 2 * AT_ONCE + 5


async def test_a_crash_before_the_commit_leaves_the_time_for_another_replica(
    world: World, schedules: Schedules, clock: OwnedClock
) -> None:
    await schedules.create(nightly())
    clock.advance(HOUR)
    broken = Scheduler(world.desk(faults=Breaks("before-commit")).engine)
    with capture_logs():
        assert await broken.fire() == 0
    assert await world.sagas() == []
    assert await world.outgoing() == []
    assert (await schedules.get("nightly")).next_at == DAWN + HOUR

    assert await Scheduler(world.desk().engine).fire() == 1
    assert await times(world) == ["01-01T01:00:00Z"]


async def test_a_crash_after_the_commit_has_dealt_with_the_time(
    world: World, schedules: Schedules, clock: OwnedClock
) -> None:
    await schedules.create(nightly())
    clock.advance(HOUR)
    with capture_logs():
        await Scheduler(world.desk(faults=Breaks("committed")).engine).fire()
    assert await Scheduler(world.desk().engine).fire() == 0
    assert await times(world) == ["01-01T01:00:00Z"]


@dataclass
class Breaks:
    """Fails at this point of the orchestrator's."""

    point: str
    error: Exception | None = field(default_factory=lambda: RuntimeError("the lights went out"))

    def reach(self, point: str) -> None:
        """Raise there."""
        if point == f"orchestrator.{self.point}" and self.error is not None:
            raise self.error


async def test_two_replicas_at_once_start_each_time_once(world: World, schedules: Schedules, clock: OwnedClock) -> None:
    names = [f"nightly-{number}" for number in range(20)]
    for name in names:
        await schedules.create(nightly(name, missed="all"))
    replicas = [Scheduler(world.desk().engine) for _ in range(3)]
    clock.advance(3 * HOUR)

    fired = await asyncio.gather(*(replica.fire() for replica in replicas))
    assert sum(fired) == 3 * len(names)
    assert await keys(world) == sorted(f"{name}@2026-01-01T0{hour}:00:00Z" for name in names for hour in (1, 2, 3))


async def test_a_schedule_that_another_replica_has_in_hand_is_passed_over(
    on_postgresql: World, clock: OwnedClock
) -> None:
    schedules, scheduler = Schedules(on_postgresql.desk().engine), Scheduler(on_postgresql.desk().engine)
    for name in ("first", "second"):
        await schedules.create(nightly(name))
    clock.advance(HOUR)
    locked = select(tables.schedules).where(tables.schedules.c.name == "first").with_for_update()
    async with on_postgresql.databases["orchestrator"].transaction() as connection:
        await connection.execute(locked)
        with capture_logs() as logs:
            assert await scheduler.fire() == 1
    assert logs == [], "nobody has waited until a lock was refused"
    assert await keys(on_postgresql) == ["second@2026-01-01T01:00:00Z"]


async def test_a_saga_that_somebody_starts_at_the_same_moment_is_the_saga_of_its_time(
    on_postgresql: World, clock: OwnedClock
) -> None:
    world, desk = on_postgresql, on_postgresql.desk()
    schedule = await Schedules(desk.engine).create(nightly(missed="skip"))
    clock.advance(HOUR)
    async with desk.outbox.unit_of_work() as unit:
        [by_hand] = await desk.engine.start_within(unit, [request_of(desk.engine, schedule, clock.now())])
        await unit.writes.flush(unit.connection)
        firing = asyncio.create_task(Scheduler(world.desk().engine).fire())
        await eventually(partial(waits_for_a_lock, world), "the scheduler has met the key")
    assert await firing == 1
    assert [saga.id for saga in await world.sagas()] == [by_hand.saga_id]
    assert (await Schedules(desk.engine).get("nightly")).next_at == DAWN + 2 * HOUR


async def waits_for_a_lock(world: World) -> bool:
    """Whether somebody waits for somebody else in the database."""
    waiting = text("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
    return bool(await world.rows("orchestrator", waiting))


async def test_the_clock_and_a_backfill_at_once_start_each_time_once(
    world: World, schedules: Schedules, clock: OwnedClock
) -> None:
    await schedules.create(nightly(cron="* * * * *", missed="all"))
    clock.advance(80 * MINUTE)
    by_clock = [Scheduler(world.desk().engine) for _ in range(2)]
    by_hand = [Schedules(world.desk().engine) for _ in range(2)]

    fired, runs = await asyncio.gather(
        asyncio.gather(*(scheduler.fire() for scheduler in by_clock)),
        asyncio.gather(*(filled(one, "nightly", DAWN + MINUTE, clock.now()) for one in by_hand)),
    )
    assert await keys(world) == sorted(key_of("nightly", DAWN + n * MINUTE) for n in range(1, 81))
    assert sum(fired) == 80, "what is there already is dealt with too"
    assert {run.outcome for found in runs for run in found} <= {"started", "existing"}


# --- what cannot be started ------------------------------------------------------------------------------------------


async def test_what_cannot_be_started_holds_nobody_back_and_is_said_once(
    world: World, schedules: Schedules, scheduler: Scheduler, clock: OwnedClock
) -> None:
    for name in ("a-cron", "b-definition", "c-input", "d-good", "e-zone"):
        await schedules.create(nightly(name))
    await spoil(world, "a-cron", cron="0 25 * * *")
    await spoil(world, "b-definition", definition="gone")
    await spoil(world, "c-input", input={"order_id": ""})
    await spoil(world, "e-zone", timezone="Mars/Olympus")
    clock.advance(HOUR)

    with capture_logs() as logs:
        assert await scheduler.fire() == 1
        assert await scheduler.fire() == 0
        clock.advance(RETRIED_AFTER)
        assert await scheduler.fire() == 0
    assert await keys(world) == ["d-good@2026-01-01T01:00:00Z"]
    told = {entry["schedule"]: entry["reason"] for entry in logs}
    assert len(logs) == len(told) == 4
    assert told["b-definition"] == "BadInput: there is no saga 'gone' among the definitions that are loaded here"
    assert "bad hour" in told["a-cron"]
    assert "order_id: " in told["c-input"]
    assert "there is no time zone 'Mars/Olympus'" in told["e-zone"]


async def test_what_cannot_be_started_is_left_alone_for_a_while_and_then_tried_again(
    world: World, schedules: Schedules, scheduler: Scheduler, clock: OwnedClock
) -> None:
    good = nightly()
    await schedules.create(good)
    await spoil(world, "nightly", input={"order_id": ""})
    clock.advance(HOUR)
    with capture_logs():
        assert await scheduler.fire() == 0
    await spoil(world, "nightly", input=good.input)
    assert await scheduler.fire() == 0
    clock.advance(RETRIED_AFTER)
    assert await scheduler.fire() == 1


async def test_a_replica_without_the_definition_leaves_it_to_one_that_has_it(
    world: World, schedules: Schedules, scheduler: Scheduler, clock: OwnedClock
) -> None:
    await schedules.create(nightly())
    clock.advance(HOUR)
    elsewhere = world.desk(definitions=Definitions(()))
    with capture_logs():
        assert await Scheduler(elsewhere.engine).fire() == 0
    assert await scheduler.fire() == 1


async def test_what_is_late_and_why_can_be_asked(world: World, schedules: Schedules, clock: OwnedClock) -> None:
    for name in ("a-fine", "b-paused", "c-spoiled"):
        await schedules.create(nightly(name))
    await schedules.pause("b-paused", "ada")
    await spoil(world, "c-spoiled", cron="0 25 * * *")

    async def seen() -> list[tuple[str, bool, bool]]:
        found = await schedules.ls()
        return [(one.name, schedules.is_late(one), schedules.problem(one) is not None) for one in found]

    clock.advance(HOUR + MINUTE)
    assert await seen() == [("a-fine", False, False), ("b-paused", False, False), ("c-spoiled", False, True)]
    clock.advance(SECOND)
    assert await seen() == [("a-fine", True, False), ("b-paused", False, False), ("c-spoiled", True, True)]


async def test_a_database_that_is_away_is_not_the_schedules_fault(
    world: World, schedules: Schedules, clock: OwnedClock
) -> None:
    await schedules.create(nightly())
    clock.advance(HOUR)
    faults = Breaks("before-commit", DatabaseOutOfReach("it is away"))
    scheduler = Scheduler(world.desk(faults=faults).engine)
    with pytest.raises(DatabaseOutOfReach):
        await scheduler.fire()
    faults.error = None
    assert await scheduler.fire() == 1, "nothing is left alone"


async def spoil(world: World, name: str, **values: Any) -> None:
    """Change a schedule behind everybody's back, to what nobody would be allowed to keep."""
    await world.execute(
        "orchestrator", update(tables.schedules).where(tables.schedules.c.name == name).values(**values)
    )


# --- pausing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missed", ["skip", "once", "all"])
async def test_what_passes_while_a_schedule_is_paused_is_left_out(
    world: World, schedules: Schedules, scheduler: Scheduler, clock: OwnedClock, missed: Missed
) -> None:
    await schedules.create(nightly(missed=missed))
    await schedules.pause("nightly", "ada")
    clock.advance(3 * HOUR)
    assert await scheduler.fire() == 0

    before = await schedules.resume("nightly")
    assert (before.paused_by, before.next_at) == ("ada", DAWN + HOUR)
    assert await scheduler.fire() == 0
    clock.advance(HOUR)
    assert await scheduler.fire() == 1
    assert await times(world) == ["01-01T04:00:00Z"]


async def test_a_pause_belongs_to_whoever_ordered_it_first(schedules: Schedules) -> None:
    await schedules.create(nightly())
    assert not (await schedules.pause("nightly", "ada")).paused
    assert (await schedules.pause("nightly", "bob")).paused_by == "ada"
    assert (await schedules.get("nightly")).paused_by == "ada"


async def test_to_resume_what_is_not_paused_changes_nothing(
    schedules: Schedules, scheduler: Scheduler, clock: OwnedClock
) -> None:
    await schedules.create(nightly())
    clock.advance(HOUR)
    assert not (await schedules.resume("nightly")).paused
    assert await scheduler.fire() == 1, "a time that is due is still due"


# --- by hand -----------------------------------------------------------------------------------------------------


async def test_a_trigger_starts_a_saga_now_and_twice_in_a_second_once(
    world: World, schedules: Schedules, clock: OwnedClock
) -> None:
    await schedules.create(nightly())
    await schedules.pause("nightly", "ada")
    clock.advance(7.25 * SECOND)
    first = await schedules.trigger("nightly")
    clock.advance(0.5 * SECOND)
    again = await schedules.trigger("nightly")
    clock.advance(0.5 * SECOND)
    later = await schedules.trigger("nightly")

    assert first == Run("2026-01-01T00:00:07Z", "nightly@2026-01-01T00:00:07Z", "started", first.saga_id)
    assert again == replace(first, outcome="existing")
    assert (later.scheduled_at, later.outcome) == ("2026-01-01T00:00:08Z", "started")
    assert [saga.data["order_id"] for saga in await world.sagas()] == [
        "order of 2026-01-01T00:00:07Z",
        "order of 2026-01-01T00:00:08Z",
    ]
    assert (await schedules.get("nightly")).next_at == DAWN + HOUR


async def test_a_backfill_starts_what_has_no_saga_and_only_that(
    world: World, schedules: Schedules, scheduler: Scheduler, clock: OwnedClock
) -> None:
    clock.advance(DAY)
    await schedules.create(nightly())
    clock.advance(HOUR)
    await scheduler.fire()
    begin, end = at("01-01T22:00"), at("01-02T01:00")

    rehearsed = await filled(schedules, "nightly", begin, end, dry=True)
    assert len(await world.sagas()) == 1, "nothing is written"
    assert [run.outcome for run in rehearsed] == ["would start", "would start", "would start", "existing"]
    first = await filled(schedules, "nightly", begin, end)
    assert [run.outcome for run in first] == ["started", "started", "started", "existing"]
    again = await filled(schedules, "nightly", begin, end)
    assert again == [replace(run, outcome="existing") for run in first]
    assert await filled(schedules, "nightly", begin, end, dry=True) == again
    assert await times(world) == ["01-01T22:00:00Z", "01-01T23:00:00Z", "01-02T00:00:00Z", "01-02T01:00:00Z"]
    assert (await schedules.get("nightly")).last_at == end, "the clock's own, not the backfill's"


async def test_a_backfill_leaves_to_the_clock_what_is_still_to_come(
    world: World, schedules: Schedules, clock: OwnedClock
) -> None:
    await schedules.create(nightly())
    clock.advance(90 * MINUTE)
    await filled(schedules, "nightly", DAWN, DAWN + DAY)
    assert await times(world) == ["01-01T00:00:00Z", "01-01T01:00:00Z"]
    assert await filled(schedules, "nightly", DAWN + DAY, DAWN + 2 * DAY) == []


async def test_a_backfill_is_written_in_bounded_batches(schedules: Schedules, clock: OwnedClock) -> None:
    clock.advance(DAY)
    await schedules.create(nightly(cron="* * * * *"))
    last = DAWN + (AT_ONCE + 2) * MINUTE
    assert [len(batch) async for batch in schedules.backfill("nightly", DAWN, last)] == [AT_ONCE, 3]


async def test_a_time_that_ran_with_another_input_is_a_conflict(
    world: World, schedules: Schedules, scheduler: Scheduler, clock: OwnedClock
) -> None:
    await schedules.create(nightly())
    clock.advance(HOUR)
    await scheduler.fire()
    await schedules.replace(nightly(input=an_order()))

    for dry in (True, False):
        [run] = await filled(schedules, "nightly", DAWN + HOUR, DAWN + HOUR, dry=dry)
        assert run.outcome == "conflict"
    assert len(await world.sagas()) == 1


async def test_a_key_that_somebody_else_has_taken_is_told_and_does_not_stop_the_clock(
    world: World, desk: Desk, schedules: Schedules, scheduler: Scheduler, clock: OwnedClock
) -> None:
    await schedules.create(nightly())
    theirs = await desk.start(an_order(), key="nightly@2026-01-01T01:00:00Z")
    clock.advance(HOUR)
    with capture_logs() as logs:
        assert await scheduler.fire() == 1
    assert [(entry["event"], entry["saga"]) for entry in logs] == [
        ("a time of a schedule has run with another input", theirs.saga_id)
    ]
    assert (await schedules.get("nightly")).next_at == DAWN + 2 * HOUR
    assert len(await world.sagas()) == 1


# --- keeping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"name": "Nightly Run"}, BadSchedule, "'Nightly Run' is no name for a schedule"),
        ({"name": "n" * 101}, BadSchedule, "at most 100 characters"),
        ({"name": "a@b"}, BadSchedule, "is no name"),
        ({"missed": "some"}, BadSchedule, "skip, once, all"),
        ({"cron": "0 3 * *"}, BadCron, "five fields"),
        ({"timezone": "Europe/Berln"}, BadCron, "did you mean Europe/Berlin?"),
        ({"definition": "nobody"}, BadInput, "there is no saga 'nobody'"),
        ({"input": {}}, BadInput, "order_id: "),
        ({"input": {"saga_id": "x"}}, BadInput, "saga_id: "),
        ({"input": {"order_id": 10**30}}, BadInput, "cannot be kept as JSON"),
        ({"input": {"order_id": math.nan}}, BadInput, "cannot be kept as JSON"),
        ({"input": {"order_id": "\udcff"}}, BadInput, "cannot be kept as JSON"),
        ({"input": an_order() | {"order_id": "{scheduled_at}" * 6}}, BadInput, "order_id: "),  # too long once filled
    ],
)
async def test_what_could_never_run_is_refused(
    schedules: Schedules, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as refused:
        await schedules.create(replace(nightly(), **changes))
    assert said in str(refused.value)
    assert await schedules.ls() == []


async def test_a_name_is_taken_once(schedules: Schedules, world: World) -> None:
    others = [Schedules(world.desk().engine) for _ in range(3)]
    results = await asyncio.gather(*(one.create(nightly()) for one in others), return_exceptions=True)
    assert [type(result) for result in results].count(Schedule) == 1
    assert [type(result) for result in results].count(ScheduleExists) == 2
    with pytest.raises(ScheduleExists, match="--replace"):
        await schedules.create(nightly())


async def test_a_schedule_that_is_replaced_keeps_its_pause_and_what_is_due(
    schedules: Schedules, scheduler: Scheduler, clock: OwnedClock
) -> None:
    first = await schedules.replace(nightly())
    clock.advance(HOUR)
    order = an_order()
    same_times = await schedules.replace(nightly(input=order, missed="all", cron=" 0  * * * * "))
    assert (same_times.next_at, same_times.created_at) == (DAWN + HOUR, first.created_at)
    assert (same_times.input, same_times.missed) == (order, "all")
    assert await scheduler.fire() == 1

    await schedules.pause("nightly", "ada")
    other_times = await schedules.replace(nightly(cron="30 * * * *"))
    assert (other_times.next_at, other_times.last_at) == (DAWN + 1.5 * HOUR, DAWN + HOUR)
    assert (other_times.paused, other_times.paused_by) == (True, "ada")
    other_zone = await schedules.replace(nightly(cron="30 * * * *", timezone="Asia/Kathmandu"))
    assert other_zone.next_at == DAWN + HOUR + 45 * MINUTE
    assert await schedules.ls() == [other_zone]


async def test_a_schedule_that_is_removed_is_gone_and_its_sagas_stay(
    world: World, schedules: Schedules, scheduler: Scheduler, clock: OwnedClock
) -> None:
    await schedules.create(nightly())
    await schedules.create(nightly("other"))
    clock.advance(HOUR)
    await scheduler.fire()
    await schedules.remove("nightly")
    assert [one.name for one in await schedules.ls()] == ["other"]
    clock.advance(HOUR)
    assert await scheduler.fire() == 1
    assert len(await world.sagas()) == 3


@pytest.mark.parametrize("name", ["nobody", "", "No Name", "\udcff", "a\x00b"])
async def test_what_is_not_there_is_said_by_name(schedules: Schedules, name: str) -> None:
    for asked in (
        schedules.get(name),
        schedules.pause(name, "ada"),
        schedules.resume(name),
        schedules.remove(name),
        schedules.trigger(name),
        filled(schedules, name, DAWN, DAWN),
    ):
        with pytest.raises(UnknownSchedule, match="there is no schedule"):
            await asked


# --- looking back --------------------------------------------------------------------------------------------------


async def test_past_runs_are_those_of_the_schedule_the_latest_times_first(
    desk: Desk, schedules: Schedules, scheduler: Scheduler, clock: OwnedClock
) -> None:
    for name in ("nightly", "nightly-2", "night_y"):
        await schedules.create(nightly(name))
    await desk.start(an_order(), key="nightlyX")
    await desk.start(an_order(), key="nightly")
    clock.advance(HOUR)
    await scheduler.fire()
    await filled(schedules, "nightly", DAWN, DAWN)
    clock.advance(MINUTE)
    await schedules.trigger("nightly")

    runs = await schedules.past_runs(await schedules.get("nightly"), 10)
    assert [run.scheduled_at for run in runs] == [f"2026-01-01T{time}:00Z" for time in ("01:01", "01:00", "00:00")]
    assert {(run.status, run.ended_at) for run in runs} == {("running", None)}
    assert [run.started_at for run in runs] == [DAWN + HOUR + MINUTE, DAWN + HOUR, DAWN + HOUR]
    assert await schedules.past_runs(await schedules.get("nightly"), 1) == runs[:1]
    assert len(await schedules.past_runs(await schedules.get("night_y"), 10)) == 1


async def test_past_runs_are_found_by_their_index(world: World, schedules: Schedules) -> None:
    """Of 2,000 sagas of one definition a few are the schedule's: neither database reads the others."""
    schedule = await schedules.create(nightly())
    await schedules.trigger("nightly")
    [row] = await world.rows("orchestrator", select(tables.sagas))
    like_it = dict(row._mapping)
    for part in range(8):
        values = [like_it | {"id": f"S{part}-{n}", "key": f"order {part}-{n}"} for n in range(250)]
        await world.execute("orchestrator", insert(tables.sagas).values(values))
    await world.execute("orchestrator", text("ANALYZE"))

    dialect = world.databases["orchestrator"].engine.dialect
    query = past_runs_of(schedule, 10).compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    explain = "EXPLAIN QUERY PLAN" if dialect.name == "sqlite" else "EXPLAIN"
    rows = await world.rows("orchestrator", text(f"{explain} {query}".replace(":", r"\:")))
    searches = [row[-1].replace("(key)::text >=", "key>") for row in rows]  # PostgreSQL is wordier
    assert any("definition" in line and "key>" in line for line in searches), searches
    await world.execute("orchestrator", delete(tables.sagas).where(tables.sagas.c.key.startswith("order ")))
