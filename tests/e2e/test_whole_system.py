"""All four roles over a real NATS, on both databases: whatever breaks meanwhile, every saga ends, and verifies."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from sqlalchemy import func, select

from orchestrator import tables
from orchestrator.composition import PARTICIPANTS
from orchestrator.definition import Policy
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.embedded.postgres import EmbeddedPostgres
from outbox.topology import COMMANDS, REPLIES
from participants.inventory.models import Reservation, Stock
from participants.order.models import Order
from participants.payment.models import Account
from tests.support.outages import failed_over
from tests.support.servers import DatabaseUrls, Postgres, PostgresDatabases, Role
from tests.support.waiting import eventually
from tests.support.world import ROLES, World, an_order, definitions_with, mixed_orders

SHORT_TEMPERED = definitions_with(
    Policy(timeout=timedelta(seconds=0.3), attempts=2, factor=1.0),
    undo_policy=Policy(timeout=timedelta(seconds=0.5), attempts=None, factor=1.0),
)
"""Gives a step up soon, and an undo never."""


@pytest.fixture
async def world(database_urls: DatabaseUrls, nats: EmbeddedNats) -> AsyncIterator[World]:
    """Databases and a broker; the test starts the roles."""
    async with World(database_urls, nats.url) as world:
        yield world


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that the test may restart."""
    with EmbeddedPostgres(durable=False) as server:
        yield server


