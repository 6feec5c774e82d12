"""Children, undos and signals over a real NATS, between real services: whatever breaks, all of a family ends together.

How each message may be lost or come again, one by one, is in `test_commands`.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Column, MetaData, String, Table, insert, select

from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.events import Cancelled
from orchestrator.steps import SignalSaga, StartSaga
from outbox.contracts import Command
from outbox.envelope import Envelope
from outbox.faults import POINTS
from outbox.topology import COMMANDS, REPLIES, Inlet
from outbox.unit_of_work import Outbox, UnitOfWork
from tests.support.messaging import Killed, asks, courier, send, stored, unsettled
from tests.support.sagas import FAMILY
from tests.support.servers import DatabaseUrls, SqliteDatabases
from tests.support.waiting import eventually
from tests.support.world import ASKING_FOR_EVER, ROLES, World, definitions_with

DEFINITIONS: Final = definitions_with(ASKING_FOR_EVER, sagas=FAMILY)
SECOND: Final = timedelta(seconds=1)
SHOP: Final = "saga.reply.shop"


def a_world(urls: DatabaseUrls, nats_url: str) -> World:
    """Services that come again soon."""
    return World(urls, nats_url, definitions=DEFINITIONS, ack_wait=SECOND)


@pytest.fixture
async def world(database_urls: DatabaseUrls, nats: EmbeddedNats) -> AsyncIterator[World]:
    """All four services, running."""
    async with a_world(database_urls, nats.url) as world:
        await world.start(*ROLES)
        yield world


def sales(*kinds: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Sales of these kinds, and how each must end."""
    options = {"fine": {}, "sold-out": {"sku": "sold-out"}, "poor": {"customer_id": "bob"}}
    inputs = [{"order_id": f"order-{number}"} | options[kind] for number, kind in enumerate(kinds)]
    return inputs, ["completed" if kind == "fine" else "compensated" for kind in kinds]


async def ends(world: World) -> Counter[tuple[str, str]]:
    """How many sagas of each definition have ended how."""
    return Counter((saga.definition, saga.status) for saga in await world.sagas())


# --- when all is well ----------------------------------------------------------------------------------------------


async def test_families_end_together(world: World) -> None:
    inputs, wanted = sales("fine", "sold-out", "poor", "fine")
    exports, exported = sales("poor", "fine")
    saga_ids = await world.place(*inputs, saga="sell")
    saga_ids += await world.place(*({**one, "order_id": f"e-{one['order_id']}"} for one in exports), saga="export")
    saga_ids += await world.place({"order_id": "i-1"}, {"order_id": "i-2", "customer_id": "bob"}, saga="invoice")

    assert await world.until_ended(saga_ids) == [*wanted, *exported, "completed", "compensated"]
    assert await ends(world) == {
        ("sell", "completed"): 2,
        ("sell", "compensated"): 2,
        ("export", "completed"): 1,
        ("export", "compensated"): 1,
        ("pack", "completed"): 1,
        ("pack", "compensated"): 1,
        ("hold-stock", "completed"): 3,
        ("hold-stock", "compensated"): 3,
        ("invoice", "completed"): 1,
        ("invoice", "compensated"): 1,
        ("charge", "completed"): 1,
        ("charge", "compensated"): 1,
    }
    assert await world.findings() == []
    assert [await world.dead_letters(role) for role in ROLES] == [[]] * len(ROLES)


# --- a service that starts and signals sagas in its own transaction ------------------------------------------------

wishes = Table("wishes", MetaData(), Column("id", String(20), primary_key=True))
"""The service's own."""


@dataclass(frozen=True)
class Shop:
    """A service that writes its own row and a command to the orchestrator together. It lends the order service's
    database, whose relay publishes what is in the outbox.
    """

    outbox: Outbox

    async def wish(self, wish: str, *commands: tuple[str, Command[Any]], broken: bool = False) -> None:
        """In one unit of work: a wish, and what it asks the orchestrator for."""
        async with self.outbox.unit_of_work() as unit:
            await unit.connection.execute(insert(wishes).values(id=wish))
            self._ask(unit, *commands)
            if broken:
                raise LookupError(f"{wish} was thought better of")

    def _ask(self, unit: UnitOfWork, *commands: tuple[str, Command[Any]]) -> None:
        for id, command in commands:
            unit.send(command.subject(), asks(command, id).model_copy(update={"replyto": SHOP}))


