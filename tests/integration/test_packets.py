"""Packets: a row of the outbox is one NATS message, with the events of one transaction and subject, and travels whole.

And what the relay holds of them: a bounded part in memory, the rest in the table.
"""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest

from orchestrator.composition import PARTICIPANTS
from orchestrator.embedded.nats_server import EmbeddedNats
from outbox import relay as relay_module
from outbox.broker import Broker
from outbox.courier import NatsCourier
from outbox.database import Database
from outbox.envelope import BATCH, Envelope, Packet
from outbox.relay import Relay
from outbox.service import Service
from outbox.topology import COMMANDS, EVENTS, Topology, command_inlet
from outbox.topology import REPLIES as REPLY_STREAM
from outbox.unit_of_work import MAX_MESSAGE_BYTES, Outbox
from participants.inventory.contracts import ReserveStock, StockLine
from participants.inventory.models import Reservation, Stock
from participants.inventory.seed import seed_stock
from participants.runtime.processor import CommandProcessor
from tests.support.messaging import (
    Journal,
    Killed,
    OpenDatabase,
    VirtualClock,
    asks,
    count,
    courier,
    envelope,
    messaging,
    outbox_on,
    relaying,
    rows_of,
    send,
    serving,
    stored,
    stored_ids,
    unpacked,
    unsettled,
    until_empty,
)
from tests.support.servers import DatabaseUrls
from tests.support.waiting import eventually
from tests.support.world import ROLES, World, an_order

SUBJECT = "saga.event.test.noted"
TABLE = messaging("order").outbox
GRACE = timedelta(seconds=5)
INLET = command_inlet("inventory", timedelta(seconds=5))
RESERVE = ReserveStock.subject()


@pytest.fixture
async def order(open_database: OpenDatabase) -> Database:
    return await open_database("order")


@pytest.fixture
async def broker(nats: EmbeddedNats) -> AsyncIterator[Broker]:
    async with courier(nats.url, INLET) as connected:
        yield connected


async def commit(outbox: Outbox, *sent: tuple[str, Envelope]) -> None:
    """Commit these in one transaction."""
    async with outbox.unit_of_work() as unit:
        for subject, event in sent:
            unit.send(subject, event)


async def packets_in(database: Database) -> list[Packet]:
    return [Packet(row.message_id, row.subject, row.body) for row in await rows_of(database, TABLE)]


# --- what is in a row --------------------------------------------------------------------------------------------


async def test_a_transaction_is_one_row_for_each_subject_in_the_order_of_sending(order: Database) -> None:
    ids = random.Random(7).sample(range(1000), 90)
    sent = [(f"{SUBJECT}.{number % 3}", envelope(f"e-{id}")) for number, id in enumerate(ids)]
    await commit(outbox_on(order, "order"), *sent)

    packets = await packets_in(order)
    assert len(packets) == 3
    for packet in packets:
        assert packet.content_type == BATCH
        assert unpacked(packet.body) == [event for subject, event in sent if subject == packet.subject]


async def test_events_of_two_transactions_are_two_rows(order: Database) -> None:
    outbox = outbox_on(order, "order")
    await commit(outbox, (SUBJECT, envelope("a")), (SUBJECT, envelope("b")))
    await commit(outbox, (SUBJECT, envelope("c")))
    carried = [[event.id for event in unpacked(packet.body)] for packet in await packets_in(order)]
    assert sorted(carried) == [["a", "b"], ["c"]]


async def test_more_events_than_a_packet_may_carry_are_several_rows_each_in_order(order: Database) -> None:
    sent = [(f"{SUBJECT}.{number % 2}", envelope(f"e-{number}")) for number in range(2402)]
    await commit(outbox_on(order, "order"), *sent)

    carried: dict[str, list[list[str]]] = defaultdict(list)
    for packet in await packets_in(order):
        carried[packet.subject].append([event.id for event in unpacked(packet.body)])
    assert len(carried) == 2
    for subject, groups in carried.items():
        assert sorted(map(len, groups)) == [201, 500, 500]
        wanted = [event.id for other, event in sent if other == subject]
        assert sorted(groups, key=lambda group: wanted.index(group[0])) == [
            wanted[:500],
            wanted[500:1000],
            wanted[1000:],
        ]


