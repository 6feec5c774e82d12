"""The relay: what was committed reaches the broker, whatever happens in between."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from migrations.runner import upgrade
from orchestrator.embedded.nats_server import EmbeddedNats
from outbox import broker as broker_module
from outbox import relay as relay_module
from outbox.broker import Broker
from outbox.database import Database
from outbox.envelope import BATCH, SINGLE, Packet
from outbox.errors import BrokerOutOfReach, DatabaseOutOfReach, MessageTooLarge
from outbox.outages import Outages, report_to
from outbox.relay import Relay, lane_to
from outbox.topology import COMMANDS, EVENTS, Topology
from outbox.unit_of_work import MAX_MESSAGE_BYTES, Outbox
from tests.support.messaging import (
    Journal,
    Killed,
    OpenDatabase,
    VirtualClock,
    count,
    courier,
    envelope,
    messaging,
    outbox_on,
    relaying,
    rows_of,
    stored,
    stored_ids,
    unpacked,
    until_empty,
)
from tests.support.outages import breakable_database
from tests.support.waiting import eventually

SUBJECT = "saga.event.test.noted"
TABLE = messaging("order").outbox
SOON = timedelta(seconds=0.2)


@pytest.fixture
async def order(open_database: OpenDatabase) -> Database:
    return await open_database("order")


@pytest.fixture
async def broker(nats: EmbeddedNats) -> AsyncIterator[Broker]:
    async with courier(nats.url) as connected:
        yield connected


class CountingBroker(Broker):
    """Counts how often it was asked to publish."""

    asked = 0

    async def publish(self, packets: Sequence[Packet]) -> list[Packet]:
        self.asked += 1
        return await super().publish(packets)


async def commit(outbox: Outbox, *ids: str, subject: str = SUBJECT) -> list[str]:
    """Commit one event for each id, and return their message ids."""
    events = [envelope(id) for id in ids]
    async with outbox.unit_of_work() as unit:
        for event in events:
            unit.send(subject, event)
    return [event.message_id for event in events]


async def commit_apart(outbox: Outbox, *ids: str) -> list[str]:
    """The same, each event on a subject of its own: so many rows."""
    events = [envelope(id) for id in ids]
    async with outbox.unit_of_work() as unit:
        for event in events:
            unit.send(f"{SUBJECT}.{event.id}", event)
    return [event.message_id for event in events]


async def fail_to_commit(outbox: Outbox, id: str) -> None:
    async with outbox.unit_of_work() as unit:
        unit.send(SUBJECT, envelope(id))
        raise ZeroDivisionError


async def waiting(database: Database) -> list[str]:
    """The message ids of the events that are in the table."""
    return [event.message_id for row in await rows_of(database, TABLE) for event in unpacked(row.body)]


async def events_in(broker: Broker) -> list[str]:
    return await stored_ids(broker.jetstream, EVENTS)


# --- what was committed arrives ----------------------------------------------------------------------------------


async def test_what_is_committed_arrives_and_leaves_the_table(order: Database, broker: Broker) -> None:
    outbox = outbox_on(order, "order")
    async with relaying(outbox, broker):
        sent = [*await commit(outbox, "a"), *await commit(outbox, "b", "c")]
        await until_empty(order, TABLE)
    assert sorted(await events_in(broker)) == sent == ["a:1", "b:1", "c:1"]


async def test_nothing_arrives_of_a_block_that_raises(order: Database, broker: Broker) -> None:
    outbox = outbox_on(order, "order")
    async with relaying(outbox, broker):
        with pytest.raises(ZeroDivisionError):
            await fail_to_commit(outbox, "never")
        await commit(outbox, "later")
        await until_empty(order, TABLE)
    assert await events_in(broker) == ["later:1"]


async def test_events_of_one_subject_arrive_as_one_message_in_their_order(order: Database, broker: Broker) -> None:
    outbox = outbox_on(order, "order")
    relay = Relay(outbox, broker)
    await commit(outbox, *"dacb")
    await commit(outbox, "z", subject="saga.event.test.other")
    await relay.flush()
    messages = [(m.subject, m.content_type, m.ids) for m in await stored(broker.jetstream, EVENTS)]
    assert sorted(messages) == [
        (SUBJECT, BATCH, ("d:1", "a:1", "c:1", "b:1")),
        ("saga.event.test.other", SINGLE, ("z:1",)),
    ]
    assert await count(order, TABLE) == 0


async def test_a_message_that_was_sent_before_is_not_sent_again(order: Database, broker: Broker) -> None:
    outbox = outbox_on(order, "order")
    relay = Relay(outbox, broker)
    for _ in range(2):
        await commit(outbox, "a")
        await relay.flush()
    assert await events_in(broker) == ["a:1"]


# --- what a crash left behind ------------------------------------------------------------------------------------


async def test_what_a_crash_left_behind_is_swept_after_the_grace_and_not_before(
    order: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "SWEEP_EVERY", 0.01)
    clock = VirtualClock()
    await commit_apart(outbox_on(order, "order", clock=clock), *"abc")  # no relay listens to this one: it died
    clock.time += timedelta(seconds=5) - timedelta(microseconds=1)

    async with relaying(outbox_on(order, "order", clock=clock), broker):
        before = clock.reads

        async def has_swept() -> bool:
            return clock.reads >= before + 5

        await eventually(has_swept, "some sweeps")
        assert await events_in(broker) == []
        assert await count(order, TABLE) == 3

        clock.time += timedelta(microseconds=1)
        await until_empty(order, TABLE)
    assert sorted(await events_in(broker)) == ["a:1", "b:1", "c:1"]


async def test_a_death_between_publishing_and_deleting_sends_again_under_the_same_id(
    order: Database, broker: Broker
) -> None:
    clock = VirtualClock()
    dying = outbox_on(order, "order", clock=clock, faults=Journal("published"))
    relay = Relay(dying, broker)
    await commit_apart(dying, *"abc")
    with pytest.raises(Killed):
        await relay.flush()
    assert sorted(await events_in(broker)) == await waiting(order) == ["a:1", "b:1", "c:1"]

    clock.time += timedelta(seconds=5)
    async with relaying(outbox_on(order, "order", clock=clock), broker):
        await until_empty(order, TABLE)
    assert sorted(await events_in(broker)) == ["a:1", "b:1", "c:1"]


async def test_two_relays_that_sweep_at_once_send_everything_once(
    open_database: OpenDatabase, nats: EmbeddedNats, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "SWEEP_ROWS", 50)
    clock = VirtualClock()
    one, other = await open_database("order"), await open_database("order")
    sent = await commit_apart(outbox_on(one, "order", clock=clock), *(f"{number:04}" for number in range(2000)))
    clock.time += timedelta(seconds=5)
    async with (
        courier(nats.url) as second,
        relaying(outbox_on(one, "order", clock=clock), broker),
        relaying(outbox_on(other, "order", clock=clock), second),
    ):
        await until_empty(one, TABLE)
    assert sorted(await events_in(broker)) == sent


async def test_claims_take_at_most_so_many_and_no_row_twice(
    order: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "SWEEP_ROWS", 50)
    clock = VirtualClock()
    outbox = outbox_on(order, "order", clock=clock)
    await commit_apart(outbox, *map(str, range(120)))
    clock.time += timedelta(seconds=5)
    relays = [Relay(outbox_on(order, "order", clock=clock), broker) for _ in range(4)]
    claims = await asyncio.gather(*(relay.sweep() for relay in relays))
    assert (sum(claims), max(claims)) == (120, 50)
    assert await relays[0].sweep() == 0


# --- the broker is away ------------------------------------------------------------------------------------------


async def test_an_outage_of_the_broker_loses_nothing_and_ends_by_itself(
    order: Database, nats: EmbeddedNats, broker: Broker
) -> None:
    outbox = outbox_on(order, "order", grace=SOON)
    async with relaying(outbox, broker):
        sent = await commit(outbox, "before")
        await until_empty(order, TABLE)
        await asyncio.to_thread(nats.stop)
        for number in range(50):
            sent += await commit(outbox, f"during-{number}")
        assert await count(order, TABLE) == 50
        await asyncio.to_thread(nats.start)
        sent += await commit(outbox, "after")
        await until_empty(order, TABLE)
    assert set(await events_in(broker)) == set(sent)


async def test_a_broker_that_lost_its_store_is_given_everything_when_its_streams_are_back(
    order: Database, nats: EmbeddedNats
) -> None:
    broker = CountingBroker(nats.url, name="test")
    await broker.connect()
    await Topology().ensure(broker.jetstream)
    outbox = outbox_on(order, "order", grace=SOON)
    try:
        async with relaying(outbox, broker):
            await asyncio.to_thread(nats.kill)
            sent = await commit_apart(outbox, *map(str, range(50)))
            nats.wipe()
            await asyncio.to_thread(nats.start)
            before = broker.asked

            async def has_tried() -> bool:
                return broker.is_connected and broker.asked >= before + 2

            await eventually(has_tried, "the relay has tried with no stream there")
            assert await count(order, TABLE) == 50
            assert len(await Topology().ensure(broker.jetstream)) == 3
            await until_empty(order, TABLE)
        assert set(await events_in(broker)) == set(sent)
    finally:
        await broker.close()


async def test_flush_says_that_the_broker_is_away_and_keeps_the_rows(
    order: Database, nats: EmbeddedNats, broker: Broker
) -> None:
    outbox = outbox_on(order, "order")
    relay = Relay(outbox, broker)
    await asyncio.to_thread(nats.stop)
    await commit(outbox, "a")
    with pytest.raises(BrokerOutOfReach, match=r"out of reach|took no message"):
        await relay.flush()
    assert [row.message_id for row in await rows_of(order, TABLE)] == ["a:1"]


async def test_only_what_the_broker_has_stored_is_deleted(order: Database, broker: Broker) -> None:
    outbox = outbox_on(order, "order")
    relay = Relay(outbox, broker)
    await commit(outbox, "heard")
    await commit(outbox, "unheard", subject="no.stream.listens")
    await relay.flush()
    assert [row.message_id for row in await rows_of(order, TABLE)] == ["unheard:1"]
    assert await events_in(broker) == ["heard:1"]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_what_could_not_be_deleted_is_deleted_when_the_database_is_back(
    kind: str, tmp_path: Path, broker: Broker
) -> None:
    with breakable_database(kind, tmp_path) as breakable:
        database = breakable.open()
        await upgrade(database, "order")
        outbox = outbox_on(database, "order")
        relay = Relay(outbox, broker)
        await commit_apart(outbox, *"abc")
        async with breakable.outage():
            with pytest.raises(DatabaseOutOfReach):
                await relay.flush()
        assert await count(database, TABLE) == 3
        await relay.clean()
        assert await count(database, TABLE) == 0
        await database.close()
    assert sorted(await events_in(broker)) == ["a:1", "b:1", "c:1"]


async def test_a_message_that_nobody_stores_does_not_hold_up_the_others(order: Database, broker: Broker) -> None:
    outbox = outbox_on(order, "order", grace=timedelta(0))
    async with relaying(outbox, broker):
        await commit(outbox, "unheard", subject="no.stream.listens")
        for number in range(5):
            await commit(outbox, f"heard-{number}")

            async def has_arrived(id: str = f"heard-{number}:1") -> bool:
                return id in await events_in(broker)

            await eventually(has_arrived, "the next one has arrived")

        async def is_left_alone() -> bool:
            return await waiting(order) == ["unheard:1"]

        await eventually(is_left_alone, "only what nobody stores is left")


# --- sizes -------------------------------------------------------------------------------------------------------


def padded(size: int, character: str = "x") -> str:
    """A text that makes an event of about this many bytes, and not more."""
    room = size - len(envelope("large", text="").encode())
    return character * (room // len(character.encode()))


async def test_the_largest_message_that_is_accepted_arrives(order: Database, broker: Broker) -> None:
    outbox = outbox_on(order, "order")
    relay = Relay(outbox, broker)
    async with outbox.unit_of_work() as unit:
        unit.send(SUBJECT, envelope("large", text=padded(MAX_MESSAGE_BYTES)))
    await relay.flush()
    [message] = await stored(broker.jetstream, EVENTS)
    assert len(message.events[0].encode()) == MAX_MESSAGE_BYTES


@pytest.mark.parametrize("character", ["x", "é", "茶", "🍵"])
async def test_a_message_above_the_limit_is_refused_before_it_is_a_row(order: Database, character: str) -> None:
    outbox = outbox_on(order, "order")
    small, large = envelope("small"), envelope("large", text=padded(MAX_MESSAGE_BYTES + 4, character) + "xxxx")

    async def write() -> None:
        async with outbox.unit_of_work() as unit:
            unit.send(SUBJECT, small)
            unit.send(SUBJECT, large)

    with pytest.raises(MessageTooLarge, match=r"message large has 92\d,\d+ bytes, the limit is 921,600: send a ref"):
        await write()
    assert await count(order, TABLE) == 0


async def test_many_large_messages_are_not_packed_into_one_that_is_too_large(order: Database, broker: Broker) -> None:
    outbox = outbox_on(order, "order")
    relay = Relay(outbox, broker)
    async with outbox.unit_of_work() as unit:
        for number in range(5):
            unit.send(SUBJECT, envelope(f"large-{number}", text=padded(MAX_MESSAGE_BYTES // 3)))
    await relay.flush()
    assert sorted(await events_in(broker)) == [f"large-{number}:1" for number in range(5)]


async def test_a_stream_that_takes_nothing_holds_up_no_other(
    order: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by chaos: a store was deleted under its server, one stream took no more, and all sagas waited for it."""
    monkeypatch.setattr(broker_module, "PUBLISH_TIMEOUT", 60.0)
    await Topology().ensure(broker.jetstream)
    silent = (await broker.jetstream.stream_info(EVENTS)).config
    await broker.jetstream.delete_stream(EVENTS)
    await broker.jetstream.add_stream(replace(silent, no_ack=True))
    outbox = outbox_on(order, "order", grace=timedelta(hours=1))
    async with relaying(outbox, broker):
        await commit(outbox, "unheard")
        await eventually(lambda: _is_stored(broker, EVENTS), "the event is on its way, and nobody says that it arrived")
        await commit(outbox, "heard", subject="saga.cmd.order.test")
        await eventually(lambda: _is_stored(broker, COMMANDS), "the command has arrived")


