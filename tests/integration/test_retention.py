"""Retention on both databases: what ended long ago is archived and goes, whoever may still be needed stays.

Sagas are real, and end at dawn by an owned clock; then months go by. Inbox rows are planted where a test is about which
of them stay, and made by a real service where it is about what they are there for.
"""

import asyncio
import gzip
import random
import re
import resource
import signal
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from sqlalchemy import event, insert, select, text, update

from orchestrator import machine, retention
from orchestrator.composition import messaging_of
from orchestrator.engine import new_saga_id
from orchestrator.entries import ENTRIES
from orchestrator.model import SAGA
from orchestrator.retention import Order, Pruner, Report, SagaRetention, TooSoon, Wanted, ended_long_ago
from orchestrator.tables import prunings, saga_labels, saga_log, sagas
from outbox.archive import Archive, ArchiveFailed
from outbox.database import Database
from outbox.faults import Faults
from outbox.retention import SHORTEST, THE_BEGINNING, MessagingRetention, Tally, old_inbox
from outbox.topology import KEPT_FOR
from participants.inventory.contracts import ReleaseStock, ReserveStock, StockLine
from tests.support.participants import Ask, Replica
from tests.support.servers import DatabaseUrls, Role
from tests.support.world import DAWN, ROLES, Desk, OwnedClock, World, an_order, answer

DAY: Final = timedelta(days=1)
MONTH: Final = timedelta(days=30)
YEAR: Final = timedelta(days=365)
LOGGED: Final = {"completed": 7, "compensated": 3}
"""Rows in the log of a saga that ended so."""


@pytest.fixture
def clock() -> OwnedClock:
    """Begins at dawn."""
    return OwnedClock()


