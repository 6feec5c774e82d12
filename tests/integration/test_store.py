"""The store on both databases: of what happens to a saga in one batch one row is written, and every decision logged."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select, text

from orchestrator import machine
from orchestrator.events import Answered
from orchestrator.sagas.place_order import PlaceOrder, place_order
from orchestrator.store import Change, LostRace, Store, Stored
from orchestrator.tables import saga_labels, saga_log, sagas
from outbox.bulk import Writes
from outbox.envelope import Envelope
from tests.support.world import DAWN, THREE_TIMES, Desk, World, an_order, answer, with_policies

REPLIED: dict[str, dict[str, Any]] = {"authorise-payment": {"authorisation_code": "A1"}}
PLACE_ORDER = with_policies(place_order, THREE_TIMES)
COUNTED = {
    "sqlite": [
        "CREATE TRIGGER noted_insert AFTER INSERT ON sagas BEGIN INSERT INTO written VALUES (new.id); END",
        "CREATE TRIGGER noted_update AFTER UPDATE ON sagas BEGIN INSERT INTO written VALUES (new.id); END",
    ],
    "postgresql": [
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO written VALUES (new.id); RETURN NULL; END $$",
        "CREATE TRIGGER noted AFTER INSERT OR UPDATE ON sagas FOR EACH ROW EXECUTE FUNCTION note()",
    ],
}
"""Has the database itself note every row of a saga that is written."""


async def note_writes(world: World) -> None:
    dialect = world.databases["orchestrator"].dialect
    statements = ["CREATE TABLE written (id VARCHAR(64))", *COUNTED[dialect]]
    await world.execute("orchestrator", *map(text, statements))


async def written(world: World) -> list[str]:
    """The ids of the sagas whose rows were written, as often as they were."""
    return sorted(row.id for row in await world.rows("orchestrator", text("SELECT id FROM written")))


async def stored_in(world: World, saga_ids: Sequence[str]) -> dict[str, Stored]:
    database = world.databases["orchestrator"]
    async with database.transaction() as connection:
        return await Store(database).lock(connection, saga_ids)


async def write(world: World, *changes: Change) -> None:
    database, writes = world.databases["orchestrator"], Writes()
    Store(database).write(writes, changes)
    async with database.transaction() as connection:
        await writes.flush(connection)


async def log_of(world: World, saga_id: str) -> list[int]:
    """The revisions in a saga's log, in the order in which they were written."""
    query = select(saga_log.c.revision).where(saga_log.c.saga_id == saga_id).order_by(saga_log.c.position)
    return [row.revision for row in await world.rows("orchestrator", query)]


async def everything(world: World) -> list[list[tuple[Any, ...]]]:
    """All rows of sagas, logs and labels."""
    selects = [select(table).order_by(*table.primary_key.columns) for table in (sagas, saga_log, saga_labels)]
    return [[tuple(row) for row in await world.rows("orchestrator", query)] for query in selects]


def answered(saga_id: str, *steps: str) -> list[Envelope]:
    return [answer(f"{saga_id}/{step}/do", **REPLIED.get(step, {})) for step in steps]


def begun(saga_id: str, **labels: str) -> Change:
    """The first decision about a saga."""
    data = PlaceOrder.model_validate(an_order() | {"saga_id": saga_id})
    decision = machine.start(PLACE_ORDER, saga_id, data, DAWN)
    return Change(Stored(decision.saga, 1, None, "", DAWN, labels=labels), decision.entries, DAWN)


def going_on(stored: Stored, *steps: str) -> list[Change]:
    """Further decisions, each upon what the last one has made of the saga."""
    changes: list[Change] = []
    for step in steps:
        event = Answered(f"{stored.saga.id}/{step}/do", "done", REPLIED.get(step, {}))
        decision = machine.decide(PLACE_ORDER, stored.saga, event, DAWN)
        assert decision.ignored is None
        stored = replace(stored, saga=decision.saga, revision=stored.revision + 1)
        changes.append(Change(stored, decision.entries, DAWN))
    return changes


# --- several decisions in one batch ------------------------------------------------------------------------------


async def test_a_saga_that_gets_several_answers_in_one_batch_is_written_once_as_it_is_at_the_end(
    world: World, desk: Desk
) -> None:
    thrice, once = [(await desk.start(an_order())).saga_id for _ in range(2)]
    await note_writes(world)
    first, *others = answered(thrice, "open-order", "reserve-stock", "authorise-payment")
    await desk.receive(first, *answered(once, "open-order"), *others)

    assert await written(world) == sorted([thrice, once])
    stored = await stored_in(world, [thrice, once])
    assert (stored[thrice].revision, stored[once].revision) == (4, 2)
    assert stored[thrice].saga.data["authorisation_code"] == "A1"
    assert stored[thrice].saga.steps["capture-payment"].attempt == 1
    assert (await log_of(world, thrice), await log_of(world, once)) == ([1, 2, 3, 4], [1, 2])
    assert await world.log(thrice) == [
        "started",
        "asked open-order",
        "done open-order",
        "asked reserve-stock",
        "done reserve-stock",
        "asked authorise-payment",
        "done authorise-payment",
        "asked capture-payment",
    ]


