"""Migrations, on both databases: up, down and up again, held against the models, and by many at once."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, get_args

import pytest
from sqlalchemy import JSON, Connection, String, column, inspect, select, table, text, type_coerce, update

from migrations import history, runner
from migrations.errors import NoSuchRevision, WrongDatabase
from migrations.history import revisions
from migrations.registry import MODELS, ROLES
from orchestrator.model import SAGA
from orchestrator.tables import sagas
from outbox.database import Database
from outbox.errors import DatabaseOutOfReach
from tests.support.servers import DatabaseUrls, Postgres, PostgresDatabases, Role
from tests.support.world import World, an_order, answer

REPOSITORY = Path(__file__).parents[2]
OpenDatabase = Callable[[Role], Database]

PLACE_ORDER_ANSWERS: dict[str, dict[str, Any]] = {
    "open-order": {},
    "reserve-stock": {},
    "authorise-payment": {"authorisation_code": "A1"},
    "capture-payment": {},
    "sell-stock": {},
    "confirm-order": {},
}

# Waits for a go, so that the processes meet; then says which revisions it applied.
UPGRADE_PROCESS = """
import asyncio, sys
from migrations.runner import upgrade
from outbox.database import Database
async def main():
    database = Database(sys.argv[1])
    print(",".join(await upgrade(database, sys.argv[2])))
    await database.close()
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main())
"""


@pytest.fixture
async def open_database(database_urls: DatabaseUrls) -> AsyncIterator[OpenDatabase]:
    """Another door to the role's database at every call."""
    async with AsyncExitStack() as doors:

        def open_one(role: Role) -> Database:
            database = Database(database_urls(role))
            doors.push_async_callback(database.close)
            return database

        yield open_one


@pytest.fixture
async def postgresql(postgres: Postgres) -> AsyncIterator[Database]:
    """An orchestrator's database, for what SQLite does not have."""
    databases = PostgresDatabases(postgres)
    database = Database(databases("orchestrator"))
    yield database
    await database.close()
    databases.drop()


async def tables_of(database: Database) -> set[str]:
    def names(connection: Connection) -> set[str]:
        return set(inspect(connection).get_table_names())

    async with database.reading() as connection:
        return await connection.run_sync(names)


async def execute(database: Database, *statements: str, **values: str) -> None:
    async with database.transaction() as connection:
        for statement in statements:
            await connection.execute(text(statement), values)


def test_every_role_has_a_history() -> None:
    assert get_args(Role) == ROLES == tuple(MODELS)
    assert [history.head(role) for role in ROLES] == [revisions(role)[-1] for role in ROLES]
    assert all(revision.startswith(f"{role}_") for role in ROLES for revision in revisions(role))


def test_an_unknown_role_is_named() -> None:
    with pytest.raises(ValueError, match="no role 'shipping': choose one of orchestrator, order"):
        history.head("shipping")


@pytest.mark.parametrize("role", ROLES)
async def test_upgraded_is_what_the_models_say(open_database: OpenDatabase, role: Role) -> None:
    database = open_database(role)
    assert await runner.current(database, role) is None
    assert await runner.upgrade(database, role) == revisions(role)
    assert await runner.current(database, role) == history.head(role)
    assert await runner.check(database, role) == []
    assert await tables_of(database) == {*MODELS[role].tables, "alembic_version"}
    assert await runner.upgrade(database, role) == []


@pytest.mark.parametrize("role", ROLES)
async def test_down_leaves_nothing_and_up_works_again(open_database: OpenDatabase, role: Role) -> None:
    database = open_database(role)
    await runner.upgrade(database, role)
    assert await runner.downgrade(database, role, "base") == revisions(role)[::-1]
    assert await runner.current(database, role) is None
    assert await tables_of(database) == {"alembic_version"}
    assert await runner.downgrade(database, role, "base") == []
    assert await runner.upgrade(database, role) == revisions(role)
    assert await runner.check(database, role) == []