class Moody:
    """A broker that takes its time over the first publication, and is away at the second."""

    is_connected = True

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.go_on = asyncio.Event()

    async def publish(self, packets: Sequence[Packet]) -> list[Packet]:
        self.asked.append([packet.message_id for packet in packets])
        if len(self.asked) == 1:
            await self.go_on.wait()
        if len(self.asked) == 2:
            raise BrokerOutOfReach("NATS took no message")
        return list(packets)


async def test_an_outage_does_not_outlive_what_could_not_be_sent(order: Database) -> None:
    """Found by the simulation. A command whose commit takes longer than the grace is handed over twice: by the sweep
    and by its own process. It is sent, and then it is not: with nothing left to send nobody would ever notice that
    the broker is back, and no timer would fire until then.
    """
    outages = Outages()
    report_to(outages)
    outbox, broker = outbox_on(order, "order", grace=timedelta(hours=1)), Moody()
    packet = Packet("m-1", "saga.cmd.order.test", "{}")
    async with relaying(outbox, broker) as relay:
        relay.hand_over([packet])

        async def has_asked(times: int) -> bool:
            return len(broker.asked) == times

        await eventually(partial(has_asked, 1), "it is on its way")
        relay.hand_over([packet])
        broker.go_on.set()
        await eventually(partial(has_asked, 2), "it is sent again")
        await asyncio.sleep(0.1)
        assert not outages.are_noticed_by(lane_to(COMMANDS))


