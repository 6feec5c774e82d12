"""Writes that are gathered and sent together do what they would do one after the other, and say who was beaten."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, String, Table, delete, event
from sqlalchemy.exc import IntegrityError

from outbox.bulk import BEFORE, Writes
from outbox.database import Database, Document
from tests.support.messaging import rows_of
from tests.support.servers import DatabaseUrls

GUARD: Final = f"revision{BEFORE}"
METADATA: Final = MetaData()


class Beaten(Exception):
    """Somebody else was faster."""


def like_things(name: str) -> Table:
    return Table(
        name,
        METADATA,
        Column("id", String(20), primary_key=True),
        Column("revision", Integer, nullable=False),
        Column("notes", Document, nullable=False),
    )


THINGS, THINGS_LOG, OTHERS = like_things("things"), like_things("things_log"), like_things("others")
TABLES: Final = (THINGS, THINGS_LOG, OTHERS)


@pytest.fixture
async def database(database_urls: DatabaseUrls) -> AsyncIterator[Database]:
    database = Database(database_urls("order"))
    async with database.transaction() as connection:
        await connection.run_sync(METADATA.create_all)
    yield database
    await database.close()


def row(id: str, revision: int = 1, **notes: Any) -> dict[str, Any]:
    return {"id": id, "revision": revision, "notes": notes}


def seen(id: str, revision: int, **notes: Any) -> dict[str, Any]:
    """What is written by somebody who has read the row at this revision."""
    return row(id, revision + 1, **notes) | {GUARD: revision}


async def flush(database: Database, *gathered: Callable[[Writes], None]) -> None:
    """Gather these in turn, and send them in one transaction."""
    writes = Writes()
    for gather in gathered:
        gather(writes)
    async with database.transaction() as connection:
        await writes.flush(connection)


async def everything(database: Database) -> list[list[dict[str, Any]]]:
    return [[dict(one._mapping) for one in await rows_of(database, table)] for table in TABLES]


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """What the driver is given, but for the beginning and the end of transactions."""
    given: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "things" in statement or "others" in statement:
            given.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield given
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)


# --- together ----------------------------------------------------------------------------------------------------


async def test_writes_of_several_kinds_and_tables_are_all_done(database: Database) -> None:
    await flush(database, lambda w: w.insert(THINGS, [row("a"), row("b"), row("c")]))
    with statements(database) as given:
        await flush(
            database,
            lambda w: w.insert(THINGS, [row("d", by="us")]),
            lambda w: w.update(THINGS, [seen("a", 1, by="us"), seen("c", 1)], unchanged="revision", beaten=Beaten()),
            lambda w: w.insert(THINGS_LOG, [row("a-2"), row("c-2")], beaten=Beaten()),
            lambda w: w.insert(OTHERS, [row("o", 7, deep=[[1], {"x": None}])], known=True),
            lambda w: w.insert(THINGS_LOG, [row("d-1")], beaten=Beaten()),
        )
    assert await everything(database) == [
        [row("a", 2, by="us"), row("b"), row("c", 2), row("d", by="us")],
        [row("a-2"), row("c-2"), row("d-1")],
        [row("o", 7, deep=[[1], {"x": None}])],
    ]
    assert len(given) == (4 if database.dialect == "sqlite" else 1)


async def test_nothing_gathered_is_nothing_sent_and_what_was_sent_is_not_sent_again(database: Database) -> None:
    writes = Writes()
    writes.insert(THINGS, [])
    writes.update(THINGS, [], unchanged="revision", beaten=Beaten())
    with statements(database) as given:
        async with database.transaction() as connection:
            await writes.flush(connection)
            assert given == []
            writes.insert(THINGS, [row("a")])
            await writes.flush(connection)
            await writes.flush(connection)
    assert len(given) == 1
    assert (await everything(database))[0] == [row("a")]


async def test_the_statement_is_the_same_for_every_number_of_rows(database: Database) -> None:
    with statements(database) as given:
        for first, last in ((0, 1), (1, 50), (50, 300)):
            ids = [f"{number:03}" for number in range(first, last)]
            await flush(
                database,
                lambda w, ids=ids: w.insert(THINGS, [row(id) for id in ids]),  # type: ignore[misc]
                lambda w, ids=ids: w.insert(OTHERS, [row(id) for id in ids], known=True),  # type: ignore[misc]
            )
    assert len(set(given)) == (2 if database.dialect == "sqlite" else 1)
    assert [len(rows) for rows in await everything(database)] == [300, 0, 300]


# --- who was beaten ----------------------------------------------------------------------------------------------


def update_a(writes: Writes) -> None:
    writes.update(THINGS, [seen("a", 1), seen("b", 1)], unchanged="revision", beaten=Beaten("the update"))


def log_a(writes: Writes) -> None:
    writes.insert(THINGS_LOG, [row("a-2"), row("b-2")], beaten=Beaten("the log"))


def insert_other(writes: Writes) -> None:
    writes.insert(OTHERS, [row("o")])


ALL: Final = (update_a, log_a, insert_other)


@pytest.mark.parametrize("gathered", [ALL, ALL[::-1], (update_a,)])
async def test_whoever_meets_fewer_rows_than_he_has_was_beaten_and_nothing_is_written(
    database: Database, gathered: Sequence[Callable[[Writes], None]]
) -> None:
    await flush(database, lambda w: w.insert(THINGS, [row("a"), row("b", 2)]))
    before = await everything(database)
    with pytest.raises(Beaten, match="the update"):
        await flush(database, *gathered)
    assert await everything(database) == before


@pytest.mark.parametrize("gathered", [ALL, ALL[::-1], (log_a,)])
async def test_whoever_finds_a_key_taken_was_beaten_and_nothing_is_written(
    database: Database, gathered: Sequence[Callable[[Writes], None]]
) -> None:
    await flush(database, lambda w: w.insert(THINGS, [row("a"), row("b")]))
    await flush(database, lambda w: w.insert(THINGS_LOG, [row("b-2")]))
    before = await everything(database)
    with pytest.raises(Beaten, match="the log"):
        await flush(database, *gathered)
    assert await everything(database) == before


@pytest.mark.parametrize("gathered", [ALL, ALL[::-1], (insert_other,)])
async def test_a_key_that_is_taken_elsewhere_is_told_as_it_is(
    database: Database, gathered: Sequence[Callable[[Writes], None]]
) -> None:
    await flush(database, lambda w: w.insert(THINGS, [row("a"), row("b")]))
    await flush(database, lambda w: w.insert(OTHERS, [row("o")]))
    before = await everything(database)
    with pytest.raises(IntegrityError):
        await flush(database, *gathered)
    assert await everything(database) == before


async def test_a_key_that_is_taken_is_told_as_it_is_although_an_update_of_the_same_table_could_be_beaten(
    database: Database,
) -> None:
    await flush(database, lambda w: w.insert(THINGS, [row("a"), row("b"), row("things_log")]))
    before = await everything(database)
    with pytest.raises(IntegrityError):
        await flush(database, *ALL, lambda w: w.insert(THINGS, [row("things_log")]))
    assert await everything(database) == before


async def test_a_table_is_not_taken_for_one_whose_name_it_begins_with(database: Database) -> None:
    await flush(database, lambda w: w.insert(THINGS_LOG, [row("taken")]))
    with pytest.raises(IntegrityError):
        await flush(
            database,
            lambda w: w.insert(THINGS, [row("free")], beaten=Beaten()),
            lambda w: w.insert(THINGS_LOG, [row("taken")]),
        )


# --- as one after the other --------------------------------------------------------------------------------------

IDS: Final = [f"{letter}" for letter in "abcdef"]


@st.composite
def gathered_writes(draw: st.DrawFn) -> list[tuple[str, Table, list[str]]]:
    """For each table, which ids are inserted, inserted if they are new, updated, or updated with a guard.

    No id comes twice: what is gathered may not depend on the order in which it is written.
    """
    found = []
    for table in draw(st.permutations(TABLES)):
        left = draw(st.permutations(IDS))
        for how in draw(st.permutations(["insert", "known", "update", "guarded"])):
            many = draw(st.integers(0, 2))
            ids, left = left[:many], left[many:]
            found.append((how, table, ids))
    return found


def gather(writes: Writes, how: str, table: Table, ids: list[str], notes: str) -> None:
    match how:
        case "insert" | "known":
            writes.insert(table, [row(id, n=notes) for id in ids], known=how == "known", beaten=None)
        case "update":
            writes.update(table, [row(id, 5, n=notes) for id in ids])
        case _:
            writes.update(table, [seen(id, 1, n=notes) for id in ids], unchanged="revision")


async def attempt(database: Database, writes: Sequence[Writes]) -> bool:
    try:
        async with database.transaction() as connection:
            for one in writes:
                await one.flush(connection)
    except IntegrityError:
        return False
    return True


async def empty(database: Database) -> None:
    async with database.transaction() as connection:
        for table in TABLES:
            await connection.execute(delete(table))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(gathered_writes(), min_size=1, max_size=4))
async def test_any_gathered_writes_do_what_they_would_do_one_after_the_other(
    database: Database, batches: list[list[tuple[str, Table, list[str]]]]
) -> None:
    ends = []
    for together in (True, False):
        await empty(database)
        outcomes = []
        for number, batch in enumerate(batches):
            all_of_them = [Writes()] if together else [Writes() for _ in batch]
            for index, (how, table, ids) in enumerate(batch):
                gather(all_of_them[0 if together else index], how, table, ids, f"batch {number}")
            outcomes.append(await attempt(database, all_of_them))
        ends.append((outcomes, await everything(database)))
    assert ends[0] == ends[1]