async def test_sagas_are_readable_before_and_after_their_state_became_text(
    database_urls: DatabaseUrls, open_database: OpenDatabase
) -> None:
    """Down to JSON and up again, with sagas of several kinds in the table: nobody has changed."""
    async with World(database_urls, roles=["orchestrator"]) as world:
        desk = world.desk()
        ended, refused, *under_way = [(await desk.start(an_order())).saga_id for _ in range(5)]
        await desk.receive(*(answer(f"{ended}/{step}/do", **data) for step, data in PLACE_ORDER_ANSWERS.items()))
        await desk.receive(answer(f"{refused}/open-order/do"), answer(f"{refused}/reserve-stock/do", "refused"))
        before = await world.sagas()
        assert {saga.status for saga in before} == {"completed", "compensating", "running"}
        texts = await states(world)

        database = open_database("orchestrator")
        later = revisions("orchestrator")[3:]
        for _ in range(2):
            assert await runner.downgrade(database, "orchestrator", "orchestrator_0003") == later[::-1]
            as_json = sagas.c.state.cast(JSON) if database.dialect == "postgresql" else type_coerce(sagas.c.state, JSON)
            read = await world.rows("orchestrator", select(as_json).order_by(sagas.c.id))
            assert [SAGA.validate_python(state) for (state,) in read] == before
            assert await runner.upgrade(database, "orchestrator") == later
        assert await states(world) == texts
        assert await runner.check(database, "orchestrator") == []
        assert await world.sagas() == before
        assert await world.findings() == []

        await desk.receive(*(answer(f"{saga_id}/open-order/do") for saga_id in under_way))
        assert {(await world.saga(saga_id)).steps["reserve-stock"].attempt for saga_id in under_way} == {1}


async def test_a_state_that_an_older_release_has_written_is_read_by_this_one(
    database_urls: DatabaseUrls, open_database: OpenDatabase
) -> None:
    """It wrote every field, those too that have their default, and as a column of JSON."""
    async with World(database_urls, roles=["orchestrator"]) as world:
        saga_id = (await world.desk().start(an_order())).saga_id
        before = await world.saga(saga_id)
        database = open_database("orchestrator")
        await runner.downgrade(database, "orchestrator", "orchestrator_0003")
        older = table("sagas", column("id", String), column("state", JSON))
        await world.execute("orchestrator", update(older).values(state=SAGA.dump_python(before, mode="json")))
        await runner.upgrade(database, "orchestrator")

        assert await world.saga(saga_id) == before
        assert await world.findings() == []
        await world.desk().receive(answer(f"{saga_id}/open-order/do"))
        assert (await world.saga(saga_id)).steps["reserve-stock"].attempt == 1


async def states(world: World) -> list[str]:
    """The states as they stand in the table."""
    return [row.state for row in await world.rows("orchestrator", select(sagas.c.state).order_by(sagas.c.id))]


LETTER = (
    "INSERT INTO dead_letters (at, subject, reason, body, deliveries, digest) "
    "VALUES (CURRENT_TIMESTAMP, '', '', '', 1, :digest)"
)
NOTED = (
    'INSERT INTO dead_letter_log (at, action, letter_id, subject, reason, "by", why) '
    "SELECT at, 'dropped', id, '', '', '', '' FROM dead_letters"
)


@pytest.mark.parametrize("role", ROLES)
async def test_the_ids_of_letters_that_are_gone_are_not_given_again_after_an_upgrade(
    open_database: OpenDatabase, role: Role
) -> None:
    database = open_database(role)
    before, after = revisions(role)[-3:-1]
    await runner.upgrade(database, role, before)
    told = await runner.check(database, role)
    assert ("the ids of dead_letters may be given again" in told) == (database.dialect == "sqlite")
    async with database.transaction() as connection:
        for number in range(3):
            await connection.execute(text(LETTER), {"digest": f"{number}"})
        await connection.execute(text(NOTED))
        await connection.execute(text("DELETE FROM dead_letters WHERE id > 1"))
    assert await runner.upgrade(database, role, after) == [after]
    async with database.transaction() as connection:
        await connection.execute(text(LETTER), {"digest": "new"})
        found = list((await connection.execute(text("SELECT id FROM dead_letters ORDER BY id"))).scalars())
        noted = list((await connection.execute(text("SELECT id FROM dead_letter_log ORDER BY id"))).scalars())
    assert (found, noted) == ([1, 4], [1, 2, 3])
    assert await runner.downgrade(database, role, before) == [after]
    assert after in await runner.upgrade(database, role)
    assert await runner.check(database, role) == []


async def test_a_database_that_was_never_upgraded(open_database: OpenDatabase) -> None:
    database = open_database("order")
    assert await runner.downgrade(database, "order", "base") == []
    (sentence,) = await runner.check(database, "order")
    assert sentence.endswith("has no tables yet: run `saga db upgrade`")


