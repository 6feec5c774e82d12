"""The one door to a database: all or nothing, exact, and with a sentence for everything that is out of reach."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import delete, func, insert, make_url, select, text, update
from sqlalchemy.exc import StatementError

from outbox import database as database_module
from outbox.database import Database
from outbox.errors import DatabaseBusy, DatabaseOutOfReach, SchemaMissing
from outbox.tables import MessagingTables
from participants.inventory.models import Stock
from participants.payment.models import Account, Posting
from tests.support.messaging import DAWN, OpenDatabase, count, messaging, opened, rows_of
from tests.support.outages import Breakable, be_impatient, breakable_database, failed_over, locked
from tests.support.servers import DatabaseUrls, Postgres, PostgresDatabases, SqliteDatabases
from tests.support.waiting import eventually

REPOSITORY = Path(__file__).parents[2]
ACCOUNT = {"customer_id": "ada", "currency": "EUR", "balance": Decimal(1), "held": Decimal(0)}
MANY = 10_000

# Reads, then writes what it read plus one, as often as it is told; waits for a go, so that the processes meet.
COUNTING_PROCESS = """
import asyncio, sys
from sqlalchemy import select, update
from outbox.database import Database
from participants.inventory.models import Stock
async def main():
    database, table = Database(sys.argv[1]), Stock.table
    for _ in range(int(sys.argv[2])):
        async with database.transaction() as connection:
            seeded = (await connection.execute(select(table.c.seeded))).scalar_one()
            await connection.execute(update(table).values(seeded=seeded + 1))
    await database.close()
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main())
"""


@pytest.fixture
async def payment(open_database: OpenDatabase) -> Database:
    return await open_database("payment")


@pytest.fixture(params=["sqlite", "postgresql"])
def breakable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Breakable]:
    with breakable_database(request.param, tmp_path) as database:
        yield database


@pytest.fixture
async def replicas(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Database, Database]]:
    """Two doors to one PostgreSQL database, with an account in it. Nobody waits long for a lock."""
    monkeypatch.setitem(database_module.SERVER_SETTINGS, "lock_timeout", "200ms")
    urls = PostgresDatabases(postgres)
    async with opened(urls) as open_one:
        both = await open_one("payment"), await open_one("payment")
        async with both[0].transaction() as connection:
            await connection.execute(insert(Account.table).values(ACCOUNT))
        yield both
    urls.drop()


def posting(number: int, amount: str) -> dict[str, object]:
    names = {"posting_id": f"p-{number}", "entry_id": "e", "account": "ada", "currency": "EUR"}
    return {**names, "amount": Decimal(amount)}


async def test_a_frozen_transaction_loses_its_locks(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that is stopped in the middle of a transaction must not hold the others back for ever."""
    monkeypatch.setitem(database_module.SERVER_SETTINGS, "idle_in_transaction_session_timeout", "500ms")
    urls = PostgresDatabases(postgres)
    everyone = select(Account.table).with_for_update()
    async with opened(urls) as open_one:
        frozen, healthy = await open_one("payment"), await open_one("payment")
        async with frozen.transaction() as connection:
            await connection.execute(insert(Account.table).values(ACCOUNT))

        async def freeze() -> None:
            async with frozen.transaction() as connection:
                await connection.execute(everyone)
                async with healthy.transaction() as other:
                    assert len((await other.execute(everyone)).all()) == 1
                await connection.execute(everyone)

        with pytest.raises(DatabaseOutOfReach):
            await freeze()
    urls.drop()


# --- transactions ------------------------------------------------------------------------------------------------


async def test_a_transaction_is_seen_by_others_when_it_has_ended(open_database: OpenDatabase) -> None:
    writer, reader = await open_database("payment"), await open_database("payment")
    async with writer.transaction() as connection:
        await connection.execute(insert(Account.table).values(ACCOUNT))
        assert await count(reader, Account.table) == 0
    assert await count(reader, Account.table) == 1


async def test_nothing_is_left_of_a_transaction_that_raises(payment: Database) -> None:
    async def fail() -> None:
        async with payment.transaction() as connection:
            await connection.execute(insert(Account.table).values(ACCOUNT))
            await connection.execute(insert(Posting.table).values(posting(1, "1")))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert (await count(payment, Account.table), await count(payment, Posting.table)) == (0, 0)