@pytest.fixture
async def shop(world: World) -> Shop:
    """The shop, with its table."""
    async with world.databases["order"].transaction() as connection:
        await connection.run_sync(wishes.create)
    return Shop(world.outbox("order"))


async def told(nats: EmbeddedNats, count: int) -> list[Envelope]:
    """So many answers to the shop."""
    async with courier(nats.url) as broker:

        async def answers() -> list[Envelope]:
            messages = await stored(broker.jetstream, REPLIES)
            found = [event for message in messages if message.subject == SHOP for event in message.events]
            return found if len(found) >= count else []

        return await eventually(answers, f"{count} answers to the shop")


async def test_a_service_starts_a_saga_with_its_own_row_or_neither(
    world: World, shop: Shop, nats: EmbeddedNats
) -> None:
    fine, poor = (
        StartSaga(saga="sell", input={"order_id": "o-1"}),
        StartSaga(saga="sell", input={"order_id": "o-2", "customer_id": "bob"}),
    )
    with pytest.raises(LookupError):
        await shop.wish("w-0", ("w-0/do", fine), broken=True)
    await shop.wish("w-1", ("w-1/do", fine), ("w-2/do", poor))
    done, refused = sorted(await told(nats, 2), key=lambda envelope: str(envelope.answers))

    assert [row.id for row in await world.rows("order", select(wishes))] == ["w-1"]
    assert (await ends(world))["sell", "completed"] == (await ends(world))["sell", "compensated"] == 1
    assert (done.answers, done.outcome, done.data["result"]["order_id"]) == ("w-1/do", "done", "o-1")
    assert (refused.answers, refused.outcome, refused.data["code"]) == ("w-2/do", "refused", "compensated")
    assert await world.findings() == []


async def test_a_service_signals_a_child_that_waits(world: World, shop: Shop, nats: EmbeddedNats) -> None:
    [parent] = await world.place({"order_id": "o-1"}, saga="sell-on-approval")
    child = await child_that_waits(world, parent)
    approval = SignalSaga(saga_id=child, step="approval", data={"by": "eve"})
    await shop.wish("w-1", ("w-1/signal", approval), ("w-1/again", approval))

    assert await world.until_ended([parent]) == ["completed"]
    assert [one.type for one in await told(nats, 2)] == ["orchestrator.signal-taken"] * 2
    assert (await world.log(child)).count("signal-received approval") == 1
    assert await world.findings() == []


async def test_a_parent_that_is_cancelled_while_its_child_waits_takes_it_along(world: World) -> None:
    [parent] = await world.place({"order_id": "o-1"}, saga="sell-on-approval")
    await child_that_waits(world, parent)
    await world.desk().engine.tell(parent, Cancelled("ada", "the customer rang"))

    assert await world.until_ended([parent]) == ["compensated"]
    assert [one.status for one in await world.children(parent)] == ["compensated"]
    assert await world.findings() == []


async def child_that_waits(world: World, parent: str) -> str:
    """The id of the child, when it is there and waits for its signal."""

    async def child() -> str:
        return next((one.id for one in await world.children(parent) if one.steps["approval"].attempt), "")

    return await eventually(child, "the child waits")


# --- when something breaks -----------------------------------------------------------------------------------------


@dataclass
class KillAt:
    """Ends the service at one of its crash points, as the end of the process would: nobody handles it."""

    point: str
    hit: int

    def reach(self, point: str) -> None:
        """Count down, and die."""
        if point == f"orchestrator.{self.point}":
            self.hit -= 1
            if self.hit == 0:
                raise Killed(f"killed at {point}")


