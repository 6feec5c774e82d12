"""The statements of the hot path find their rows by index, however many sagas have ended and however many wait.

All services run over a real NATS, on real databases that hold the rows of some 20,000 sagas. Every statement that
they execute is noted, however it may be written, and explained. None may read a whole table, nor a whole index, unless
that index is partial: such a one holds only what is under way. And PostgreSQL may not go on with a plan that it made
when there was next to nothing to read.
"""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

import pytest
from sqlalchemy import func, insert, select, text, update

from migrations.registry import MODELS
from orchestrator.definition import Rate, Saga, reversible
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.events import Signalled
from orchestrator.sagas.place_order import place_order
from orchestrator.scheduler import Scheduler
from orchestrator.schedules import Schedules, Spec
from orchestrator.tables import schedules
from outbox.broker import Broker
from outbox.clock import DatabaseClock
from outbox.relay import Relay
from outbox.topology import Topology
from tests.support.plans import Notes, kept_scans, multiply, scans
from tests.support.sagas import FAMILY, Hold, release, reserve
from tests.support.servers import DatabaseUrls, Role
from tests.support.waiting import eventually
from tests.support.world import ASKING_FOR_EVER, DAWN, ROLES, World, an_order, answer, definitions_with, mixed_orders

DAY: Final = timedelta(days=1)
COPIES: Final = 1000
LIMITED: Final = Saga("limited", Hold, (reversible(reserve, undo=release),), None, max_in_flight=3, rate=Rate(50))
DEFINITIONS: Final = definitions_with(ASKING_FOR_EVER, sagas=(*FAMILY, place_order, LIMITED))

OWN_VALUES: Final[dict[Role, dict[str, tuple[str, ...]]]] = {
    "orchestrator": {
        "sagas": ("id", "key"),
        "saga_log": ("saga_id",),
        "saga_labels": ("saga_id",),
        "throttles": ("definition",),
        "schedules": ("name",),
    },
    "order": {"inbox": ("message_id",), "orders": ("order_id", "placement_id")},
    "inventory": {"inbox": ("message_id",), "reservations": ("reservation_id",), "stock": ("sku",)},
    "payment": {
        "inbox": ("message_id",),
        "holds": ("hold_id",),
        "postings": ("posting_id", "entry_id", "account"),
        "accounts": ("customer_id",),
    },
}
"""In what a row differs from its copies."""

KEPT_AFTER: Final = 5
"""PostgreSQL may keep the plan of a statement that it has executed so often."""

SMALL: Final = ("stock", "accounts", "throttles", "schedules")
"""They have a row or two to copy."""

HOT: Final[set[tuple[Role, str]]] = {
    *((role, table) for role, tables in OWN_VALUES.items() for table in tables),
    *((role, "outbox") for role in ROLES),
}


@pytest.fixture
async def world(database_urls: DatabaseUrls, nats: EmbeddedNats) -> AsyncIterator[World]:
    """All four services, that come again soon; none of them runs yet."""
    async with World(database_urls, nats.url, definitions=DEFINITIONS, ack_wait=timedelta(seconds=1)) as world:
        yield world


async def live(world: World) -> None:
    """Some of everything that happens every day, and at least one of it while a service is away."""
    desk = world.desk()  # nobody publishes what is started here: it is left to the sweep
    orders, _ = mixed_orders(4)
    unpublished = an_order()
    busy = [
        *await world.place(*orders),
        *await world.place({"order_id": an_order()["order_id"]}, {"order_id": "x", "sku": "sold-out"}, saga="sell"),
        *await world.place({}, {}, {}, {}, saga="limited"),
        (await desk.start(unpublished, key=unpublished["order_id"], labels={"channel": "web"})).saga_id,
        (await desk.start(unpublished, key=unpublished["order_id"])).saga_id,
    ]
    for saga_id in await world.place({}, {}, saga="approved-hold"):
        busy.append(saga_id)
        await desk.engine.tell(saga_id, Signalled("approval", "done", {"by": "ada"}, "ada"))
    await world.until_ended(busy)
    await outage(world)


async def outage(world: World) -> None:
    """The inventory is away until it has been asked twice."""
    await world.stop("inventory")
    [late] = await world.place(an_order())

    async def asked_twice() -> bool:
        step = (await world.saga(late)).steps.get("reserve-stock")
        return step is not None and step.attempt >= 2

    await eventually(asked_twice, "the timer has fired")
    await world.start("inventory")
    await world.until_ended([late])


