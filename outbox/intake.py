"""The intake: a FastStream pull subscriber that fills a small queue, from which batches are taken.

A batch is what is already waiting: at light load one message, under load hundreds of events. Nothing lingers
to make a batch bigger. For that the subscriber fetches one message at a time: `fetch(n)` of nats-py 2.16 waits
for its whole timeout when fewer than `n` messages are there (docs/adr/0003). The queue is short, so a slow
service stops fetching, and the broker holds what it cannot take: that is the backpressure.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.message import NatsMessage
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from outbox.broker import PING_EVERY, UNANSWERED_PINGS, abandon, servers_of
from outbox.envelope import Envelope, Unreadable, decode
from outbox.errors import BrokerOutOfReach
from outbox.topology import Inlet

log = structlog.get_logger()

QUEUE_MESSAGES: Final = 64
FETCH_TIMEOUT: Final = 1.0
MAX_EVENTS: Final = 500
MAX_BYTES: Final = 4 * 1024 * 1024
"""A batch ends at the first of these two, so that large messages do not make a large transaction."""

IN_FLIGHT: Final = 0.1
"""Seconds. How long a stopping intake waits for a message that the broker may have sent already."""


class Metadata(Protocol):
    """What the broker says about a delivery."""

    @property
    def num_delivered(self) -> int | None:
        """Which delivery of this message it is."""
        ...


class Message(Protocol):
    """A NATS message, as far as we need it. A simulation has others."""

    subject: str
    data: bytes

    @property
    def metadata(self) -> Metadata:
        """What the broker says about it."""
        ...

    async def ack(self) -> None:
        """It is done with."""
        ...

    async def nak(self, delay: float | None = None) -> None:
        """It should come again, after so many seconds."""
        ...

    async def in_progress(self) -> None:
        """It needs as much time again."""
        ...


@dataclass(slots=True)
class Delivery:
    """One message as it was delivered, with the events that it carries."""

    message: Message
    events: list[Envelope | Unreadable] = field(init=False)
    deliveries: int = field(init=False)

    def __post_init__(self) -> None:
        self.events = decode(self.message.data)
        self.deliveries = self.message.metadata.num_delivered or 1

    @property
    def subject(self) -> str:
        """The NATS subject that it came on."""
        return self.message.subject

    async def ack(self) -> None:
        """Tell the broker that it is done with. Lost acknowledgements are harmless: the inbox knows it."""
        try:
            await self.message.ack()
        except (NatsError, OSError) as error:
            log.debug("acknowledgement lost", reason=str(error))

    async def still_working(self) -> None:
        """Ask the broker for as much time again."""
        try:
            await self.message.in_progress()
        except (NatsError, OSError) as error:
            log.debug("could not ask for more time", reason=str(error))

    async def put_back(self, delay: float) -> None:
        """Ask the broker to deliver it again in `delay` seconds."""
        try:
            await self.message.nak(delay=delay)
        except (NatsError, OSError) as error:
            log.debug("could not put a message back; the broker will, after ack_wait", reason=str(error))


class Intake:
    """What comes to one role, in batches."""

    def __init__(self, url: str, inlet: Inlet, *, name: str) -> None:
        self._queue: asyncio.Queue[Msg] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()
        self._held = asyncio.Event()  # the fetching waits for room
        self._broker = NatsBroker(
            servers_of(url),
            name=name,
            logger=None,
            apply_types=False,  # injecting the message would take a turn in a thread for each
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            ping_interval=PING_EVERY,
            max_outstanding_pings=UNANSWERED_PINGS,
            error_cb=_ignore,
        )
        subscriber = self._broker.subscriber(
            inlet.subject,
            stream=JStream(inlet.stream, declare=False),
            durable=inlet.durable,
            pull_sub=PullSub(batch_size=1, timeout=FETCH_TIMEOUT),
            ack_policy=AckPolicy.MANUAL,
            decoder=_as_it_is,
        )
        subscriber(self._receive)

    async def start(self) -> None:
        """Begin to fetch. The stream and its consumer must be there."""
        try:
            await self._broker.start()
        except NatsError as error:
            raise BrokerOutOfReach(f"the messages cannot be fetched ({error})") from error

    async def stop(self) -> None:
        """Fetch no more, and give back what was fetched and not taken: others get it as soon as we are gone."""
        self._room.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._held.wait(), IN_FLIGHT)
        while not self._queue.empty():
            await Delivery(self._queue.get_nowait()).put_back(FETCH_TIMEOUT)  # or our own last fetch would get it
        self._room.set()  # the fetching goes on, to find that it has been stopped
        try:
            await self._broker.stop()
        except NatsError as error:  # the broker is away: what we hold comes again after ack_wait
            log.debug("the intake could not take its leave", reason=str(error))
            await abandon(await self._broker.connect())

    def hold(self) -> None:
        """Fetch no more until something is taken again."""
        self._room.clear()

    async def take(self) -> list[Delivery]:
        """Wait for a message, and take with it what else is already there."""
        deliveries = [Delivery(await self._queue.get())]
        events, size = len(deliveries[0].events), len(deliveries[0].message.data)
        while events < MAX_EVENTS and size < MAX_BYTES and not self._queue.empty():
            deliveries.append(Delivery(self._queue.get_nowait()))
            events += len(deliveries[-1].events)
            size += len(deliveries[-1].message.data)
        self._room.set()
        return deliveries

    async def _receive(self, message: NatsMessage) -> None:
        self._queue.put_nowait(message.raw_message)
        if self._queue.qsize() >= QUEUE_MESSAGES:
            self._room.clear()
        self._held.set()
        await self._room.wait()
        self._held.clear()


async def _as_it_is(message: NatsMessage) -> NatsMessage:
    return message


async def _ignore(_error: Exception) -> None:
    """Reconnecting is told once, by the role's other connection."""
