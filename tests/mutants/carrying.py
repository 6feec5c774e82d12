"""Mistakes in carrying: unit of work, intake, pump, relay, envelope, topology."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import delete, select, text, update

from outbox.delivery import Delivery
from outbox.envelope import Envelope, Packet, Unreadable, pack
from outbox.intake import AT_ONCE, SLACK, Intake
from outbox.pump import Again, Pump, Received
from outbox.relay import SWEEP_ROWS, Relay
from outbox.topology import Topology
from outbox.unit_of_work import Outbox, UnitOfWork
from tests.mutants.planting import Bug

RIGHT_COMMIT = Pump._commit
RIGHT_ENSURE_CONSUMER = Topology._ensure_consumer


async def _acknowledge_first(pump: Any, deliveries: Sequence[Delivery]) -> None:
    pump._outbox.reach("received")
    for delivery in deliveries:
        await delivery.ack()
    await RIGHT_COMMIT(pump, deliveries)


async def _a_failed_batch_is_done(pump: Any, deliveries: Sequence[Delivery]) -> Again:
    try:
        async with pump._outbox.unit_of_work() as unit:
            await pump._processor.process(unit, _sorted(deliveries))
    except Exception:
        return {}
    return {}


async def _an_outage_is_an_answer(pump: Any, deliveries: Sequence[Delivery], error: Exception) -> Again:
    return {}


async def _half_a_batch(pump: Any, deliveries: Sequence[Delivery]) -> Again:
    return await RIGHT_COMMIT(pump, deliveries[:1])


async def _bury_what_comes_often(pump: Any, deliveries: Sequence[Delivery]) -> Again:
    """As if how often a message was delivered said anything about it."""
    async with pump._outbox.unit_of_work() as unit:
        for event in _sorted(deliveries):
            unit.bury(event.dead_letter("it comes again and again"))
    return {}


def _sorted(deliveries: Sequence[Delivery]) -> list[Received]:
    events = [(one, event) for one in deliveries for event in one.events if not isinstance(event, Unreadable)]
    return [Received(event, one.subject, one.deliveries) for one, event in events]


@asynccontextmanager
async def _hand_over_first(outbox: Any) -> AsyncIterator[UnitOfWork]:
    async with outbox.database.transaction() as connection:
        unit = UnitOfWork(connection, outbox.clock.now())
        yield unit
        packets = pack(unit.outgoing.values())
        outbox._committed(packets)
        await outbox._write(unit, packets)
        outbox.reach("before-commit")
    outbox.reach("committed")


@asynccontextmanager
async def _write_twice(outbox: Any) -> AsyncIterator[UnitOfWork]:
    """The change in one transaction, the messages that speak of it in another."""
    async with outbox.database.transaction() as connection:
        unit = UnitOfWork(connection, outbox.clock.now())
        yield unit
        packets = pack(unit.outgoing.values())
        await unit.writes.flush(connection)
    outbox.reach("before-commit")
    async with outbox.database.transaction() as connection:
        later = UnitOfWork(connection, outbox.clock.now(), dead_letters=unit.dead_letters)
        await outbox._write(later, packets)
    outbox.reach("committed")
    outbox._committed(packets)


async def _delete_first(relay: Any, packets: Sequence[Packet]) -> None:
    relay._sent.update(packet.message_id for packet in packets)
    await relay.clean()
    await relay._broker.publish(packets)


async def _believe_in_all(relay: Any, packets: Sequence[Packet]) -> None:
    try:
        await relay._broker.publish(packets)
    finally:
        relay._sent.update(packet.message_id for packet in packets)
        relay._clean_up.set()


async def _clean_everything(relay: Any) -> None:
    relay._sent.clear()
    async with relay._outbox.database.transaction() as connection:
        await connection.execute(delete(relay._outbox.tables.outbox))


async def _never_sweep(_relay: Any) -> int:
    return 0


async def _sweep_by_number(relay: Any) -> int:
    """From the last row that was seen, as if numbers were given in the order of the commits."""
    table, last = relay._outbox.tables.outbox, getattr(relay, "last_seen", 0)
    query = select(text("rowid"), table.c.message_id, table.c.subject, table.c.body)
    query = query.where(text(f"rowid > {int(last)}")).order_by(text("rowid")).limit(SWEEP_ROWS)
    later = relay._outbox.clock.now() + relay._outbox.grace
    async with relay._outbox.database.transaction() as connection:
        rows = list(await connection.execute(query))
        await connection.execute(update(table).values(due_at=later))
    if rows:
        relay.last_seen = rows[-1][0]
    relay.hand_over([Packet(*row[1:]) for row in rows])
    return len(rows)


async def _never_make_a_consumer_again(topology: Any, stream: Any, inlet: Any) -> list[str]:
    made = stream._broker.witness.__dict__.setdefault("made", set())  # what lives as long as the broker
    if inlet in made:
        return []
    made.add(inlet)
    return await RIGHT_ENSURE_CONSUMER(topology, stream, inlet)


async def _ask_nobody_after_a_pause(intake: Any) -> list[Delivery]:
    """Whoever was held up while its queue was empty waits for what it has not asked for."""
    deliveries = [Delivery(await intake._queue.get())]
    intake._room.set()
    return deliveries


async def _wait_for_every_answer(intake: Any) -> float:
    """A request that was lost is never answered."""
    await intake._room.wait()
    await intake._subscription.open(intake)
    if not intake._subscription.is_up:
        return SLACK
    intake._asked += 1
    intake._missing = AT_ONCE
    intake._answered.clear()
    await intake._subscription.ask(intake._asked, intake._missing, intake._expires)
    await intake._answered.wait()
    return 0.0


def _without_attempt(envelope: Envelope) -> str:
    return envelope.id


BUGS = (
    Bug("acknowledged before the commit", ((Pump, "handle", _acknowledge_first),), plain=True),
    Bug("whoever was held up asks no more", ((Intake, "take", _ask_nobody_after_a_pause),)),
    Bug("a lost request is waited for without end", ((Intake, "_ask", _wait_for_every_answer),)),
    Bug("a failed batch is acknowledged", ((Pump, "_commit", _a_failed_batch_is_done),)),
    Bug("half a batch is acknowledged unseen", ((Pump, "_commit", _half_a_batch),)),
    Bug("an outage of the database costs the batch", ((Pump, "_outlast", _an_outage_is_an_answer),)),
    Bug("what is delivered often is buried", ((Pump, "_commit_with_care", _bury_what_comes_often),)),
    Bug("handed over before the commit", ((Outbox, "unit_of_work", _hand_over_first),)),
    Bug("change and messages in two transactions", ((Outbox, "unit_of_work", _write_twice),)),
    Bug("the relay deletes before it publishes", ((Relay, "publish", _delete_first),), plain=True),
    Bug("a publish that failed counts as one that did not", ((Relay, "publish", _believe_in_all),)),
    Bug("the relay cleans up more than it has sent", ((Relay, "clean", _clean_everything),), plain=True),
    Bug("what a crash left behind is not swept up", ((Relay, "sweep", _never_sweep),), plain=True),
    Bug("the relay goes by number, not by state", ((Relay, "sweep", _sweep_by_number),)),
    Bug("a lost consumer is not made again", ((Topology, "_ensure_consumer", _never_make_a_consumer_again),)),
    Bug("the message id is without the attempt", ((Envelope, "message_id", property(_without_attempt)),), plain=True),
)