async def test_a_batch_leaves_what_its_answers_leave_one_by_one(world: World, desk: Desk) -> None:
    together, apart = [(await desk.start(an_order())).saga_id for _ in range(2)]
    steps = ("open-order", "reserve-stock", "authorise-payment", "capture-payment", "sell-stock", "confirm-order")
    await desk.receive(*answered(together, *steps))
    for one in answered(apart, *steps):
        await desk.receive(one)

    stored = await stored_in(world, [together, apart])
    assert stored[together].revision == stored[apart].revision == 7
    assert [saga.status for saga in await world.sagas()] == ["completed", "completed"]
    assert await world.log(together) == await world.log(apart)
    assert await log_of(world, together) == await log_of(world, apart) == list(range(1, 8))


async def test_many_sagas_of_one_batch_are_each_written_once(world: World, desk: Desk) -> None:
    results = await desk.engine.start([desk.engine.request("place-order", an_order()) for _ in range(300)])
    saga_ids = [result.saga_id for result in results]
    await note_writes(world)
    steps = ("open-order", "reserve-stock")
    await desk.receive(*(reply for step in steps for saga_id in saga_ids for reply in answered(saga_id, step)))

    assert await written(world) == sorted(saga_ids)
    assert {stored.revision for stored in (await stored_in(world, saga_ids)).values()} == {3}
    [[count]] = await world.rows("orchestrator", select(func.count()).select_from(saga_log))
    assert count == 3 * 300


async def test_a_saga_that_begins_and_goes_on_in_one_batch_is_inserted_once_with_its_labels(world: World) -> None:
    await note_writes(world)
    first, other = begun("s-1", region="north", tier="gold"), begun("s-2")
    await write(world, first, other, *going_on(first.stored, "open-order", "reserve-stock"))

    assert await written(world) == ["s-1", "s-2"]
    stored = await stored_in(world, ["s-1", "s-2"])
    assert (stored["s-1"].revision, stored["s-2"].revision) == (3, 1)
    assert stored["s-1"].saga.steps["authorise-payment"].attempt == 1
    assert await log_of(world, "s-1") == [1, 2, 3]
    labels = await world.rows("orchestrator", select(saga_labels).order_by(saga_labels.c.name))
    assert [tuple(row) for row in labels] == [("s-1", "region", "north"), ("s-1", "tier", "gold")]


async def test_no_changes_are_no_write(world: World) -> None:
    await note_writes(world)
    await write(world)
    assert await written(world) == []


# --- somebody else was faster ------------------------------------------------------------------------------------


async def test_one_saga_that_was_changed_meanwhile_takes_back_the_whole_batch(world: World) -> None:
    chance = random.Random(11)
    changes = [begun(f"s-{number:02}") for number in range(50)]
    await write(world, *changes)
    slept = await stored_in(world, [change.stored.saga.id for change in changes])
    await write(world, *going_on(slept["s-23"], "open-order"))
    before = await everything(world)

    late = [change for stored in slept.values() for change in going_on(stored, "open-order", "reserve-stock")]
    late = sorted(late, key=lambda change: (change.stored.revision, chance.random()))
    with pytest.raises(LostRace, match="changed by another writer"):
        await write(world, *late)
    assert await everything(world) == before


async def test_it_is_the_revision_before_the_first_change_that_must_still_be_there(world: World) -> None:
    """What was read at revision 1 and is now at 2 must not be taken for this batch's own second step."""
    await write(world, begun("s-1"))
    slept = (await stored_in(world, ["s-1"]))["s-1"]
    await write(world, *going_on(slept, "open-order"))
    before = await everything(world)
    with pytest.raises(LostRace):
        await write(world, *going_on(slept, "open-order", "reserve-stock", "authorise-payment"))
    assert await everything(world) == before


async def test_a_saga_that_is_gone_is_a_lost_race_too(world: World) -> None:
    await write(world, begun("s-1"))
    gone = begun("s-2")
    with pytest.raises(LostRace):
        await write(world, *going_on(gone.stored, "open-order"))
    assert list(await stored_in(world, ["s-1", "s-2"])) == ["s-1"]