@pytest.fixture
async def world(database_urls: DatabaseUrls, clock: OwnedClock) -> AsyncIterator[World]:
    """All four databases, and nothing that runs."""
    async with World(database_urls, clock=clock) as world:
        yield world


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where archives go. It is not there yet."""
    return tmp_path / "kept" / "archive"


@pytest.fixture
def desk(world: World) -> Desk:
    """What makes the sagas."""
    return world.desk()


# --- what the tests are told in ----------------------------------------------------------------------------------


async def complete(desk: Desk, key: str | None = None) -> str:
    """A saga that goes through."""
    saga_id = (await desk.start(an_order(), key)).saga_id
    steps = ("open-order", "reserve-stock", "authorise-payment", "capture-payment", "sell-stock", "confirm-order")
    for step in steps:
        data: dict[str, Any] = {"authorisation_code": "A1"} if step == "authorise-payment" else {}
        await desk.receive(answer(f"{saga_id}/{step}/do", **data))
    return saga_id


async def compensate(desk: Desk, key: str | None = None) -> str:
    """A saga that is undone."""
    saga_id = (await desk.start(an_order(), key)).saga_id
    await desk.receive(answer(f"{saga_id}/open-order/do"))
    await desk.receive(answer(f"{saga_id}/reserve-stock/do", "refused"))
    await desk.receive(answer(f"{saga_id}/authorise-payment/do", "refused"))
    await desk.receive(answer(f"{saga_id}/authorise-payment/undo"))
    await desk.receive(answer(f"{saga_id}/open-order/undo"))
    return saga_id


async def running(desk: Desk, key: str | None = None) -> str:
    """A saga that waits for its first answer."""
    return (await desk.start(an_order(), key)).saga_id


def pruner(world: World, now: datetime, *, batch: int = 500, faults: Faults | None = None) -> Pruner:
    """What `saga prune` runs."""
    messaging = [
        MessagingRetention(role, database, messaging_of(role), batch=batch, faults=faults)
        for role, database in world.databases.items()
    ]
    return Pruner(SagaRetention(world.databases["orchestrator"], batch=batch, faults=faults), messaging, now)


async def prune(
    world: World, clock: OwnedClock, archive: Path | None = None, *, batch: int = 500, **order: Any
) -> Report:
    """Prune what is older than a month."""
    return await pruner(world, clock.now(), batch=batch).run(Order(MONTH, archive, **order))


async def ids(world: World) -> set[str]:
    """The sagas that are there."""
    return {row.id for row in await world.rows("orchestrator", select(sagas.c.id))}


async def remember(world: World, role: Role, *message_ids: str, at: datetime = DAWN) -> None:
    """Rows in the inbox of a service."""
    rows = [{"message_id": message_id, "answer": "{}", "received_at": at} for message_id in message_ids]
    await world.execute(role, insert(messaging_of(role).inbox).values(rows))


async def remembered(world: World, role: Role) -> set[str]:
    """What is in the inbox of a service."""
    return {row.message_id for row in await world.rows(role, select(messaging_of(role).inbox.c.message_id))}


async def bury(world: World, role: Role, number: int, at: datetime = DAWN) -> None:
    """A dead letter."""
    letter = {"subject": "saga.cmd.x", "message_id": f"m-{number}", "reason": "cannot be read", "body": "{'"}
    row = letter | {"at": at, "deliveries": 1, "digest": f"{number}"}
    await world.execute(role, insert(messaging_of(role).dead_letters).values(row))


def archived(path: Path) -> list[Any]:
    """Every line of an archive."""
    with gzip.open(path) as lines:
        return [orjson.loads(line) for line in lines]


def files(folder: Path) -> list[Path]:
    """What is in a folder, if it is there."""
    return sorted(folder.iterdir()) if folder.exists() else []


class Raises(Exception):
    """The crash."""


class CrashAt:
    """Raises where a process would be killed."""

    def __init__(self, point: str, hit: int = 1) -> None:
        self.reached: Counter[str] = Counter()
        self._last = (point, hit)

    def reach(self, point: str) -> None:
        """Count, and crash."""
        self.reached[point] += 1
        if (point, self.reached[point]) == self._last:
            raise Raises(point)


@asynccontextmanager
async def transactions(database: Database) -> AsyncIterator[list[Counter[str]]]:
    """How many rows each transaction deletes from each table."""
    seen: list[Counter[str]] = []

    def begins(_connection: Any) -> None:
        seen.append(Counter())

    def executed(_c: Any, cursor: Any, statement: str, _p: Any, _context: Any, _many: bool) -> None:
        if (found := re.match(r"DELETE FROM (\w+)", statement)) is not None:
            seen[-1][found[1]] += cursor.rowcount

    engine = database.engine.sync_engine
    event.listen(engine, "begin", begins)
    event.listen(engine, "after_cursor_execute", executed)
    try:
        yield seen
    finally:
        event.remove(engine, "begin", begins)
        event.remove(engine, "after_cursor_execute", executed)


# --- which sagas go ----------------------------------------------------------------------------------------------


async def test_what_ended_long_ago_goes_with_its_log_and_labels_and_all_else_stays(
    world: World, desk: Desk, clock: OwnedClock, folder: Path
) -> None:
    first, still_going, last = await complete(desk), await running(desk), await compensate(desk)
    old = {first, last}
    for saga_id in old:
        await world.execute("orchestrator", insert(saga_labels).values(saga_id=saga_id, name="shop", value="north"))
    clock.advance(MONTH + DAY)
    young = await complete(desk)
    await world.execute("orchestrator", insert(saga_labels).values(saga_id=young, name="shop", value="south"))
    report = await prune(world, clock, folder)

    assert report.sagas == Tally(2, 0)
    assert await ids(world) == {still_going, young}
    for table in (saga_log, saga_labels):
        left = {row.saga_id for row in await world.rows("orchestrator", select(table.c.saga_id))}
        assert left == ({young, still_going} if table is saga_log else {young})
    assert len(await world.log(young)) > 0


async def test_a_saga_goes_only_when_it_has_ended_before_the_time_and_not_when_it_began(
    world: World, desk: Desk, clock: OwnedClock
) -> None:
    """It began a year ago, was stuck, and has ended now."""
    saga_id = await running(desk)
    clock.advance(YEAR)
    await desk.receive(answer(f"{saga_id}/open-order/do", "refused"))
    clock.advance(MONTH)
    assert (await prune(world, clock)).sagas == Tally(0, 0), "exactly a month is not longer than a month"
    clock.advance(timedelta(microseconds=1))
    assert (await prune(world, clock)).sagas == Tally(1, 0)


async def test_status_and_type_narrow_the_sagas(world: World, desk: Desk, clock: OwnedClock) -> None:
    completed, _ = await complete(desk), await compensate(desk)
    clock.advance(YEAR)
    assert (await prune(world, clock, definitions=["another"])).sagas == Tally(0, 0)
    assert (await prune(world, clock, definitions=["place-order"], statuses=["compensated"])).sagas == Tally(1, 0)
    assert await ids(world) == {completed}


async def test_nothing_younger_than_what_the_broker_may_deliver_is_pruned() -> None:
    assert SHORTEST > KEPT_FOR
    with pytest.raises(TooSoon, match="nothing younger than 4 days"):
        Order(SHORTEST - timedelta(seconds=1), None)
    Order(SHORTEST, None)


async def test_a_dry_run_counts_and_changes_nothing(world: World, desk: Desk, clock: OwnedClock, folder: Path) -> None:
    saga_id = await complete(desk)
    await remember(world, "order", f"{saga_id}/open-order/do", "nobody/open-order/do")
    await bury(world, "payment", 1)
    clock.advance(YEAR)
    foreseen = await prune(world, clock, folder, dry_run=True)

    assert (await ids(world), files(folder)) == ({saga_id}, [])
    assert (len(await remembered(world, "order")), len(await world.dead_letters("payment"))) == (2, 1)
    done = await prune(world, clock)
    assert foreseen == done, "it does what was foreseen"
    assert (done.sagas, done.inbox["order"], done.dead_letters["payment"]) == (Tally(1), Tally(1, 1), Tally(1))


async def test_pruning_again_finds_nothing(world: World, desk: Desk, clock: OwnedClock, folder: Path) -> None:
    await complete(desk)
    clock.advance(YEAR)
    assert len((await prune(world, clock, folder)).archives) == 1
    again = await prune(world, clock, folder)
    assert (again.sagas, again.archives) == (Tally(), [])
    assert len(files(folder)) == 1


# --- children ----------------------------------------------------------------------------------------------------


async def test_a_child_stays_until_whoever_may_undo_it_has_ended_as_long_ago(
    world: World, desk: Desk, clock: OwnedClock
) -> None:
    parent = await running(desk)
    child = await complete(desk, key=f"{parent}/book-trip/do")
    await remember(world, "order", f"{child}/open-order/do")
    clock.advance(YEAR)
    assert (await prune(world, clock)).sagas == Tally(0, 1)
    assert await remembered(world, "order") == {f"{child}/open-order/do"}, "an undo would need it"

    await desk.receive(answer(f"{parent}/open-order/do", "refused"))
    assert (await prune(world, clock)).sagas == Tally(0, 1), "the broker may still deliver the parent's last command"
    assert await ids(world) == {parent, child}

    clock.advance(MONTH + DAY)
    assert (await prune(world, clock)).sagas == Tally(2, 0)
    assert (await ids(world), await remembered(world, "order")) == (set(), set())


async def test_a_grandchild_stays_while_its_grandparent_runs(world: World, desk: Desk, clock: OwnedClock) -> None:
    """Its parent has ended, and is revived when the grandparent undoes it."""
    grandparent = await running(desk)
    parent = await complete(desk, key=f"{grandparent}/a/do")
    child = await complete(desk, key=f"{parent}/b/do/2")
    clock.advance(YEAR)
    assert (await prune(world, clock, batch=1)).sagas == Tally(0, 2)
    assert await ids(world) == {grandparent, parent, child}


async def test_a_child_whose_parent_is_gone_goes(world: World, desk: Desk, clock: OwnedClock) -> None:
    parent = await complete(desk)
    clock.advance(timedelta(hours=1))
    await complete(desk, key=f"{parent}/a/do")
    clock.advance(MONTH - timedelta(minutes=30))
    assert (await prune(world, clock)).sagas == Tally(1, 0)
    clock.advance(timedelta(hours=1))
    assert (await prune(world, clock)).sagas == Tally(1, 0)


async def test_a_key_with_a_slash_in_it_makes_no_child(world: World, desk: Desk, clock: OwnedClock) -> None:
    await complete(desk, key="2026/01/01")
    clock.advance(YEAR)
    assert (await prune(world, clock)).sagas == Tally(1, 0)


async def test_keys_that_name_each_other_end_the_search_and_keep_both(
    world: World, desk: Desk, clock: OwnedClock
) -> None:
    first, second = await complete(desk), await complete(desk)
    for one, other in ((first, second), (second, first)):
        await world.execute("orchestrator", update(sagas).where(sagas.c.id == one).values(key=f"{other}/a/do"))
    clock.advance(YEAR)
    assert (await prune(world, clock)).sagas == Tally(0, 2)


# --- the archive -------------------------------------------------------------------------------------------------


async def test_an_archived_saga_can_be_read_back_and_replayed(
    world: World, desk: Desk, clock: OwnedClock, folder: Path
) -> None:
    before = {}
    for saga_id in (await complete(desk, key="Bestellung 7 ü"), await compensate(desk)):
        for name in ("shop", "area"):
            await world.execute("orchestrator", insert(saga_labels).values(saga_id=saga_id, name=name, value="north"))
        before[saga_id] = await world.saga(saga_id)
    clock.advance(YEAR)
    [path] = (await prune(world, clock, folder)).archives

    assert path.name.startswith("sagas-20270101T000000Z-")
    assert path.stat().st_mode & 0o077 == 0, "there are people's data in it"
    lines = archived(path)
    assert [one["saga"]["id"] for one in lines] == sorted(before)
    for one in lines:
        row, log = one["saga"], one["log"]
        entries = [entry for decision in log for entry in ENTRIES.validate_python(decision["entries"])]
        assert machine.replay(row["id"], entries) == SAGA.validate_python(row["state"]) == before[row["id"]]
        assert [decision["revision"] for decision in log] == list(range(1, row["revision"] + 1))
        assert row.keys() == {column.name for column in sagas.columns}
        assert (row["started_at"], row["ended_at"]) == ("2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00+00:00")
        assert (one["labels"], row["status"]) == ({"area": "north", "shop": "north"}, before[row["id"]].status)
    assert {one["saga"]["key"] for one in lines} == {"Bestellung 7 ü", None}


async def test_batches_are_one_file_that_is_read_as_one(
    world: World, desk: Desk, clock: OwnedClock, folder: Path
) -> None:
    made = [await compensate(desk) for _ in range(5)]
    clock.advance(YEAR)
    report = await prune(world, clock, folder, batch=2)
    [path] = report.archives
    assert report.sagas == Tally(5, 0)
    assert [one["saga"]["id"] for one in archived(path)] == made
    assert path.read_bytes().count(b"\x1f\x8b\x08") == 3, "a member for each batch"
    assert files(folder) == [path]


async def test_a_saga_whose_log_is_not_whole_stays_and_its_neighbours_keep_their_own(
    world: World, desk: Desk, clock: OwnedClock, folder: Path
) -> None:
    first, second, third = [await complete(desk) for _ in range(3)]
    await world.execute("orchestrator", saga_log.delete().where(saga_log.c.saga_id == second))
    clock.advance(YEAR)
    report = await prune(world, clock, folder)
    assert (report.sagas, await ids(world)) == (Tally(2, 1), {second}), "`saga verify` should still find it"
    logged = {one["saga"]["id"]: len(one["log"]) for one in archived(report.archives[0])}
    assert logged == {first: LOGGED["completed"], second: 0, third: LOGGED["completed"]}


async def test_a_log_entry_that_cannot_be_read_is_archived_as_it_is(
    world: World, desk: Desk, clock: OwnedClock, folder: Path
) -> None:
    saga_id = await complete(desk)
    await world.execute("orchestrator", update(saga_log).where(saga_log.c.revision == 2).values(entries="{'\n"))
    clock.advance(YEAR)
    [path] = (await prune(world, clock, folder)).archives
    [line] = archived(path)
    assert (line["saga"]["id"], line["log"][1]["entries"]) == (saga_id, "{'\n")


# --- how it dies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "gone", "lines"),
    [
        ("prune.received", 0, 0),  # nothing has happened
        ("prune.before-commit", 0, 2),  # archived, and not deleted
        ("prune.committed", 2, 2),
    ],
)
async def test_after_a_crash_every_saga_is_there_or_in_an_archive(
    world: World, desk: Desk, clock: OwnedClock, folder: Path, point: str, gone: int, lines: int
) -> None:
    made = {await complete(desk) for _ in range(5)}
    clock.advance(YEAR)
    with pytest.raises(Raises):
        await pruner(world, clock.now(), batch=2, faults=CrashAt(point)).run(Order(MONTH, folder))

    assert len(made - await ids(world)) == gone
    found = [one["saga"]["id"] for path in files(folder) for one in archived(path)]
    assert len(found) == lines
    assert made == await ids(world) | set(found), "never neither"

    await prune(world, clock, folder, batch=2)
    found = [one["saga"]["id"] for path in files(folder) for one in archived(path)]
    twice = lines - gone
    assert (await ids(world), set(found), len(found)) == (set(), made, 5 + twice), "a line twice harms nobody"


async def test_a_torn_archive_still_gives_all_that_was_deleted(
    world: World, desk: Desk, clock: OwnedClock, folder: Path
) -> None:
    """Killed while the second batch is being written: what is in the file of it is cut off at any byte."""
    made = [await complete(desk) for _ in range(3)]
    clock.advance(YEAR)
    with pytest.raises(Raises):
        await pruner(world, clock.now(), batch=2, faults=CrashAt("prune.before-commit", 2)).run(Order(MONTH, folder))
    [path] = files(folder)
    whole = path.read_bytes()
    second = whole.rindex(b"\x1f\x8b\x08")
    for end in range(second, len(whole), 37):
        path.write_bytes(whole[:end])
        with gzip.open(path) as lines:
            found = [orjson.loads(lines.readline())["saga"]["id"] for _ in range(2)]
        assert found == made[:2]
    assert await ids(world) == {made[2]}


async def test_an_archive_that_cannot_be_written_deletes_nothing_and_says_so(
    world: World, desk: Desk, clock: OwnedClock, folder: Path
) -> None:
    saga_id = await complete(desk)
    clock.advance(YEAR)
    folder.parent.write_text("not a folder")
    with pytest.raises(ArchiveFailed, match=r"cannot be written .*what is not in it was not deleted"):
        await prune(world, clock, folder)
    assert await ids(world) == {saga_id}


def test_a_batch_that_fails_leaves_nothing_in_the_file(folder: Path) -> None:
    def half_a_batch(archive: Archive) -> None:
        with archive.batch() as write:
            write(b'{"half":')
            raise Raises

    archive = Archive(folder, "sagas", DAWN)
    with archive.batch() as write:
        write(b'{"first":1}\n')
    with pytest.raises(Raises):
        half_a_batch(archive)
    archive.close()
    assert (archive.is_there, archived(archive.path)) == (True, [{"first": 1}])

    never = Archive(folder, "sagas", DAWN)
    with pytest.raises(Raises):
        half_a_batch(never)
    never.close()
    assert (never.is_there, files(folder)) == (False, [archive.path])


def test_a_full_disk_is_told_and_leaves_what_is_whole(folder: Path) -> None:
    """The limit of a file's size is a disk that is full for this process."""
    archive = Archive(folder, "sagas", DAWN)
    with archive.batch() as write:
        write(b'{"first":1}\n')
    with file_size_limit(4096), pytest.raises(ArchiveFailed, match="File too large"), archive.batch() as write:
        write(b'{"noise":"' + random.Random(1).randbytes(100_000).hex().encode() + b'"}\n')
    archive.close()
    assert archived(archive.path) == [{"first": 1}]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process may grow beyond this."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


