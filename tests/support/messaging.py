"""Messaging under test: migrated databases, envelopes to send, and a look at what the broker and the tables hold."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from sqlalchemy import Row, Table, func, select

from migrations.registry import MODELS
from outbox.broker import Broker
from outbox.clock import Clock, DatabaseClock
from outbox.contracts import Command
from outbox.courier import Publisher
from outbox.database import Database
from outbox.envelope import BATCH, SINGLE, Envelope, decode
from outbox.faults import Faults, NoFaults
from outbox.relay import Relay
from outbox.service import Service
from outbox.tables import MessagingTables
from outbox.topology import Inlet, Topology
from outbox.unit_of_work import Outbox
from tests.support.servers import DatabaseUrls, Role
from tests.support.waiting import eventually

DAWN = datetime(2026, 1, 1, tzinfo=UTC)
REPLIES = "saga.reply.test"

OpenDatabase = Callable[[Role], Awaitable[Database]]


@asynccontextmanager
async def opened(urls: DatabaseUrls) -> AsyncIterator[OpenDatabase]:
    """Doors to migrated databases: another one at every call, as another replica has it."""
    async with AsyncExitStack() as doors:

        async def door(role: Role) -> Database:
            database = Database(await urls.migrated(role))
            doors.push_async_callback(database.close)
            return database

        yield door


def messaging(role: Role) -> MessagingTables:
    """The messaging tables of one role."""
    tables = MODELS[role].tables
    return MessagingTables(*(tables[one.name] for one in fields(MessagingTables)))


def outbox_on(
    database: Database,
    role: Role,
    *,
    clock: Clock | None = None,
    faults: Faults | None = None,
    grace: timedelta = timedelta(seconds=5),
) -> Outbox:
    """The outbox of one replica."""
    return Outbox(
        database, messaging(role), clock=clock or DatabaseClock(), faults=faults or NoFaults(), role=role, grace=grace
    )


@dataclass
class VirtualClock:
    """Time moves when it is told to. Counts how often it was asked."""

    time: datetime = DAWN
    reads: int = 0

    def now(self) -> datetime:
        self.reads += 1
        return self.time

    async def sync(self, database: Database) -> None:
        pass


class Killed(BaseException):
    """Ends what it is raised in, as the end of the process would: nobody handles it."""


@dataclass
class Journal:
    """Crash points, and whatever else a test notes, in the order in which they were passed. Raises once, at one."""

    dies_at: str = ""
    error: type[BaseException] = Killed
    entries: list[str] = field(default_factory=list)

    def reach(self, point: str) -> None:
        self.entries.append(point.partition(".")[2])
        if self.entries[-1] == self.dies_at:
            self.dies_at = ""
            raise self.error(f"killed at {point}")


# --- tables ------------------------------------------------------------------------------------------------------


async def rows_of(database: Database, table: Table) -> Sequence[Row[Any]]:
    """All rows, by primary key."""
    async with database.reading() as connection:
        return (await connection.execute(select(table).order_by(*table.primary_key.columns))).all()


async def count(database: Database, table: Table) -> int:
    """How many rows."""
    async with database.reading() as connection:
        return (await connection.execute(select(func.count()).select_from(table))).scalar_one()


async def until_empty(database: Database, table: Table) -> None:
    """Wait until it has no rows."""

    async def is_empty() -> bool:
        return await count(database, table) == 0

    await eventually(is_empty, f"{table.name} is empty")


# --- messages ----------------------------------------------------------------------------------------------------


def unpacked(body: str) -> list[Envelope]:
    """The events of a row of the outbox, in their order."""
    events = decode(body.encode())
    unreadable = [event for event in events if not isinstance(event, Envelope)]
    if unreadable:
        raise AssertionError(f"the outbox holds what nobody can read: {unreadable}")
    return [event for event in events if isinstance(event, Envelope)]


def envelope(id: str, *, type: str = "test.noted", attempt: int = 1, **data: Any) -> Envelope:
    """An event that is about nothing in particular."""
    return Envelope(
        id=id, source="/test", type=type, subject=id.partition("/")[0], time=DAWN, data=data, attempt=attempt
    )


def asks(command: Command[Any], id: str, *, attempt: int = 1, undoes: str | None = None) -> Envelope:
    """A command on the wire, with the subject that its answer is awaited on."""
    return Envelope(
        id=id,
        source="/test",
        type=command.type,
        subject=id.partition("/")[0],
        time=DAWN,
        data=command.model_dump(mode="json"),
        attempt=attempt,
        replyto=REPLIES,
        undoes=undoes,
    )


# --- the broker --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredMessage:
    """One message in a stream."""

    subject: str
    content_type: str
    ids: tuple[str, ...]
    """The message ids of its events."""

    events: tuple[Envelope, ...]


@asynccontextmanager
async def courier(url: str, inlet: Inlet | None = None) -> AsyncIterator[Broker]:
    """A connected broker whose streams, and whose consumer, are there."""
    broker = Broker(url, name="test")
    await broker.connect()
    try:
        await Topology(*([inlet] if inlet else [])).ensure(broker.jetstream)
        yield broker
    finally:
        await broker.close()


async def stored(stream: JetStreamContext, name: str) -> list[StoredMessage]:
    """Every message in the stream, in its order."""
    state = (await stream.stream_info(name)).state
    found = []
    for sequence in range(max(1, state.first_seq), state.last_seq + 1):
        try:
            message = await stream.get_msg(name, sequence)
        except NotFoundError:
            continue
        events = tuple(event for event in decode(message.data or b"") if isinstance(event, Envelope))
        ids = tuple(event.message_id for event in events)
        found.append(StoredMessage(str(message.subject), (message.headers or {})["Content-Type"], ids, events))
    return found


async def stored_ids(stream: JetStreamContext, name: str) -> list[str]:
    """The message ids of all events in the stream."""
    return [id for message in await stored(stream, name) for id in message.ids]


async def send(stream: JetStreamContext, subject: str, *envelopes: Envelope) -> None:
    """Publish events as one message."""
    if len(envelopes) == 1:
        await send_raw(stream, subject, envelopes[0].encode().encode())
    else:
        await send_raw(stream, subject, f"[{','.join(one.encode() for one in envelopes)}]".encode(), BATCH)


async def send_raw(stream: JetStreamContext, subject: str, body: bytes, content_type: str = SINGLE) -> None:
    """Publish whatever it is."""
    await stream.publish(subject, body, headers={"Content-Type": content_type})


async def unsettled(stream: JetStreamContext, inlet: Inlet) -> int:
    """How many messages the consumer has not delivered, or has delivered and got no acknowledgement for."""
    found = await stream.consumer_info(inlet.stream, inlet.durable)
    return (found.num_pending or 0) + (found.num_ack_pending or 0)


# --- what runs ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def relaying(outbox: Outbox, broker: Publisher) -> AsyncIterator[Relay]:
    """A relay that runs. What kills it fails the test."""
    relay = Relay(outbox, broker)
    running = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        running.cancel()
        [ended] = await asyncio.gather(running, return_exceptions=True)
        if not isinstance(ended, asyncio.CancelledError):
            raise AssertionError("the relay did not live to the end") from ended


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[Service]:
    """A service that is ready, and stopped in order at the end. What kills it fails the test."""
    running = asyncio.create_task(service.run())

    async def is_up() -> bool:
        if running.done():
            running.result()
        return service.ready.is_set()

    try:
        await eventually(is_up, "the service is ready")
        yield service
    finally:
        service.stop()
        await asyncio.wait_for(running, 30.0)