@pytest.mark.parametrize("character", ["x", "é", "🍵", '"'])
async def test_no_row_is_larger_than_the_broker_takes(order: Database, broker: Broker, character: str) -> None:
    """The last character takes two bytes on the wire, as JSON writes it."""
    chance = random.Random(3)
    sizes = [*(chance.randrange(1, 120_000) for _ in range(40)), 700 * 1024, 1, MAX_MESSAGE_BYTES - 1000]
    width = len(character.encode()) + (character == '"')
    events = [envelope(f"e-{number}", text=character * (size // width)) for number, size in enumerate(sizes)]
    outbox = outbox_on(order, "order")
    relay = Relay(outbox, broker)
    await commit(outbox, *((SUBJECT, event) for event in events))

    packets = await packets_in(order)
    for packet in packets:
        room = MAX_MESSAGE_BYTES if len(unpacked(packet.body)) == 1 else 512 * 1024
        assert len(packet.body.encode()) <= room
    assert len(packets) < len(events) / 2, "hardly anything was packed"
    await relay.flush()
    assert sorted(await stored_ids(broker.jetstream, EVENTS)) == sorted(event.message_id for event in events)
    assert await count(order, TABLE) == 0


# --- a packet and a crash ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["committed", "published"])
async def test_a_crash_sends_the_same_packets_again_whole(order: Database, broker: Broker, point: str) -> None:
    clock = VirtualClock()
    dying = outbox_on(order, "order", clock=clock, faults=Journal(point))
    relay = Relay(dying, broker)
    sent = [(f"{SUBJECT}.{number % 2}", envelope(f"e-{number}")) for number in range(40)]

    async def commit_and_publish() -> None:
        await commit(dying, *sent)
        await relay.flush()

    with pytest.raises(Killed):
        await commit_and_publish()
    packets = await packets_in(order)
    assert len(packets) == 2

    clock.time += GRACE
    async with relaying(outbox_on(order, "order", clock=clock), broker):
        await until_empty(order, TABLE)
    arrived = [(one.subject, list(one.events)) for one in await stored(broker.jetstream, EVENTS)]
    wanted = [(one.subject, unpacked(one.body)) for one in packets]
    assert sorted(arrived, key=lambda one: one[0]) == sorted(wanted, key=lambda one: one[0])


async def test_nothing_of_a_packet_arrives_when_its_transaction_did_not_commit(order: Database, broker: Broker) -> None:
    clock = VirtualClock()
    dying = outbox_on(order, "order", clock=clock, faults=Journal("before-commit"))
    relay = Relay(dying, broker)
    with pytest.raises(Killed):
        await commit(dying, *((SUBJECT, envelope(f"e-{number}")) for number in range(40)))
    await relay.flush()
    clock.time += GRACE
    assert await relay.sweep() == 0
    assert await stored_ids(broker.jetstream, EVENTS) == []


def reserving(*numbers: int) -> list[tuple[str, Envelope]]:
    lines = (StockLine(sku="tea", quantity=1),)
    return [
        (RESERVE, asks(ReserveStock(reservation_id=f"r-{number}", lines=lines), f"r-{number}/reserve-stock/do"))
        for number in numbers
    ]


async def test_every_event_of_a_packet_that_comes_again_is_applied_once(
    open_database: OpenDatabase, order: Database, nats: EmbeddedNats, broker: Broker
) -> None:
    """The sender dies after publishing, and the broker loses all it knew, the ids too: so the packet comes twice."""
    clock = VirtualClock()
    dying = outbox_on(order, "order", clock=clock, faults=Journal("published"))
    relay = Relay(dying, broker)
    inventory = await open_database("inventory")
    await seed_stock(inventory, {"tea": 100})
    await commit(dying, *reserving(*range(20)))
    with pytest.raises(Killed):
        await relay.flush()
    async with serving(inventory_service(nats, await open_database("inventory"))):
        first = await answers(broker, 20)
        await asyncio.to_thread(nats.kill)
        nats.wipe()
        await asyncio.to_thread(nats.start)
        await eventually(lambda: has_streams(broker), "the streams are back")
        clock.time += GRACE
        async with relaying(outbox_on(order, "order", clock=clock), broker):
            await until_empty(order, TABLE)
        assert await answers(broker, 20) == first
        [packet] = await stored(broker.jetstream, COMMANDS)
        assert len(packet.events) == 20
        assert await stored(broker.jetstream, EVENTS) == [], "an event was told again"
    await check_reserved(inventory, 20)


async def test_of_a_packet_only_what_is_not_known_yet_is_applied(
    open_database: OpenDatabase, nats: EmbeddedNats, broker: Broker
) -> None:
    inventory = await open_database("inventory")
    await seed_stock(inventory, {"tea": 100})
    async with serving(inventory_service(nats, await open_database("inventory"))):
        for one in reserving(3, 4, 11):
            await send(broker.jetstream, *one)
        await answers(broker, 3)
        await send(broker.jetstream, RESERVE, *(event for _, event in reserving(*range(12), 5, 3)))
        await answers(broker, 3 + 12)

        async def is_settled() -> bool:
            return await unsettled(broker.jetstream, INLET) == 0

        await eventually(is_settled, "the packet is acknowledged")
    await check_reserved(inventory, 12)


def inventory_service(nats: EmbeddedNats, database: Database) -> Service:
    """A replica of the inventory, which closes its database."""
    outbox = outbox_on(database, "inventory", grace=timedelta(seconds=1))
    processor = CommandProcessor(PARTICIPANTS["inventory"], database)
    return Service("inventory", courier=NatsCourier(nats.url, "inventory"), inlets={INLET: processor}, outbox=outbox)


async def has_streams(broker: Broker) -> bool:
    return broker.is_connected and await Topology(INLET).ensure(broker.jetstream) == []


async def answers(broker: Broker, how_many: int) -> Counter[str]:
    """The ids of the replies that are in the stream, once there are so many."""

    async def found() -> Counter[str]:
        replies = [event.id for one in await stored(broker.jetstream, REPLY_STREAM) for event in one.events]
        return Counter(replies) if len(replies) >= how_many else Counter()

    return await eventually(found, f"{how_many} commands are answered")


async def check_reserved(inventory: Database, how_many: int) -> None:
    """Each command has reserved one tea, once."""
    [stock] = await rows_of(inventory, Stock.table)
    assert (stock.available, stock.reserved) == (100 - how_many, how_many)
    assert await count(inventory, Reservation.table) == await count(inventory, messaging("inventory").inbox) == how_many


async def test_sagas_whose_first_packet_was_left_behind_all_complete(
    database_urls: DatabaseUrls, nats: EmbeddedNats
) -> None:
    """Thirty sagas are accepted in one transaction, by a process that dies before it publishes anything."""
    async with World(database_urls, nats.url) as world:
        desk = world.desk(faults=Journal("committed"))
        with pytest.raises(Killed):
            await desk.engine.start([desk.engine.request("place-order", an_order()) for _ in range(30)])
        saga_ids = [saga.id for saga in await world.sagas()]
        assert len(await world.outgoing()) == 60

        await world.start(*ROLES)
        assert set(await world.until_ended(saga_ids)) == {"completed"}
        assert await world.findings() == []
        for saga_id in saga_ids:
            assert (await world.log(saga_id)).count("done open-order") == 1


# --- what the relay holds ----------------------------------------------------------------------------------------


class CountingBroker(Broker):
    """Notes the ids of what it was asked to publish."""

    def __init__(self, url: str) -> None:
        super().__init__(url, name="test")
        self.asked: list[str] = []

    async def publish(self, packets: Sequence[Packet]) -> list[Packet]:
        self.asked += [packet.message_id for packet in packets]
        return await super().publish(packets)


class SlowBroker(CountingBroker):
    """Publishes nothing before it is let."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.answers = asyncio.Event()

    async def publish(self, packets: Sequence[Packet]) -> list[Packet]:
        self.asked += [packet.message_id for packet in packets]
        await self.answers.wait()
        return await Broker.publish(self, packets)


@pytest.fixture
async def slow_broker(nats: EmbeddedNats, broker: Broker) -> AsyncIterator[SlowBroker]:
    slow = SlowBroker(nats.url)
    await slow.connect()
    yield slow
    await slow.close()


async def was_asked(broker: CountingBroker) -> bool:
    return bool(broker.asked)


def apart(number: int, size: int = 0) -> list[tuple[str, Envelope]]:
    """So many events, each on a subject of its own: so many rows. `size` is that of its data."""
    return [(f"{SUBJECT}.{one:02}", envelope(f"{one:02}", text="x" * size)) for one in range(number)]


async def test_of_too_many_rows_some_wait_in_the_table_and_are_swept(
    order: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "IN_HAND", 3)
    monkeypatch.setattr(relay_module, "SWEEP_ROWS", 2)
    clock = VirtualClock()
    outbox = outbox_on(order, "order", clock=clock)
    relay = Relay(outbox, broker)
    await commit(outbox, *apart(10))
    await relay.flush()
    assert await stored_ids(broker.jetstream, EVENTS) == ["00:1", "01:1", "02:1"]
    assert await count(order, TABLE) == 7

    clock.time += GRACE
    async with relaying(outbox_on(order, "order", clock=clock), broker):
        await until_empty(order, TABLE)
    assert sorted(await stored_ids(broker.jetstream, EVENTS)) == [f"{number:02}:1" for number in range(10)]


async def test_of_too_large_rows_some_wait_in_the_table(
    order: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in hand is never more than the bound and one packet."""
    monkeypatch.setattr(relay_module, "IN_HAND_BYTES", 100_000)
    outbox = outbox_on(order, "order")
    relay = Relay(outbox, broker)
    for number in range(2):  # what was published takes no room any more
        await commit(outbox, *apart(5, size=40_000))
        await relay.flush()
        assert await stored_ids(broker.jetstream, EVENTS) == ["00:1", "01:1", "02:1"], number
        assert [packet.message_id for packet in await packets_in(order)] == ["03:1", "04:1"]


async def test_nothing_is_claimed_while_there_is_no_room_for_it(
    order: Database, slow_broker: SlowBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is claimed and dropped would wait for the grace again: here, where time stands still, for ever."""
    monkeypatch.setattr(relay_module, "IN_HAND_BYTES", 1)
    monkeypatch.setattr(relay_module, "SWEEP_ROWS", 1)
    monkeypatch.setattr(relay_module, "SWEEP_EVERY", 0.01)
    clock = VirtualClock()
    await commit(outbox_on(order, "order", clock=clock), *apart(5))  # no relay listens to this one: it died
    outbox = outbox_on(order, "order", clock=clock)
    async with relaying(outbox, slow_broker):
        await commit(outbox, (SUBJECT, envelope("leaving")))
        await eventually(lambda: was_asked(slow_broker), "the broker was asked to publish")
        await commit(outbox, (SUBJECT, envelope("waiting")))
        clock.time += GRACE
        await asyncio.sleep(20 * relay_module.SWEEP_EVERY)  # time to go wrong in
        slow_broker.answers.set()
        await until_empty(order, TABLE)
    assert len(await stored_ids(slow_broker.jetstream, EVENTS)) == 7


async def test_what_is_being_published_is_not_sent_again(
    order: Database, slow_broker: SlowBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although it is overdue, and the sweep meets it again and again."""
    monkeypatch.setattr(relay_module, "SWEEP_EVERY", 0.01)
    clock = VirtualClock()
    outbox = outbox_on(order, "order", clock=clock, grace=timedelta(0))
    async with relaying(outbox, slow_broker):
        await commit(outbox, (SUBJECT, envelope("slow")))
        await eventually(lambda: was_asked(slow_broker), "the broker was asked to publish")
        reads = clock.reads
        await eventually(lambda: was_read(clock, reads + 10), "some sweeps")
        slow_broker.answers.set()
        await until_empty(order, TABLE)
    assert slow_broker.asked == ["slow:1"]


async def test_what_was_stored_and_not_yet_deleted_is_not_sent_again(
    order: Database, nats: EmbeddedNats, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are deleted now and then, together. A sweep that meets them meanwhile knows them."""
    monkeypatch.setattr(relay_module, "CLEAN_EVERY", 3600.0)
    monkeypatch.setattr(relay_module, "SWEEP_EVERY", 0.01)
    clock = VirtualClock()
    counting = CountingBroker(nats.url)
    await counting.connect()
    outbox = outbox_on(order, "order", clock=clock, grace=timedelta(0))
    try:
        async with relaying(outbox, counting) as relay:
            await commit(outbox, (SUBJECT, envelope("first")))
            await until_empty(order, TABLE)
            for number in range(5):
                await commit(outbox, (SUBJECT, envelope(f"e-{number}")))
            await eventually(lambda: has_events(broker, 6), "all are in the stream")
            reads = clock.reads
            await eventually(lambda: was_read(clock, reads + 10), "some sweeps")
            assert await count(order, TABLE) == 5
            await relay.clean()
            assert await count(order, TABLE) == 0
        assert counting.asked == ["first:1", *(f"e-{number}:1" for number in range(5))]
    finally:
        await counting.close()


async def has_events(broker: Broker, how_many: int) -> bool:
    return len(await stored_ids(broker.jetstream, EVENTS)) == how_many


async def was_read(clock: VirtualClock, times: int) -> bool:
    return clock.reads >= times