@asynccontextmanager
async def jetstream(nats: EmbeddedNats) -> AsyncIterator[JetStreamContext]:
    """The broker, as somebody sees it who is none of the roles."""
    client = Client()
    await client.connect(nats.url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def stored(stream: JetStreamContext, name: str) -> int:
    """How many messages a stream holds."""
    return (await stream.stream_info(name)).state.messages


async def status_of(world: World, customer: str) -> tuple[int, int]:
    """How many lamps are on the shelf, and what is left of a customer's money, in cents."""
    [stock] = await world.rows("inventory", select(Stock.table.c.available).where(Stock.table.c.sku == "lamp"))
    [money] = await world.rows(
        "payment", select(Account.table.c.balance).where(Account.table.c.customer_id == customer)
    )
    return stock.available, int(money.balance * 100)


# --- how an order ends -----------------------------------------------------------------------------------------


async def test_an_order_completes(world: World) -> None:
    lamps, cents = await status_of(world, "ada")
    await world.start(*ROLES)
    [saga_id] = await world.place(an_order(quantity=3, price="12.50"))

    assert await world.until_ended([saga_id]) == ["completed"]
    assert await world.findings() == []
    assert await status_of(world, "ada") == (lamps - 3, cents - 3750)
    assert [row.status for row in await world.rows("order", select(Order.table.c.status))] == ["confirmed"]
    assert (await world.view(saga_id)).data["authorisation_code"]


async def test_what_is_out_of_stock_is_compensated(world: World) -> None:
    before = await status_of(world, "ada")
    await world.start(*ROLES)
    [saga_id] = await world.place(an_order(sku="sold-out"))

    assert await world.until_ended([saga_id]) == ["compensated"]
    assert await world.findings() == []
    assert await status_of(world, "ada") == before
    assert [row.status for row in await world.rows("order", select(Order.table.c.status))] == ["rejected"]
    assert "sold-out" in str((await world.view(saga_id)).summary.reason)


async def test_without_money_the_stock_is_released(world: World) -> None:
    before = await status_of(world, "bob")
    await world.start(*ROLES)
    [saga_id] = await world.place(an_order(customer="bob"))

    assert await world.until_ended([saga_id]) == ["compensated"]
    assert await world.findings() == []
    assert await status_of(world, "bob") == before
    assert [row.status for row in await world.rows("inventory", select(Reservation.table.c.status))] == ["released"]


async def test_200_mixed_orders_at_once_end_as_they_must(world: World) -> None:
    await world.start(*ROLES)
    orders, ends = mixed_orders(200)
    placed = await asyncio.gather(*(world.place(*orders[start : start + 10]) for start in range(0, 200, 10)))
    saga_ids = [saga_id for batch in placed for saga_id in batch]

    assert await world.until_ended(saga_ids) == ends
    assert await world.findings() == []


# --- messages that are lost, late, or come again ------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 10])
async def test_replies_that_are_lost_are_asked_for_again(world: World, nats: EmbeddedNats, count: int) -> None:
    """One alone travels as a single event, many in a batch: the broker must take neither for one that it knows."""
    await world.start(*ROLES)
    await world.stop("orchestrator")
    saga_ids = await world.place(*(an_order() for _ in range(count)))
    async with jetstream(nats) as stream:
        await until_answered(world, "order", count)
        await stream.purge_stream(REPLIES)
        assert await stored(stream, REPLIES) == 0
    await world.start("orchestrator")

    assert await world.until_ended(saga_ids) == ["completed"] * count
    assert await world.findings() == []
    assert min(saga.steps["open-order"].attempt for saga in await world.sagas()) > 1


async def test_a_consumer_that_is_deleted_in_flight_is_put_back(world: World, nats: EmbeddedNats) -> None:
    await world.start(*(role for role in ROLES if role != "payment"))
    orders, ends = mixed_orders(20)
    saga_ids = await world.place(*orders)
    await world.until_asked([one for one, order in zip(saga_ids, orders, strict=True) if is_for_payment(order)], PAY)
    async with jetstream(nats) as stream:
        await stream.delete_consumer(REPLIES, "orchestrator")
        await stream.delete_consumer(COMMANDS, "inventory")
    await world.start("payment")

    assert await world.until_ended(saga_ids) == ends
    assert await world.findings() == []


async def test_everything_that_was_ever_sent_comes_again_and_changes_nothing(world: World, nats: EmbeddedNats) -> None:
    await world.start(*ROLES)
    orders, ends = mixed_orders(8)
    saga_ids = await world.place(*orders)
    assert await world.until_ended(saga_ids) == ends
    before = await revisions(world), await status_of(world, "ada")
    async with jetstream(nats) as stream:
        await send_again(stream, COMMANDS)
        await send_again(stream, REPLIES)
        await until_all_consumed(stream)

    assert (await revisions(world), await status_of(world, "ada")) == before
    assert await world.findings() == []


async def test_a_reply_that_comes_after_the_saga_was_compensated_changes_nothing(
    database_urls: DatabaseUrls, nats: EmbeddedNats
) -> None:
    async with World(database_urls, nats.url, definitions=SHORT_TEMPERED) as world, jetstream(nats) as stream:
        await world.start("orchestrator", "order", "payment")
        [saga_id] = await world.place(an_order())
        await world.until_asked([saga_id], "reserve-stock", "undo")
        await world.start("inventory")  # finds the commands, and then their undo

        assert await world.until_ended([saga_id]) == ["compensated"]
        before = await world.view(saga_id)
        await send_again(stream, REPLIES)
        await until_all_consumed(stream)
        after = await world.view(saga_id)

        assert (after.steps, after.ended_at) == (before.steps, before.ended_at)
        assert [row.status for row in await world.rows("inventory", select(Reservation.table.c.status))] in (
            ["released"],
            [],
        )
        assert await world.findings() == []


# --- what breaks, and comes back ----------------------------------------------------------------------------------

PAY = "authorise-payment"


async def test_a_participant_that_was_down_finds_its_commands_when_it_is_back(world: World) -> None:
    await world.start(*ROLES)
    await world.stop("inventory")
    orders, ends = mixed_orders(12)
    saga_ids = await world.place(*orders)
    await world.until_asked(saga_ids, "reserve-stock")
    await world.start("inventory")

    assert await world.until_ended(saga_ids) == ends
    assert await world.findings() == []


async def test_the_broker_restarts_in_the_middle(world: World, nats: EmbeddedNats) -> None:
    saga_ids, ends = await stopped_before_payment(world, 40)
    await asyncio.to_thread(nats.restart)
    await world.start("payment")

    assert await world.until_ended(saga_ids) == ends
    assert await world.findings() == []


async def test_the_broker_loses_its_whole_store_in_the_middle(world: World, nats: EmbeddedNats) -> None:
    saga_ids, ends = await stopped_before_payment(world, 40)
    async with jetstream(nats) as stream:
        assert await stored(stream, COMMANDS) > 0
    await asyncio.to_thread(nats.stop)
    await asyncio.to_thread(nats.wipe)
    await asyncio.to_thread(nats.start)
    await world.start("payment")

    assert await world.until_ended(saga_ids) == ends
    assert await world.findings() == []
    paid = [saga for saga in await world.sagas() if saga.steps[PAY].attempt > 1]
    assert paid, "the lost commands were asked again"


async def test_orders_are_accepted_while_the_broker_is_away(world: World, nats: EmbeddedNats) -> None:
    await world.start(*ROLES)
    [first] = await world.place(an_order())
    assert await world.until_ended([first]) == ["completed"]
    await asyncio.to_thread(nats.kill)
    saga_ids = await world.place(an_order(), an_order(sku="sold-out"))
    await asyncio.to_thread(nats.start)

    assert await world.until_ended(saga_ids) == ["completed", "compensated"]
    assert await world.findings() == []


async def test_postgresql_restarts_in_the_middle(own_postgres: EmbeddedPostgres, nats: EmbeddedNats) -> None:
    async with World(PostgresDatabases(own_postgres), nats.url) as world:
        saga_ids, ends = await stopped_before_payment(world, 40)
        await asyncio.to_thread(own_postgres.restart)  # while sagas wait
        await world.start("payment")
        await asyncio.to_thread(own_postgres.restart)  # while they move
        await world.reconnect()

        assert await world.until_ended(saga_ids) == ends
        assert await world.findings() == []


async def test_roles_go_on_by_themselves_when_a_database_that_was_read_only_takes_writes_again(
    postgres: Postgres, nats: EmbeddedNats
) -> None:
    """Once they had to be started anew: they held on to connections over which nothing could be written."""
    databases = PostgresDatabases(postgres)
    async with World(databases, nats.url) as world:
        await world.start(*ROLES)
        saga_ids = await world.place(an_order())
        assert await world.until_ended(saga_ids) == ["completed"]
        async with AsyncExitStack() as stack:
            for role in ROLES[1:]:
                await stack.enter_async_context(failed_over(world.databases[role]))
            saga_ids = await world.place(an_order())
            outages = world.outages("order")

            async def is_refused() -> bool:
                return any("takes no writes" in outage.reason for outage in outages.current.values())

            await eventually(is_refused, "the order service has met the server that takes no writes")
        await world.reconnect()

        assert await world.until_ended(saga_ids) == ["completed"]
        assert await world.findings() == []
        assert outages.current == {}
        assert [await world.dead_letters(role) for role in ROLES] == [[]] * len(ROLES)
    databases.drop()


# --- many hands -----------------------------------------------------------------------------------------------------


async def test_two_replicas_of_every_role_share_the_work(world: World) -> None:
    await world.start(*ROLES, *ROLES)
    orders, ends = mixed_orders(100)
    placed = [await world.place(*orders[start : start + 2]) for start in range(0, 100, 2)]

    assert await world.until_ended([saga_id for batch in placed for saga_id in batch]) == ends
    assert await world.findings() == []
    for role in ROLES:
        shares = [reached[f"{role}.acked"] for reached in world.reached(role)]
        assert len(shares) == 2
        assert min(shares) > 0, f"{role}: {shares}"


# --- how it is asked ------------------------------------------------------------------------------------------------


def is_for_payment(order: dict[str, object]) -> bool:
    """Whether the order comes as far as its payment."""
    return "sold-out" not in str(order)


async def stopped_before_payment(world: World, count: int) -> tuple[list[str], list[str]]:
    """Start everything but the payment service; return when all sagas that come to it wait for it."""
    await world.start(*(role for role in ROLES if role != "payment"))
    orders, ends = mixed_orders(count)
    saga_ids = await world.place(*orders)
    await world.until_asked([one for one, order in zip(saga_ids, orders, strict=True) if is_for_payment(order)], PAY)
    return saga_ids, ends


async def until_answered(world: World, role: Role, count: int) -> None:
    """Wait until a participant has handled so many commands, and its outbox is with the broker."""
    participant = PARTICIPANTS[role]

    async def answered() -> bool:
        handled = await world.rows(role, select(func.count()).select_from(participant.messaging.inbox))
        return handled[0][0] == count and not await world.outgoing(role)

    await eventually(answered, f"{role} has answered {count} commands")


async def send_again(stream: JetStreamContext, name: str) -> None:
    """Publish everything that a stream holds once more, under no message id: the broker takes it for news."""
    for sequence in range(1, await stored(stream, name) + 1):
        message = await stream.get_msg(name, sequence)
        await stream.publish(str(message.subject), message.data or b"")


async def until_all_consumed(stream: JetStreamContext) -> None:
    """Wait until the consumers have nothing left: neither to be delivered nor to be acknowledged."""

    async def nothing_left() -> bool:
        consumers = [await stream.consumer_info(REPLIES, "orchestrator")]
        consumers += [await stream.consumer_info(COMMANDS, role) for role in ROLES if role != "orchestrator"]
        return not any((one.num_pending or 0) + (one.num_ack_pending or 0) for one in consumers)

    await eventually(nothing_left, "all messages are consumed")


async def revisions(world: World) -> dict[str, int]:
    """How many decisions each saga has seen."""
    table = tables.sagas
    return {row.id: row.revision for row in await world.rows("orchestrator", select(table.c.id, table.c.revision))}