async def test_nothing_is_left_of_a_transaction_that_is_cancelled(payment: Database) -> None:
    written = asyncio.Event()

    async def write() -> None:
        async with payment.transaction() as connection:
            await connection.execute(insert(Account.table).values(ACCOUNT))
            written.set()
            await asyncio.Event().wait()

    writing = asyncio.create_task(write())
    await written.wait()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert writing.cancelled()
    assert await count(payment, Account.table) == 0
    async with payment.transaction() as connection:  # and the door is open to the next one
        await connection.execute(insert(Account.table).values(ACCOUNT))


async def test_a_look_is_consistent_and_blocks_nobody(open_database: OpenDatabase) -> None:
    writer, reader = await open_database("payment"), await open_database("payment")
    query = select(func.count()).select_from(Account.table)
    async with reader.reading() as connection:
        assert (await connection.execute(query)).scalar_one() == 0
        async with writer.transaction() as other:
            await other.execute(insert(Account.table).values(ACCOUNT))
        assert (await connection.execute(query)).scalar_one() == 0
    assert await count(reader, Account.table) == 1


# --- types -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "written"),
    [("0.1", "0.10"), ("-3", "-3.00"), ("0.0001", "0.0001"), ("1.2500", "1.25"), ("99999999999999.9999",) * 2],
)
async def test_money_comes_back_as_it_was(payment: Database, amount: str, written: str) -> None:
    async with payment.transaction() as connection:
        await connection.execute(insert(Posting.table).values(posting(1, amount)))
    [row] = await rows_of(payment, Posting.table)
    assert (row.amount, str(row.amount)) == (Decimal(amount), written)


async def test_money_is_summed_exactly_by_sql(payment: Database) -> None:
    async with payment.transaction() as connection:
        await connection.execute(insert(Posting.table), [posting(number, "0.1") for number in range(1000)])
        await connection.execute(insert(Posting.table).values(posting(1000, "99999999999999.9999")))
    async with payment.reading() as connection:
        total = (await connection.execute(select(func.sum(Posting.table.c.amount)))).scalar_one()
        dear = select(Posting.table.c.posting_id).where(Posting.table.c.amount > Decimal("0.1"))
        assert (await connection.execute(dear)).scalars().all() == ["p-1000"]
    assert total == Decimal("100000000000099.9999")


async def test_a_fifth_decimal_place_is_refused(payment: Database) -> None:
    with pytest.raises(StatementError, match=r"0\.00001 has more than 4 decimal places"):
        async with payment.transaction() as connection:
            await connection.execute(insert(Posting.table).values(posting(1, "0.00001")))
    assert await count(payment, Posting.table) == 0


@pytest.mark.parametrize("hours", [0, 5.5, -11])
async def test_a_moment_of_any_zone_comes_back_in_utc(payment: Database, hours: float) -> None:
    zone = timezone(timedelta(hours=hours))
    moment = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=zone)
    outbox = messaging("payment").outbox
    row = {"message_id": "m", "subject": "s", "body": "{}", "due_at": moment}
    async with payment.transaction() as connection:
        await connection.execute(insert(outbox).values(row))
    [found] = await rows_of(payment, outbox)
    assert (found.due_at, found.due_at.tzinfo) == (moment, UTC)
    async with payment.reading() as connection:
        same = select(outbox.c.message_id).where(outbox.c.due_at == moment.astimezone(UTC))
        assert (await connection.execute(same)).scalars().all() == ["m"]


# --- any_of ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def stocked(open_database: OpenDatabase) -> Database:
    """Articles `0` to `9999`, of which so many were seeded as they are called."""
    database = await open_database("inventory")
    rows = [{"sku": str(n), "seeded": n, "available": n, "reserved": 0, "sold": 0} for n in range(MANY)]
    async with database.transaction() as connection:
        await connection.execute(insert(Stock.table), rows)
    return database


@pytest.mark.parametrize("wanted", [0, 1, MANY])
async def test_any_of_finds_exactly_what_is_named(stocked: Database, wanted: int) -> None:
    numbers = [*range(MANY - wanted, MANY), MANY + 1]
    table = Stock.table
    async with stocked.reading() as connection:
        by_text = select(table.c.sku).where(stocked.any_of(table.c.sku, map(str, numbers)))
        by_number = select(table.c.seeded).where(stocked.any_of(table.c.seeded, numbers))
        assert {int(sku) for sku in (await connection.execute(by_text)).scalars()} == set(numbers[:-1])
        assert set((await connection.execute(by_number)).scalars()) == set(numbers[:-1])