# What is done to the database, and what check says of it.
DRIFT: list[tuple[Role, list[str], str]] = [
    ("order", ["DROP TABLE inbox"], "the table inbox is missing"),
    ("order", ["CREATE TABLE notes (note TEXT)"], "the table notes is unknown to this release"),
    ("order", ["ALTER TABLE orders DROP COLUMN total"], "the column orders.total is missing"),
    ("order", ["ALTER TABLE orders ADD COLUMN note TEXT"], "the column orders.note is unknown to this release"),
    (
        "payment",
        ["ALTER TABLE holds DROP COLUMN amount", "ALTER TABLE holds ADD COLUMN amount TEXT NOT NULL DEFAULT ''"],
        "the column holds.amount has the type TEXT() and should have Money()",
    ),
    (
        "inventory",
        ["ALTER TABLE stock DROP COLUMN sold", "ALTER TABLE stock ADD COLUMN sold INTEGER"],
        "the column stock.sold may be null and should be the other way",
    ),
    (
        "orchestrator",
        ["DROP INDEX ix_sagas_started_at"],
        "the index ix_sagas_started_at of sagas (started_at) is missing",
    ),
    (
        "payment",
        ["CREATE INDEX ix_holds_status ON holds (status)"],
        "the index ix_holds_status of holds (status) is unknown to this release",
    ),
    (
        "inventory",
        ["DROP TABLE inbox", "CREATE TABLE inbox (message_id VARCHAR(400) NOT NULL, answer TEXT NOT NULL)"],
        "the primary key of inbox is () and should be (message_id)",
    ),
    (
        "orchestrator",
        ["DROP INDEX ix_sagas_started_at", "CREATE INDEX ix_sagas_started_at ON sagas (started_at) WHERE revision > 0"],
        "the index ix_sagas_started_at of sagas has a condition",
    ),
]


@pytest.mark.parametrize(("role", "statements", "sentence"), DRIFT, ids=[sentence for _, _, sentence in DRIFT])
async def test_drift_is_told(open_database: OpenDatabase, role: Role, statements: list[str], sentence: str) -> None:
    database = open_database(role)
    await runner.upgrade(database, role)
    await execute(database, *statements)
    assert sentence in await runner.check(database, role)


async def test_drift_of_what_only_postgresql_has(postgresql: Database) -> None:
    await runner.upgrade(postgresql, "orchestrator")
    await execute(
        postgresql,
        "ALTER TABLE saga_log DROP CONSTRAINT uq_saga_log_saga_id_revision",
        "DROP INDEX ix_sagas_due_at",
        "CREATE INDEX ix_sagas_due_at ON sagas (due_at)",
    )
    assert sorted(await runner.check(postgresql, "orchestrator")) == [
        "the constraint uq_saga_log_saga_id_revision of saga_log (saga_id, revision) is missing",
        "the index ix_sagas_due_at of sagas lacks its condition",
    ]


async def test_the_hot_tables_of_postgresql_are_tuned(postgresql: Database) -> None:
    await runner.upgrade(postgresql, "orchestrator")
    async with postgresql.reading() as connection:
        rows = await connection.execute(text("SELECT relname, reloptions FROM pg_class WHERE reloptions IS NOT NULL"))
        options = {name: set(settings) for name, settings in rows if name in MODELS["orchestrator"].tables}
        index = await connection.scalar(text("SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_sagas_due_at'"))
    assert options.keys() == {"outbox", "sagas"}
    assert {"autovacuum_vacuum_scale_factor=0", "autovacuum_vacuum_threshold=1000"} <= options["outbox"]
    assert "autovacuum_vacuum_scale_factor=0.02" in options["sagas"]
    assert str(index).endswith("WHERE (due_at IS NOT NULL)")


async def test_tasks_that_upgrade_at_once(open_database: OpenDatabase) -> None:
    """Every role, three times each, all in one event loop: each database gets its own tables, once."""
    jobs = [(role, open_database(role)) for role in ROLES for _ in range(3)]
    applied = await asyncio.gather(*(runner.upgrade(database, role) for role, database in jobs))
    for number, role in enumerate(ROLES):
        assert sorted(applied[3 * number : 3 * number + 3]) == [[], [], revisions(role)]
        assert await runner.check(open_database(role), role) == []