async def test_a_full_lane_holds_up_no_other(order: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a stream that takes nothing fills the memory for that stream, and stays in the table."""
    monkeypatch.setattr(relay_module, "IN_HAND", 3)
    monkeypatch.setattr(broker_module, "PUBLISH_TIMEOUT", 60.0)
    await Topology().ensure(broker.jetstream)
    silent = (await broker.jetstream.stream_info(EVENTS)).config
    await broker.jetstream.delete_stream(EVENTS)
    await broker.jetstream.add_stream(replace(silent, no_ack=True))
    left_behind = outbox_on(order, "order", clock=(clock := VirtualClock()))
    await commit(left_behind, "swept", subject="saga.cmd.order.test")  # no relay listens to this one: it died
    outbox = outbox_on(order, "order", clock=clock)
    async with relaying(outbox, broker):
        await commit(outbox, "unheard")
        await eventually(lambda: _is_stored(broker, EVENTS), "the event is on its way, and nobody says that it arrived")
        for number in range(5):
            await commit(outbox, f"waiting-{number}")
        clock.time += outbox.grace
        await commit(outbox, "handed-over", subject="saga.cmd.order.test")

        async def both_are_there() -> bool:
            return len(await stored_ids(broker.jetstream, COMMANDS)) == 2

        await eventually(both_are_there, "commands arrive, those just committed and those left behind")


async def _is_stored(broker: Broker, stream: str) -> bool:
    return bool(await stored_ids(broker.jetstream, stream))