async def test_any_of_nothing_is_nothing(stocked: Database) -> None:
    async with stocked.reading() as connection:
        query = select(Stock.table).where(stocked.any_of(Stock.table.c.sku, []))
        assert (await connection.execute(query)).all() == []


async def test_any_of_takes_every_character_for_what_it_is(open_database: OpenDatabase) -> None:
    database = await open_database("inventory")
    odd = ["'; --", '"', "{a,b}", "NULL", "é\n", "\\", "[1]"]
    rows = [{"sku": sku, "seeded": 0, "available": 0, "reserved": 0, "sold": 0} for sku in [*odd, "a", "1"]]
    async with database.transaction() as connection:
        await connection.execute(insert(Stock.table), rows)
        query = select(Stock.table.c.sku).where(database.any_of(Stock.table.c.sku, odd))
        assert {*(await connection.execute(query)).scalars()} == {*odd}


# --- out of reach ------------------------------------------------------------------------------------------------


async def sentence_of(database: Database) -> str:
    """What a person reads who wants to write. No thread of a connection is left of it."""

    async def has_left_nothing() -> bool:
        return not any("connection_worker" in thread.name for thread in threading.enumerate())

    try:
        with pytest.raises(DatabaseOutOfReach) as caught:
            async with database.transaction() as connection:
                await connection.execute(text("SELECT 1"))
        return str(caught.value)
    finally:
        await database.close()
        await eventually(has_left_nothing, "every thread of the driver has ended")


async def test_a_wrong_host_is_out_of_reach() -> None:
    sentence = await sentence_of(Database("postgresql://ada:s3cret@127.0.0.1:1/shop"))
    assert "the database postgresql://ada:***@127.0.0.1:1/shop is out of reach (" in sentence
    assert "check that it is running and that the URL is right" in sentence
    assert "s3cret" not in sentence


async def test_a_wrong_password_is_out_of_reach_and_is_not_told(postgres: Postgres) -> None:
    wrong = make_url(postgres.url()).set(username="nobody_of_that_name", password="s3cret")
    sentence = await sentence_of(Database(wrong.render_as_string(hide_password=False)))
    assert "nobody_of_that_name" in sentence.partition("is out of reach")[2]
    assert "s3cret" not in sentence


async def test_a_database_that_does_not_exist_is_out_of_reach(postgres: Postgres) -> None:
    assert 'database "no_such_database" does not exist' in await sentence_of(Database(postgres.url("no_such_database")))


async def test_a_folder_is_no_database(tmp_path: Path) -> None:
    assert "unable to open database file" in await sentence_of(Database(f"sqlite:///{tmp_path}"))