# --- while others work -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["_archive", "_delete"])
async def test_a_saga_that_is_revived_meanwhile_stays_and_its_neighbours_go(
    world: World, desk: Desk, clock: OwnedClock, folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Somebody writes to it just before it is archived, or just before it is deleted."""
    first, revived, last = [await complete(desk) for _ in range(3)]
    clock.advance(YEAR)
    then = getattr(SagaRetention, moment)

    async def meddle(self: SagaRetention, *arguments: Any) -> Any:
        again = {"revision": sagas.c.revision + 1, "status": "compensating", "ended_at": None}
        await world.execute("orchestrator", update(sagas).where(sagas.c.id == revived).values(again))
        return await then(self, *arguments)

    monkeypatch.setattr(SagaRetention, moment, meddle)
    report = await prune(world, clock, folder)
    assert (report.sagas, await ids(world)) == (Tally(2, 1), {revived})
    assert len(await world.log(revived)) > 0
    found = {one["saga"]["id"] for one in archived(report.archives[0])}
    assert found == ({first, last} if moment == "_archive" else {first, revived, last})


@pytest.mark.parametrize("database_urls", ["postgresql"], indirect=True)
async def test_a_saga_that_somebody_has_locked_is_passed_over(world: World, desk: Desk, clock: OwnedClock) -> None:
    locked, free = await complete(desk), await complete(desk)
    clock.advance(YEAR)
    async with world.databases["orchestrator"].transaction() as connection:
        await connection.execute(select(sagas).where(sagas.c.id == locked).with_for_update())
        report = await asyncio.wait_for(prune(world, clock), 4)
    assert (report.sagas, await ids(world)) == (Tally(1, 1), {locked})
    assert free != locked
    assert (await prune(world, clock)).sagas == Tally(1, 0)


async def test_two_that_prune_at_once_delete_everything_once(world: World, desk: Desk, clock: OwnedClock) -> None:
    for _ in range(12):
        await compensate(desk)
    await remember(world, "order", *(f"{saga_id}/open-order/do" for saga_id in await ids(world)))
    clock.advance(YEAR)
    both = await asyncio.gather(prune(world, clock, batch=3), prune(world, clock, batch=2))
    assert sum(one.sagas.pruned for one in both) == 12
    assert sum(one.inbox["order"].pruned for one in both) == 12
    assert (await ids(world), await remembered(world, "order")) == (set(), set())
    [row] = await world.rows("orchestrator", select(prunings))
    assert (row.definition, row.sagas) == ("place-order", 12)


async def test_it_runs_while_sagas_run_and_verify_is_clean(
    database_urls: DatabaseUrls, nats_url: str, folder: Path
) -> None:
    """Real sagas through real services; the first half of them is made old, and is pruned while the other half runs."""
    async with World(database_urls, nats_url) as world:
        await world.start(*ROLES)
        old = await world.place(*(an_order(customer=name) for name in ("ada", "bob", "ada", "ada") * 5))
        assert set(await world.until_ended(old)) == {"completed", "compensated"}
        await grow_old(world)
        more = [await world.place(an_order(), an_order(sku="sold-out")) for _ in range(10)]
        report = await pruner(world, datetime.now().astimezone(), batch=3).run(Order(MONTH, folder))
        more += [await world.place(an_order(), an_order(customer="bob")) for _ in range(5)]
        new = [saga_id for pair in more for saga_id in pair]

        assert report.sagas == Tally(20, 0)
        assert all(tally.kept == 0 and tally.pruned >= 20 for role, tally in report.inbox.items() if role in SERVICES)
        assert await world.until_ended(new) == ["completed", "compensated"] * 15
        assert await ids(world) == set(new)
        assert {one["saga"]["id"] for one in archived(report.archives[0])} == set(old)
        for role in SERVICES:
            assert {one.partition("/")[0] for one in await remembered(world, role)} <= set(new)
        assert await world.findings() == []


SERVICES: Final[tuple[Role, ...]] = ("order", "inventory", "payment")


async def grow_old(world: World) -> None:
    """Let all that is there have happened a year ago."""
    a_year_ago = datetime.now().astimezone() - YEAR
    await world.execute("orchestrator", update(sagas).values(ended_at=a_year_ago))
    for role in SERVICES:
        await world.execute(role, update(messaging_of(role).inbox).values(received_at=a_year_ago))


# --- inboxes -----------------------------------------------------------------------------------------------------


async def test_inbox_rows_stay_as_long_as_their_saga_may_ask_again(world: World, desk: Desk, clock: OwnedClock) -> None:
    ended, stuck, late = await complete(desk), await running(desk), await running(desk)
    rows = {one: f"{one}/open-order/do" for one in (ended, stuck, late)}
    await remember(world, "order", *rows.values(), f"{ended}/open-order/undo/2")
    clock.advance(YEAR)
    await desk.receive(answer(rows[late], "refused"))  # it has ended just now: its last command is with the broker
    report = await prune(world, clock)

    assert report.inbox["order"] == Tally(2, 2)
    assert await remembered(world, "order") == {rows[stuck], rows[late]}
    clock.advance(MONTH + DAY)
    assert (await prune(world, clock)).inbox["order"] == Tally(1, 1)
    assert await remembered(world, "order") == {rows[stuck]}


async def test_inbox_rows_that_are_young_stay_whoever_they_are_of(world: World, desk: Desk, clock: OwnedClock) -> None:
    """The saga has ended a year ago, and this command of it was delivered yesterday."""
    ended = await complete(desk)
    clock.advance(YEAR)
    await remember(world, "order", f"{ended}/open-order/do", at=clock.now() - DAY)
    assert (await prune(world, clock)).inbox["order"] == Tally(0, 0)
    clock.advance(MONTH)
    report = await prune(world, clock)
    assert report.inbox["order"] == Tally(1, 0), "the saga is gone, and was pruned"


async def test_inbox_rows_of_sagas_that_were_never_here_stay(world: World, desk: Desk, clock: OwnedClock) -> None:
    """As when the orchestrator's database is another one than the services': nothing is deleted on its word."""
    stranger = new_saga_id()
    await remember(world, "inventory", f"{stranger}/reserve-stock/do", "no-saga-at-all")
    clock.advance(YEAR)
    assert (await prune(world, clock)).inbox["inventory"] == Tally(0, 2)


async def test_a_stuck_saga_that_is_retried_after_a_year_is_applied_once(
    world: World, desk: Desk, clock: OwnedClock
) -> None:
    """The same command, the same id, a real service, before and after pruning."""
    inventory = Replica("inventory", world.databases["inventory"])
    await complete(desk)
    stuck = await running(desk)
    reserve = Ask(
        ReserveStock(reservation_id=stuck, lines=(StockLine(sku="lamp", quantity=3),)), f"{stuck}/reserve-stock/do"
    )
    first = await inventory.answer(reserve)
    table = messaging_of("inventory").inbox
    await world.execute("inventory", update(table).values(received_at=DAWN))
    clock.advance(YEAR)
    await prune(world, clock)

    again = await inventory.answer(reserve.again())
    assert (first.outcome, again.outcome, again.data) == ("done", "done", first.data)
    release = Ask(ReleaseStock(reservation_id=stuck), f"{stuck}/reserve-stock/undo", undoes=reserve.id)
    assert (await inventory.answer(release)).outcome == "done"
    assert await inventory.effects(stuck) == {stuck: "none"}, "the undo still knows what it undoes"
    assert await inventory.findings() == []


# --- dead letters ------------------------------------------------------------------------------------------------


async def test_old_dead_letters_of_every_role_are_archived_and_go(
    world: World, clock: OwnedClock, folder: Path
) -> None:
    for number, role in enumerate(ROLES):
        await bury(world, role, number)
    clock.advance(YEAR)
    await bury(world, "order", 100, at=clock.now())
    report = await prune(world, clock, folder, batch=1)

    assert report.dead_letters == {role: Tally(1, 0) for role in ROLES}
    [path] = report.archives
    assert path.name.startswith("dead-letters-")
    lines = archived(path)
    assert [(one["role"], one["message_id"], one["body"]) for one in lines] == [
        (role, f"m-{number}", "{'") for number, role in enumerate(ROLES)
    ]
    assert await world.dead_letters("order") == ["cannot be read"]


async def test_what_people_did_about_dead_letters_is_archived_and_goes_with_them(
    world: World, clock: OwnedClock, folder: Path
) -> None:
    for number, action in enumerate(("redriven", "dropped")):
        await note(world, number, action)
    clock.advance(YEAR)
    await note(world, 2, "dropped", at=clock.now())
    await bury(world, "inventory", 3)
    report = await prune(world, clock, folder, batch=1)

    assert report.dead_letters["inventory"] == Tally(3, 0)
    letter, *notes = archived(report.archives[0])
    assert (letter["message_id"], "action" in letter) == ("m-3", False)
    assert [(one["role"], one["letter_id"], one["action"], one["by"], one["why"]) for one in notes] == [
        ("inventory", 0, "redriven", "grace", "it is mended"),
        ("inventory", 1, "dropped", "grace", "it is mended"),
    ]
    left = await world.rows("inventory", select(messaging_of("inventory").dead_letter_log.c.letter_id))
    assert [row.letter_id for row in left] == [2]


async def note(world: World, number: int, action: str, at: datetime = DAWN) -> None:
    """What somebody did about a dead letter that is gone."""
    row = {"at": at, "action": action, "letter_id": number, "subject": "saga.cmd.x", "message_id": f"m-{number}"}
    values = row | {"reason": "cannot be read", "by": "grace", "why": "it is mended"}
    await world.execute("inventory", insert(messaging_of("inventory").dead_letter_log).values(values))


@pytest.mark.parametrize("batch", [2, 500])
async def test_suspects_go_when_the_broker_has_forgotten_their_messages(
    world: World, clock: OwnedClock, batch: int
) -> None:
    table = messaging_of("order").suspects
    old = [{"digest": f"old-{number}", "failed": 1, "opened": 0, "at": DAWN} for number in range(5)]
    await world.execute("order", insert(table).values(old))
    clock.advance(YEAR)
    young = {"digest": "young", "failed": 7, "opened": 2, "at": clock.now()}
    await world.execute("order", insert(table).values(young))
    await prune(world, clock, batch=batch, dry_run=True)
    assert len(await world.rows("order", select(table))) == 6
    await prune(world, clock, batch=batch)
    assert [row.digest for row in await world.rows("order", select(table))] == ["young"]


async def test_dead_letters_survive_a_crash_after_they_were_archived(
    world: World, clock: OwnedClock, folder: Path
) -> None:
    await bury(world, "order", 1)
    clock.advance(YEAR)
    with pytest.raises(Raises):
        await pruner(world, clock.now(), faults=CrashAt("prune.before-commit")).run(Order(MONTH, folder))
    assert len(await world.dead_letters("order")) == 1
    assert [len(archived(path)) for path in files(folder)] == [1]


# --- verify ------------------------------------------------------------------------------------------------------


async def test_verify_knows_what_was_pruned_from_what_is_lost(world: World, desk: Desk, clock: OwnedClock) -> None:
    inventory = Replica("inventory", world.databases["inventory"])

    async def reserve(saga_id: str) -> None:
        lines = (StockLine(sku="lamp", quantity=1),)
        command = ReserveStock(reservation_id=saga_id, lines=lines)
        assert (await inventory.answer(Ask(command, f"{saga_id}/reserve-stock/do"))).outcome == "done"

    async def orphans() -> set[str | None]:
        return {one.saga_id for one in await world.findings() if one.check == "effects-have-a-saga"}

    pruned, kept = await complete(desk), await running(desk)
    lost = new_saga_id()
    assert pruned < lost
    for saga_id in (pruned, kept, lost):
        await reserve(saga_id)
    assert await orphans() == {lost}

    clock.advance(YEAR)
    assert (await prune(world, clock)).sagas == Tally(1, 0)
    assert await orphans() == {lost}, "the pruned one is no orphan, and the lost one still is"


async def test_the_newest_that_was_pruned_is_never_forgotten(world: World, clock: OwnedClock) -> None:
    """Also when an older one is pruned after it."""
    names = iter(["01B", "01A", "01C"])
    desk = world.desk(ids=names.__next__)
    await complete(desk)
    clock.advance(DAY)
    await complete(desk)
    clock.advance(MONTH - timedelta(hours=1))
    assert (await prune(world, clock)).sagas == Tally(1, 0)
    clock.advance(DAY)
    assert (await prune(world, clock)).sagas == Tally(1, 0)
    [row] = await world.rows("orchestrator", select(prunings))
    assert (row.sagas, row.last_id) == (2, "01B")


# --- bounds ------------------------------------------------------------------------------------------------------


async def test_every_transaction_is_bounded(world: World, desk: Desk, clock: OwnedClock) -> None:
    for _ in range(7):
        await complete(desk)
    await remember(world, "order", *(f"{saga_id}/open-order/do" for saga_id in await ids(world)))
    for number in range(7):
        await bury(world, "order", number)
    clock.advance(YEAR)
    async with transactions(world.databases["orchestrator"]) as ours, transactions(world.databases["order"]) as theirs:
        await prune(world, clock, batch=3)

    deleted = [dict(one) for one in ours if one]
    assert [one["sagas"] for one in deleted] == [3, 3, 1]
    assert [one["saga_log"] for one in deleted] == [count * LOGGED["completed"] for count in (3, 3, 1)]
    assert [dict(one) for one in theirs if one] == [{"inbox": count} for count in (3, 3, 1)] + [
        {"dead_letters": count} for count in (3, 3, 1)
    ]


async def test_a_long_log_is_not_held_in_memory(world: World, desk: Desk, clock: OwnedClock, folder: Path) -> None:
    """Of 40 MB, in one saga, a third would be too much."""
    saga_id = await complete(desk)
    noise = orjson.dumps([{"kind": "completed", "noise": "x" * 200_000}]).decode()
    rows = [{"saga_id": saga_id, "revision": 8 + n, "at": DAWN, "entries": noise} for n in range(200)]
    for part in range(0, 200, 20):
        await world.execute("orchestrator", insert(saga_log).values(rows[part : part + 20]))
    await world.execute("orchestrator", update(sagas).values(revision=207))
    clock.advance(YEAR)
    tracemalloc.start()
    try:
        report = await prune(world, clock, folder)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report.sagas == Tally(1, 0)
    assert peak < 25_000_000, f"{peak:,}"


@pytest.mark.parametrize(("rows", "sizes"), [(14, [2, 2, 1]), (20, [2, 2, 1]), (21, [3, 2]), (1, [1] * 5)])
async def test_long_logs_make_small_batches(
    world: World, desk: Desk, clock: OwnedClock, monkeypatch: pytest.MonkeyPatch, rows: int, sizes: list[int]
) -> None:
    monkeypatch.setattr(retention, "LOG_ROWS_AT_ONCE", rows)
    for _ in range(5):
        await complete(desk)
    clock.advance(YEAR)
    async with transactions(world.databases["orchestrator"]) as ours:
        await prune(world, clock)
    assert [one["sagas"] for one in ours if one] == sizes


# --- indexes -----------------------------------------------------------------------------------------------------


async def test_what_ended_long_ago_is_found_by_its_index(world: World, desk: Desk, clock: OwnedClock) -> None:
    """Of 3,000 sagas a few are old: neither database reads the others."""
    await complete(desk)
    [row] = await world.rows("orchestrator", select(sagas))
    like_it = dict(row._mapping)
    for part in range(6):
        rows = [like_it | {"id": f"S{part}-{n}", "ended_at": DAWN + YEAR + n * DAY} for n in range(500)]
        await world.execute("orchestrator", insert(sagas).values(rows[:250]), insert(sagas).values(rows[250:]))
    await world.execute("orchestrator", text("ANALYZE"))
    for after in ((THE_BEGINNING, ""), (DAWN, "S1")):
        query = ended_long_ago(Wanted(DAWN + MONTH), after, 500)
        assert "ix_sagas_ended_at" in await plan(world, "orchestrator", query)


async def test_what_was_received_long_ago_is_found_by_its_index(world: World) -> None:
    rows = [f"S{number}/a/do" for number in range(2000)]
    for part in range(0, 2000, 500):
        await remember(world, "order", *rows[part : part + 500], at=DAWN + YEAR)
    await remember(world, "order", "old/a/do")
    await world.execute("order", text("ANALYZE"))
    query = old_inbox(messaging_of("order").inbox, DAWN + MONTH, (THE_BEGINNING, ""), 500)
    assert "ix_inbox_received_at" in await plan(world, "order", query)


async def plan(world: World, role: Role, query: Any) -> str:
    """How the database would answer."""
    dialect = world.databases[role].engine.dialect
    explain = "EXPLAIN QUERY PLAN" if dialect.name == "sqlite" else "EXPLAIN"
    literal = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True})).replace(":", r"\:")
    return "\n".join(str(tuple(row)) for row in await world.rows(role, text(f"{explain} {literal}")))