async def test_processes_that_upgrade_at_once(database_urls: DatabaseUrls, open_database: OpenDatabase) -> None:
    processes = [await start_upgrade_process(database_urls("payment")) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    said = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert sorted(out.decode().strip() for out, _ in said) == ["", "", "", ",".join(revisions("payment"))], said
    assert await runner.check(open_database("payment"), "payment") == []


async def start_upgrade_process(url: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", UPGRADE_PROCESS, url, "payment"),
        cwd=REPOSITORY,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def assert_refused(database: Database, role: Role, match: str) -> None:
    """Whatever is asked, the answer is WrongDatabase, and the tables stay as they were."""
    before = await tables_of(database)
    for refused in (
        runner.upgrade(database, role),
        runner.downgrade(database, role, "base"),
        runner.current(database, role),
        runner.check(database, role),
    ):
        with pytest.raises(WrongDatabase, match=match):
            await refused
    assert await tables_of(database) == before


async def test_a_database_of_another_role(open_database: OpenDatabase) -> None:
    database = open_database("order")
    await runner.upgrade(database, "order")
    await assert_refused(database, "inventory", "no revision of inventory .* belongs to the role order")


@pytest.mark.parametrize("marks", [["order_9999"], ["order_0001", "order_9999"]])
async def test_a_database_of_a_newer_release(open_database: OpenDatabase, marks: list[str]) -> None:
    database = open_database("order")
    await runner.upgrade(database, "order")
    await execute(database, "DELETE FROM alembic_version")
    for mark in marks:
        await execute(database, "INSERT INTO alembic_version VALUES (:mark)", mark=mark)
    await assert_refused(database, "order", "order_9999, which is no revision of order in this release")


async def test_tables_that_nobody_vouches_for_are_left_alone(open_database: OpenDatabase) -> None:
    database = open_database("order")
    await execute(database, "CREATE TABLE orders (number INTEGER)")
    with pytest.raises(WrongDatabase, match=r"holds the tables orders, but not which release made them"):
        await runner.upgrade(database, "order")
    assert await tables_of(database) == {"orders"}


async def test_a_revision_that_does_not_exist(open_database: OpenDatabase) -> None:
    database = open_database("order")
    with pytest.raises(NoSuchRevision, match=r"'order_7777'\. The revisions of order are order_0001"):
        await runner.upgrade(database, "order", "order_7777")
    assert await tables_of(database) == set(), "half a migration was left behind"
    await runner.upgrade(database, "order")
    with pytest.raises(NoSuchRevision, match="order_7777"):
        await runner.downgrade(database, "order", "order_7777")
    assert await runner.check(database, "order") == []


async def test_a_migration_that_fails_leaves_the_database_as_it_was(
    open_database: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database("order")

    def upgrade_and_fail(**given: object) -> None:
        script.upgrade(**given)
        raise RuntimeError("planted")

    real = history.history("order").get_revision("order_0001")
    script = real.module
    monkeypatch.setattr(real, "module", type("Planted", (), {"upgrade": staticmethod(upgrade_and_fail)}))
    with pytest.raises(RuntimeError, match="planted"):
        await runner.upgrade(database, "order")
    assert await tables_of(database) == set()


async def test_alembic_is_quiet(open_database: OpenDatabase, caplog: pytest.LogCaptureFixture) -> None:
    database = open_database("order")
    with caplog.at_level(logging.INFO):
        await runner.upgrade(database, "order")
        await runner.check(database, "order")
        await runner.downgrade(database, "order", "base")
    assert [record for record in caplog.records if record.name.startswith("alembic")] == []


async def test_the_folder_of_a_new_sqlite_file_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    database = Database(f"sqlite:///{folder}/order.db")
    assert await runner.current(database, "order") is None
    assert await runner.downgrade(database, "order", "base") == []
    assert len(await runner.check(database, "order")) == 1
    assert not folder.exists(), "looking made it"
    assert await runner.upgrade(database, "order") == revisions("order")
    assert await runner.check(database, "order") == []
    await database.close()


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DatabaseOutOfReach, match=r"the folder of the database .* cannot be made"):
        await runner.upgrade(Database(f"sqlite:///{tmp_path}/taken/order.db"), "order")


async def test_a_server_that_does_not_answer() -> None:
    database = Database("postgresql://nobody:secret@127.0.0.1:1/order")
    with pytest.raises(DatabaseOutOfReach) as raised:
        await runner.upgrade(database, "order")
    assert "secret" not in str(raised.value)