async def test_a_file_that_is_no_database_is_out_of_reach(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("dear diary, " * 1000)
    assert "is not a database" in await sentence_of(Database(f"sqlite:///{tmp_path / 'diary.txt'}"))


async def test_a_file_that_somebody_locks_is_out_of_reach(tmp_path: Path) -> None:
    file = tmp_path / "locked.db"
    database = Database(f"sqlite:///{file}")
    be_impatient(database)
    async with database.transaction() as connection:
        await connection.execute(text("CREATE TABLE notes (note TEXT)"))
    with closing(sqlite3.connect(file, isolation_level=None)) as somebody:
        somebody.execute("BEGIN IMMEDIATE")
        assert "database is locked" in await sentence_of(database)
    async with database.transaction() as connection:
        await connection.execute(text("INSERT INTO notes VALUES ('free again')"))
    await database.close()


async def test_a_file_that_could_not_be_written_is_opened_anew_when_a_write_is_refused(tmp_path: Path) -> None:
    """A connection that was made while the file could only be read stays so, whatever becomes of the file."""
    database = Database(f"sqlite:///{tmp_path / 'shop.db'}")
    async with database.transaction() as connection:
        await connection.execute(text("CREATE TABLE notes (note TEXT)"))
    async with database.reading() as connection:
        await connection.execute(text("PRAGMA query_only = ON"))
    assert "it takes no writes: it is read-only): see whether" in await sentence_of(database)
    async with database.transaction() as connection:
        await connection.execute(text("INSERT INTO notes VALUES ('free again')"))
    await database.close()


async def test_an_outage_takes_only_what_was_not_committed(breakable: Breakable) -> None:
    database = breakable.open()
    async with database.transaction() as connection:
        await connection.execute(text("CREATE TABLE notes (note VARCHAR(9))"))
        await connection.execute(text("INSERT INTO notes VALUES ('before')"))
    async with breakable.outage():
        for _ in range(2):
            with pytest.raises(DatabaseOutOfReach):
                async with database.transaction() as connection:
                    await connection.execute(text("INSERT INTO notes VALUES ('during')"))
    async with database.transaction() as connection:
        await connection.execute(text("INSERT INTO notes VALUES ('after')"))
        assert (await connection.execute(text("SELECT note FROM notes"))).scalars().all() == ["before", "after"]
    await database.close()


async def test_a_server_that_dies_within_a_transaction_is_out_of_reach(tmp_path: Path) -> None:
    with breakable_database("postgresql", tmp_path) as breakable:
        database = breakable.open()
        async with database.transaction() as connection:
            await connection.execute(text("CREATE TABLE notes (note VARCHAR(9))"))

        async def write() -> None:
            async with database.transaction() as connection:
                await connection.execute(text("INSERT INTO notes VALUES ('lost')"))
                async with breakable.outage():
                    await connection.execute(text("INSERT INTO notes VALUES ('lost too')"))

        with pytest.raises(DatabaseOutOfReach, match="is out of reach"):
            await write()
        async with database.reading() as connection:
            assert (await connection.execute(text("SELECT note FROM notes"))).all() == []
        await database.close()


async def test_a_pool_that_leads_to_a_read_only_server_is_given_up_as_soon_as_one_write_is_refused(
    replicas: tuple[Database, Database],
) -> None:
    """After a failover it did not: whoever held such connections could write nothing until it was started anew."""
    database, _ = replicas
    query = select(func.pg_backend_pid(), func.pg_sleep(0.2))
    change = update(Account.table).values(held=Account.table.c.held + Decimal(1))

    async def connected() -> int:
        async with database.glancing() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def write() -> None:
        async with database.transaction() as connection:
            await connection.execute(change)

    async with failed_over(database):
        with pytest.raises(DatabaseOutOfReach):
            await connected()
        stale = {*await asyncio.gather(*(connected() for _ in range(5)))}
        with pytest.raises(DatabaseOutOfReach, match="it takes no writes: it is read-only") as caught:
            await write()
        assert "see whether it is a standby, its disk is full, or its file may not be written" in str(caught.value)
        await asyncio.gather(*(connected() for _ in range(5)))
        with pytest.raises(DatabaseOutOfReach):
            await write()
    assert len(stale) == 5
    fresh = {*await asyncio.gather(*(connected() for _ in range(5)))}
    assert not stale & fresh
    await asyncio.gather(*(write() for _ in range(5)))


# --- busy --------------------------------------------------------------------------------------------------------


async def test_a_table_that_somebody_locks_is_said_to_be_locked(replicas: tuple[Database, Database]) -> None:
    database, somebody = replicas
    async with locked(somebody, "accounts"):
        with pytest.raises(DatabaseBusy, match="somebody locks what we need of the database") as caught:
            async with database.transaction() as connection:
                await connection.execute(update(Account.table).values(held=Decimal(1)))
        assert "lock timeout" in str(caught.value)
        assert "see who it is with `SELECT pid, pg_blocking_pids(pid)" in str(caught.value)
        async with database.reading() as connection:  # and the connection is still good
            assert len((await connection.execute(select(Account.table))).all()) == 1


async def test_one_of_two_that_wait_for_each_other_hears_that_the_database_is_busy(
    replicas: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(database_module.SERVER_SETTINGS, "lock_timeout", "20s")
    async with replicas[0].transaction() as connection:
        await connection.execute(insert(Account.table).values(ACCOUNT | {"customer_id": "bob"}))
    await asyncio.gather(*(database.close() for database in replicas))  # for others that wait longer
    both_have_one = asyncio.Barrier(2)

    async def write(database: Database, *customers: str) -> None:
        async with database.transaction() as connection:
            for number, customer in enumerate(customers):
                if number:
                    await both_have_one.wait()
                its = Account.table.c.customer_id == customer
                await connection.execute(update(Account.table).where(its).values(held=Decimal(1)))

    writing = write(replicas[0], "ada", "bob"), write(replicas[1], "bob", "ada")
    ended = await asyncio.gather(*writing, return_exceptions=True)
    [refused] = [one for one in ended if one is not None]
    assert isinstance(refused, DatabaseBusy)
    assert "deadlock detected" in str(refused)


async def test_who_writes_what_has_changed_since_it_looked_hears_that_the_database_is_busy(
    replicas: tuple[Database, Database],
) -> None:
    database, somebody = replicas
    change = update(Account.table).values(held=Account.table.c.held + Decimal(1))

    async def write_late() -> None:
        async with database.transaction() as connection:
            await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            await connection.execute(select(Account.table))
            async with somebody.transaction() as other:
                await other.execute(change)
            await connection.execute(change)

    with pytest.raises(DatabaseBusy, match="could not serialize access due to concurrent update"):
        await write_late()


@pytest.mark.parametrize("missing", ["table", "column"])
async def test_tables_of_another_release_are_said_to_be_missing(open_database: OpenDatabase, missing: str) -> None:
    database = await open_database("payment")
    change = "DROP TABLE accounts" if missing == "table" else "ALTER TABLE accounts DROP COLUMN held"
    async with database.transaction() as connection:
        await connection.execute(text(change))
    with pytest.raises(SchemaMissing, match="does not hold the tables of this release: run `saga db upgrade`"):
        await rows_of(database, Account.table)
    with pytest.raises(SchemaMissing):
        async with database.transaction() as connection:
            await connection.execute(update(Account.table).values(held=Decimal(0)))


async def test_a_task_that_is_cancelled_wherever_it_is_leaves_no_row_and_no_lock(open_database: OpenDatabase) -> None:
    """One time after the other a little later, from the first statement to the last."""
    database, another = await open_database("payment"), await open_database("payment")
    rows = [ACCOUNT | {"customer_id": f"c-{number}"} for number in range(2000)]

    async def write(begun: asyncio.Event) -> None:
        async with database.transaction() as connection:
            begun.set()
            await connection.execute(insert(Account.table), rows[:1000])
            await connection.execute(insert(Account.table), rows[1000:])

    for number in range(60):
        begun = asyncio.Event()
        writing = asyncio.create_task(write(begun))
        await begun.wait()
        await asyncio.sleep(number / 10_000)
        writing.cancel()
        [cancelled] = await asyncio.gather(writing, return_exceptions=True)
        async with asyncio.timeout(2), another.transaction() as connection:
            await connection.execute(insert(Account.table).values(ACCOUNT | {"customer_id": f"ada-{number}"}))
            await connection.execute(delete(Account.table).where(Account.table.c.customer_id.startswith("c-")))
        assert cancelled is None or isinstance(cancelled, asyncio.CancelledError)
    assert await count(another, Account.table) == 60


# --- many writers ------------------------------------------------------------------------------------------------


async def test_writers_of_one_process_queue(open_database: OpenDatabase) -> None:
    database = await open_database("inventory")
    tables: MessagingTables = messaging("inventory")

    async def write(number: int) -> None:
        row = {"message_id": f"m-{number}", "subject": "s", "body": "{}", "due_at": DAWN}
        async with database.transaction() as connection:
            await connection.execute(select(func.count()).select_from(tables.outbox))
            await connection.execute(insert(tables.outbox).values(row))

    await asyncio.gather(*(write(number) for number in range(100)))
    assert await count(database, tables.outbox) == 100


def test_writers_of_two_processes_on_one_sqlite_file_all_succeed(tmp_path: Path) -> None:
    asyncio.run(stock_up(SqliteDatabases(tmp_path)))
    file = tmp_path / "inventory.db"
    command = [sys.executable, "-c", COUNTING_PROCESS, f"sqlite:///{file}", "100"]
    pipe = subprocess.PIPE
    writers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=REPOSITORY, text=True) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0]
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT seeded FROM stock").fetchall() == [(200,)]


async def stock_up(urls: DatabaseUrls) -> None:
    async with opened(urls) as open_one:
        database = await open_one("inventory")
        async with database.transaction() as connection:
            await connection.execute(insert(Stock.table).values(sku="tea", seeded=0, available=0, reserved=0, sold=0))