async def grow(world: World) -> None:
    """Let there be a long history, many sagas that wait, and an outbox that cannot be emptied."""
    desk = world.desk()
    now = DatabaseClock().now()
    await desk.start({}, saga="approved-hold")
    await desk.start({}, saga="everything")
    await desk.start({}, saga="limited", begins_at=now + DAY)
    await Schedules(desk.engine).create(Spec("rarely", "hold-stock", {}, "0 0 29 2 *", "UTC", "once"))
    for role, tables in OWN_VALUES.items():
        for table, own in tables.items():
            copies = 5 * COPIES if table in SMALL else COPIES
            await multiply(world.databases[role], MODELS[role].tables[table], copies, *own)
        late = {"subject": "saga.event.late", "body": "{}", "due_at": now + DAY}
        rows = [{"message_id": f"later-{number}", **late} for number in range(5 * COPIES)]
        async with world.databases[role].transaction() as connection:
            await connection.execute(insert(MODELS[role].tables["outbox"]), rows)


async def learn(world: World) -> None:
    """Let the databases look at what their tables hold, as they do by themselves in time."""
    for database in world.databases.values():
        async with database.transaction() as connection:
            await connection.execute(text("ANALYZE"))


async def outboxes_are_clean(world: World) -> bool:
    """Whether only that is left which is for later."""
    left = 0
    for role in ROLES:
        outbox = MODELS[role].tables["outbox"]
        [row] = await world.rows(role, select(func.count()).where(outbox.c.message_id.not_like("later%")))
        left += row[0]
    return left == 0


async def test_no_service_reads_a_whole_table(world: World) -> None:
    await world.start(*ROLES)
    await live(world)
    await world.stop(*ROLES)
    await grow(world)
    await learn(world)

    notes = Notes(but_not=list(world.databases.values()))
    with notes.taken():
        await world.start(*ROLES)
        await world.execute("orchestrator", update(schedules).where(schedules.c.name == "rarely").values(next_at=DAWN))
        await live(world)
        await eventually(lambda: outboxes_are_clean(world), "everything is published")
        await world.stop(*ROLES)

    assert HOT - notes.touched == set(), "each of these tables was asked for"
    complaints = [one for role in ROLES for one in await scans(world.databases[role], notes.of(role))]
    assert not complaints, "\n\n".join(complaints)


async def test_many_keys_are_looked_up_together_by_index(world: World) -> None:
    """However many there are at once, of one definition or of several."""
    desk, notes = world.desk(), Notes(but_not=list(world.databases.values()))
    await grow(world)
    await learn(world)
    for definitions in (["hold-stock"] * 3, ["hold-stock", "approved-hold", "hold-stock"]):
        requests = [
            desk.engine.request(name, {}, f"{number} of {definitions}") for number, name in enumerate(definitions)
        ]
        for outcome in ("started", "existing"):
            with notes.taken():
                assert {one.outcome for one in await desk.engine.start(requests)} == {outcome}
    assert await scans(world.databases["orchestrator"], notes.of("orchestrator")) == []


@pytest.mark.parametrize("index", ["ix_sagas_due_at", "ix_schedules_next_at"])
async def test_a_missing_index_is_noticed(world: World, index: str) -> None:
    desk, notes, database = world.desk(), Notes(but_not=[]), world.databases["orchestrator"]
    await grow(world)
    await learn(world)
    with notes.taken():
        await desk.engine.fire_timers()
        await Scheduler(desk.engine).fire()
    assert await scans(database, notes.of("orchestrator")) == []

    await world.execute("orchestrator", text(f"DROP INDEX {index}"))
    [complaint, *_] = await scans(database, notes.of("orchestrator"))
    assert f"FROM {index.split('_')[1]}" in complaint


@pytest.mark.parametrize("database_urls", ["postgresql"], indirect=True)
async def test_no_plan_is_kept_from_when_the_tables_were_empty(world: World, nats: EmbeddedNats) -> None:
    desk, broker = world.desk(), Broker(nats.url, name="amends-test")
    await broker.connect()
    await Topology().ensure(broker.jetstream)
    relay = Relay(desk.outbox, broker)
    for _ in range(2 * KEPT_AFTER):
        saga_id = await desk.begin("hold-stock")
        await desk.receive(answer(f"{saga_id}/reserve/do"))
        await desk.admit()
        await desk.engine.fire_timers()
        await relay.flush()
    await broker.close()

    await grow(world)
    assert await kept_scans(desk.outbox.database) == []