@pytest.mark.parametrize("point", POINTS)
async def test_an_orchestrator_that_dies_again_and_again_in_the_midst_of_families(
    point: str, nats: EmbeddedNats, tmp_path: Any
) -> None:
    inputs, wanted = sales("fine", "poor", "sold-out")
    async with a_world(SqliteDatabases(tmp_path), nats.url) as world:
        await world.start("order", "inventory", "payment")
        saga_ids = await world.place(*inputs, saga="sell")
        saga_ids += await world.place({"order_id": "e-1", "customer_id": "bob"}, saga="export")
        for hit in (1, 2, 3, 4):
            await world.start("orchestrator", faults=KillAt(point, hit))
            await world.killed("orchestrator", by=Killed)
        assert set((await world.queries.statuses(saga_ids)).values()) & {"running", "compensating"}, "in the midst"

        await world.start("orchestrator")
        assert await world.until_ended(saga_ids) == [*wanted, "compensated"]
        assert len(await world.sagas()) == 3 * 2 + 3, "each has one child, and no more"
        assert await world.findings() == []


async def test_families_survive_that_the_broker_loses_its_store(
    database_urls: DatabaseUrls, nats: EmbeddedNats
) -> None:
    """While the children are asked for, and again while they are undone."""
    inputs, wanted = sales("fine", "poor", "sold-out", "fine", "poor")
    async with a_world(database_urls, nats.url) as world:
        await world.start("orchestrator", "order", "payment")
        saga_ids = await world.place(*inputs, saga="sell")
        saga_ids += await world.place({"order_id": "e-1", "customer_id": "bob"}, saga="export")
        await until_reservations_are(world, 6, "asked")
        await lose_everything(nats)
        await world.start("inventory")
        await until_reservations_are(world, 1, "undoing", "undone")
        await lose_everything(nats)

        assert await world.until_ended(saga_ids) == [*wanted, "compensated"]
        assert len(await world.sagas()) == 5 * 2 + 3
        assert await world.findings() == []


async def until_reservations_are(world: World, count: int, *statuses: str) -> None:
    """Wait until so many children have got that far."""

    async def that_far() -> bool:
        held = [saga.steps["reserve"].status for saga in await world.sagas() if saga.definition == "hold-stock"]
        return sum(status in statuses for status in held) >= count

    await eventually(that_far, f"{count} reservations are {statuses}")


async def lose_everything(nats: EmbeddedNats) -> None:
    """The broker dies, and comes back without its store."""
    await asyncio.to_thread(nats.kill)
    nats.wipe()
    await asyncio.to_thread(nats.start)


async def test_two_replicas_share_families(database_urls: DatabaseUrls, nats: EmbeddedNats) -> None:
    inputs, wanted = sales(*("fine", "poor", "sold-out", "fine", "poor") * 4)
    async with a_world(database_urls, nats.url) as world:
        await world.start(*ROLES, "orchestrator")
        saga_ids = await world.place(*inputs, saga="sell")

        assert await world.until_ended(saga_ids) == wanted
        assert len(await world.sagas()) == 40
        assert all(points["committed"] for points in map(shortened, world.reached("orchestrator"))), "both have worked"
        assert await world.findings() == []


def shortened(points: Counter[str]) -> Counter[str]:
    """Without the role."""
    return Counter({point.partition(".")[2]: count for point, count in points.items()})


async def test_what_the_orchestrator_was_ever_told_may_come_again_and_changes_nothing(
    world: World, nats: EmbeddedNats
) -> None:
    """All of it, late, and under other message ids."""
    inputs, wanted = sales("fine", "poor", "sold-out")
    saga_ids = await world.place(*inputs, saga="sell")
    assert await world.until_ended(saga_ids) == wanted
    before = await world.sagas()
    async with courier(nats.url) as broker:
        for name in (COMMANDS, REPLIES):
            for message in await stored(broker.jetstream, name):
                await send(broker.jetstream, message.subject, *message.events)

        async def all_handled() -> bool:
            inlets = [Inlet(COMMANDS, "orchestrator", ""), Inlet(REPLIES, "orchestrator", "")]
            return not sum([await unsettled(broker.jetstream, inlet) for inlet in inlets])

        await eventually(all_handled, "all of it is handled again")

    assert await world.sagas() == before
    assert await world.findings() == []
