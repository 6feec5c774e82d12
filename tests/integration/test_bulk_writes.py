"""Writes of many rows, on both databases: in one statement, and with the effect of as many statements one by one."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Boolean,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    and_,
    delete,
    event,
    exists,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.bulk import BEFORE, insert_rows, update_rows
from outbox.database import Database, Document, Money, UtcDateTime
from tests.support.messaging import count, rows_of
from tests.support.servers import DatabaseUrls, Postgres, PostgresDatabases, SqliteDatabases
from tests.support.waiting import eventually

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
NOON: Final = datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)
GUARD: Final = f"revision{BEFORE}"
METADATA: Final = MetaData()


def like_things(name: str) -> Table:
    """A table with a column of every type that a service has."""
    return Table(
        name,
        METADATA,
        Column("shelf", String(10), primary_key=True),
        Column("place", Integer, primary_key=True),
        Column("name", Text, nullable=True),
        Column("code", String(10), nullable=True),
        Column("document", Document, nullable=True),
        Column("price", Money, nullable=True),
        Column("not_before", UtcDateTime, nullable=True),
        Column("good", Boolean, nullable=True),
        Column("revision", Integer, nullable=False, server_default="1"),
    )


THINGS: Final = like_things("things")
TWINS: Final = like_things("twins")
"""The same, to be written one by one."""


@pytest.fixture
async def database(database_urls: DatabaseUrls) -> AsyncIterator[Database]:
    opened = await with_tables(database_urls)
    yield opened
    await opened.close()


@pytest.fixture
async def both(tmp_path: Path, postgres: Postgres) -> AsyncIterator[Sequence[Database]]:
    """One of each kind."""
    servers = PostgresDatabases(postgres)
    opened = [await with_tables(SqliteDatabases(tmp_path)), await with_tables(servers)]
    yield opened
    for one in opened:
        await one.close()
    servers.drop()


async def with_tables(urls: DatabaseUrls) -> Database:
    database = Database(urls("order"))
    async with database.transaction() as connection:
        await connection.run_sync(METADATA.create_all)
    return database


def thing(place: int, **changes: Any) -> dict[str, Any]:
    values = {
        "shelf": "s",
        "place": place,
        "name": f"thing {place}",
        "code": f"c-{place}",
        "document": {"place": place},
        "price": Decimal(place),
        "not_before": NOON,
        "good": True,
        "revision": 1,
    }
    return values | changes


async def inserted(database: Database, *rows: Mapping[str, Any], known: bool = False) -> None:
    async with database.transaction() as connection:
        await insert_rows(connection, THINGS, rows, known=known)


async def updated(database: Database, *rows: Mapping[str, Any], unchanged: str | None = None) -> int:
    async with database.transaction() as connection:
        return await update_rows(connection, THINGS, rows, unchanged=unchanged)


async def things(database: Database, table: Table = THINGS) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in await rows_of(database, table)]


@contextmanager
def statements(database: Database) -> Iterator[list[tuple[str, bool]]]:
    """What the driver is given: each statement, and whether it is to be executed row by row."""
    given: list[tuple[str, bool]] = []

    def note(_connection: Any, _cursor: Any, statement: str, _values: Any, _context: Any, row_by_row: bool) -> None:
        if "things" in statement:
            given.append((statement, row_by_row))

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield given
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)


# --- how many ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 1000, 20_000])
async def test_any_number_of_rows_is_inserted_and_updated(database: Database, number: int) -> None:
    rows = [thing(place) for place in range(number)]
    await inserted(database, *rows)
    assert await things(database) == rows

    changed = [row | {"name": f"another {row['place']}", "revision": 2} for row in rows]
    assert await updated(database, *reversed(changed)) == number
    assert await things(database) == changed


async def test_no_rows_are_no_statement(database: Database) -> None:
    nowhere = Table("nowhere", MetaData(), Column("id", Integer, primary_key=True))
    async with database.transaction() as connection:
        await insert_rows(connection, nowhere, [])
        await insert_rows(connection, nowhere, [], known=True)
        assert await update_rows(connection, nowhere, []) == 0


async def test_on_postgresql_it_is_one_statement_and_the_same_for_every_number_of_rows(
    both: Sequence[Database],
) -> None:
    _, postgresql = both
    with statements(postgresql) as given:
        for first, last in ((0, 1), (1, 2), (2, 300)):
            rows = [thing(place) for place in range(first, last)]
            await inserted(postgresql, *rows)
            await inserted(postgresql, *rows, known=True)
            assert await updated(postgresql, *rows) == len(rows)
    assert len(given) == 9
    assert len(set(given)) == 3
    assert not any(row_by_row for _, row_by_row in given)


# --- which values ------------------------------------------------------------------------------------------------

NAMES: Final = (
    "",
    "plain",
    "NULL",
    "{curly,brackets}",
    "back\\slash",
    'it\'s "quoted"',
    "$1 :name %s ?",
    "a\nb\tc",
    "né 茶 🍵",
    "x" * 100_000,
    None,
)
DOCUMENTS: Final[tuple[Any, ...]] = (
    {},
    {"b": 1, "a": [1, 2, {"c": None}]},
    {'"': "'", "é": "🍵 {1,2}"},
    [],
    [1, 2],
    [[1], [2, 3], []],
    ["{}", None],
    "text",
    "",
    True,
    None,
)
PRICES: Final = (Decimal("0.00"), Decimal("12.3456"), Decimal("-0.01"), Decimal("900000000000.00"), None)
MOMENTS: Final = (NOON, NOON.astimezone(timezone(timedelta(hours=9))), EPOCH, None)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("name", NAMES),
        ("document", DOCUMENTS),
        ("price", PRICES),
        ("not_before", MOMENTS),
        ("good", (True, False, None)),
    ],
)
async def test_values_of_every_kind_are_what_they_were(database: Database, column: str, values: Sequence[Any]) -> None:
    rows = [thing(place, **{column: value}) for place, value in enumerate(values)]
    await inserted(database, *rows)
    assert await things(database) == rows

    turned = [thing(place, **{column: value}) for place, value in enumerate(reversed(values))]
    assert await updated(database, *turned) == len(values)
    assert await things(database) == turned


@pytest.mark.parametrize("column", ["name", "price", "not_before", "good"])
async def test_nothing_is_null_to_the_database_too(database: Database, column: str) -> None:
    await inserted(database, thing(1, **{column: None}), thing(2))
    await updated(database, thing(2, **{column: None}))
    async with database.reading() as connection:
        null = select(func.count()).select_from(THINGS).where(THINGS.c[column].is_(None))
        assert (await connection.execute(null)).scalar_one() == 2


async def test_the_order_of_the_keys_of_a_document_is_kept(database: Database) -> None:
    await inserted(database, thing(1, document={"z": 1, "a": 2, "m": 3}))
    [row] = await things(database)
    assert list(row["document"]) == ["z", "a", "m"]


async def test_on_postgresql_a_text_that_is_too_long_is_refused_and_never_cut(both: Sequence[Database]) -> None:
    _, postgresql = both
    await inserted(postgresql, thing(1))
    for refused in (
        inserted(postgresql, thing(2, code="elevenchars")),
        inserted(postgresql, thing(2, shelf="elevenchars"), known=True),
        updated(postgresql, thing(1, code="elevenchars")),
    ):
        with pytest.raises(DBAPIError, match="value too long"):
            await refused
    assert await updated(postgresql, thing(1, shelf="s" + " " * 10)) == 0, "a key that is too long is nobody's"
    assert await things(postgresql) == [thing(1)]


@pytest.mark.parametrize("price", [Decimal("0.00001"), Decimal("1E-9")])
async def test_what_would_have_to_be_rounded_is_refused_and_nothing_is_written(
    database: Database, price: Decimal
) -> None:
    with pytest.raises(Exception, match="more than 4 decimal places"):
        await inserted(database, thing(1), thing(2, price=price))
    assert await things(database) == []


# --- which rows and columns --------------------------------------------------------------------------------------


async def test_only_the_rows_and_columns_that_are_given_are_changed(database: Database) -> None:
    rows = [thing(1), thing(2), thing(1, shelf="t"), thing(2, shelf="t")]
    await inserted(database, *rows)
    assert (
        await updated(database, {"shelf": "s", "place": 2, "name": "new"}, {"shelf": "t", "place": 1, "name": None})
        == 2
    )
    assert await things(database) == [rows[0], rows[1] | {"name": "new"}, rows[2] | {"name": None}, rows[3]]


async def test_a_column_that_is_not_given_has_the_default_of_the_database(database: Database) -> None:
    await inserted(database, {"shelf": "s", "place": 1}, {"shelf": "s", "place": 2})
    nothing = dict.fromkeys(("name", "code", "document", "price", "not_before", "good"))
    assert await things(database) == [{"shelf": "s", "place": place, **nothing, "revision": 1} for place in (1, 2)]


async def test_a_row_that_is_not_there_is_not_counted_and_not_made(database: Database) -> None:
    await inserted(database, thing(1))
    assert await updated(database, thing(1, name="new"), thing(2)) == 1
    assert await updated(database, thing(2)) == 0
    assert await things(database) == [thing(1, name="new")]


async def test_a_key_that_is_taken_fails_all_of_them(database: Database) -> None:
    await inserted(database, thing(2))
    with pytest.raises(IntegrityError):
        await inserted(database, thing(1), thing(2, name="new"), thing(3))
    assert await things(database) == [thing(2)]


async def test_what_is_known_is_passed_over_and_the_others_are_inserted(database: Database) -> None:
    await inserted(database, thing(2))
    await inserted(database, thing(1), thing(2, name="new"), thing(3), thing(3, name="twice"), known=True)
    assert await things(database) == [thing(1), thing(2), thing(3)]


# --- the guard ---------------------------------------------------------------------------------------------------


def seen(place: int, revision: int, **changes: Any) -> dict[str, Any]:
    """What is written by somebody who has read the row at this revision."""
    return thing(place, revision=revision + 1, **changes) | {GUARD: revision}


async def test_a_row_that_was_changed_meanwhile_is_left_alone_and_the_count_tells(database: Database) -> None:
    await inserted(database, thing(1), thing(2, revision=5), thing(3))
    changes = [seen(1, 1, name="new"), seen(2, 1, name="new"), seen(3, 1, name="new"), seen(4, 1)]
    assert await updated(database, *changes, unchanged="revision") == 2
    assert await things(database) == [
        thing(1, name="new", revision=2),
        thing(2, revision=5),
        thing(3, name="new", revision=2),
    ]
    assert await updated(database, *changes, unchanged="revision") == 0


async def test_of_two_that_write_at_once_the_second_finds_the_row_changed(
    database: Database, database_urls: DatabaseUrls
) -> None:
    other = Database(database_urls("order"))
    await inserted(database, thing(1), thing(2), thing(3))
    try:
        async with database.transaction() as connection:
            assert await update_rows(connection, THINGS, [seen(2, 1, name="first")], unchanged="revision") == 1
            second = asyncio.create_task(
                updated(other, *(seen(place, 1, name="second") for place in (1, 2, 3)), unchanged="revision")
            )
            await eventually(lambda: somebody_waits(database), "the second waits for the first")
            assert not second.done()
        assert await second == 2
    finally:
        await other.close()
    assert [row["name"] for row in await things(database)] == ["second", "first", "second"]


async def somebody_waits(database: Database) -> bool:
    """Whether somebody waits for a lock of PostgreSQL. (SQLite lets nobody begin before we have ended.)"""
    if database.dialect == "sqlite":
        return True
    query = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    async with database.reading() as connection:
        return bool((await connection.execute(text(query))).scalar_one())


# --- as one by one -----------------------------------------------------------------------------------------------

OPTIONAL: Final = ("name", "code", "document", "price", "not_before", "good")
KEYS: Final = st.tuples(st.sampled_from(["s", "t"]), st.integers(0, 3))
TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=10)
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
VALUES: Final[dict[str, st.SearchStrategy[Any]]] = {
    "name": st.none() | TEXTS,
    "code": st.none() | TEXTS,
    "document": JSON.filter(lambda value: isinstance(value, list | dict)),
    "price": st.none() | st.decimals(-(10**9), 10**9, places=4, allow_nan=False),
    "not_before": st.none() | st.integers(0, 4 * 10**15).map(lambda since: EPOCH + timedelta(microseconds=since)),
    "good": st.none() | st.booleans(),
}
REVISIONS: Final = st.integers(1, 3)


@st.composite
def writes(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]]]:
    """What is written, and how. The rows of one write have the same columns, and each key comes once."""
    how = draw(st.sampled_from(["insert", "known", "update", "guarded"]))
    columns = draw(st.sets(st.sampled_from(OPTIONAL), min_size=1))
    needed = dict.fromkeys(("revision", GUARD), REVISIONS) if how == "guarded" else {}
    values = {name: VALUES[name] for name in OPTIONAL if name in columns} | needed
    keys = draw(st.lists(KEYS, max_size=6, unique=True))
    return how, [{"shelf": shelf, "place": place, **draw(st.fixed_dictionaries(values))} for shelf, place in keys]


async def write_together(connection: AsyncConnection, how: str, rows: list[dict[str, Any]]) -> int | None:
    if how in ("insert", "known"):
        await insert_rows(connection, THINGS, rows, known=how == "known")
        return None
    return await update_rows(connection, THINGS, rows, unchanged="revision" if how == "guarded" else None)


async def write_one_by_one(connection: AsyncConnection, how: str, rows: list[dict[str, Any]]) -> int | None:
    found = 0
    for row in rows:
        values = {name: value for name, value in row.items() if name != GUARD}
        its_key = and_(TWINS.c.shelf == row["shelf"], TWINS.c.place == row["place"])
        if how in ("insert", "known"):
            is_there = (await connection.execute(select(exists().where(its_key)))).scalar_one()
            if how == "insert" or not is_there:
                await connection.execute(insert(TWINS).values(values))
            continue
        statement = update(TWINS).where(its_key).values(values)
        if how == "guarded":
            statement = statement.where(TWINS.c.revision == row[GUARD])
        found += (await connection.execute(statement)).rowcount
    return None if how in ("insert", "known") else found


async def outcome_of(database: Database, table: Table, how: str, rows: list[dict[str, Any]]) -> int | str | None:
    write = write_together if table is THINGS else write_one_by_one
    try:
        async with database.transaction() as connection:
            return await write(connection, how, rows)
    except IntegrityError:
        return "a key is taken"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=st.lists(writes(), min_size=1, max_size=6))
async def test_any_writes_do_what_they_would_do_one_by_one_on_both_databases(
    both: Sequence[Database], written: list[tuple[str, list[dict[str, Any]]]]
) -> None:
    for database in both:
        async with database.transaction() as connection:
            for table in (THINGS, TWINS):
                await connection.execute(delete(table))
    for how, rows in written:
        outcomes = [await outcome_of(one, table, how, rows) for one in both for table in (THINGS, TWINS)]
        assert outcomes == [outcomes[0]] * 4
    together, *others = [await things(one, table) for one in both for table in (THINGS, TWINS)]
    assert others == [together] * 3


async def test_the_rows_of_a_refused_write_are_all_gone(database: Database) -> None:
    async with database.transaction() as connection:
        await insert_rows(connection, THINGS, [thing(1)])
        with pytest.raises(IntegrityError):
            async with connection.begin_nested():
                await insert_rows(connection, THINGS, [thing(2), thing(1)])
    assert await count(database, THINGS) == 1
