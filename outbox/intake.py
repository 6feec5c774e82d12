"""The intake: what comes to a role fills a small queue, from which batches are taken.

A batch is what is already waiting: at light load one message, under load hundreds of events. Nothing lingers
to make a batch bigger. The broker is asked for as many messages as there is room for, and hands each over as it
comes; a FastStream subscriber listens for them (docs/adr/0024). The queue is short, so a slow service stops asking,
and the broker holds what it cannot take: that is the backpressure.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Final, Protocol

import structlog
from faststream import AckPolicy
from faststream.message import StreamMessage
from faststream.nats import NatsBroker
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from pydantic_core import to_json

from outbox.broker import PING_EVERY, UNANSWERED_PINGS, abandon, servers_of, without_user
from outbox.envelope import Envelope, Unreadable, decode
from outbox.errors import BrokerOutOfReach
from outbox.loops import forever
from outbox.outages import Outages, Resource, outages
from outbox.topology import Inlet

log = structlog.get_logger()

QUEUE_MESSAGES: Final = 64
AT_ONCE: Final = 16
"""Messages that are asked for together. They are sent to us even when we hang meanwhile, and come to others later."""

EXPIRES: Final = 1.0
"""Seconds after which the broker forgets what it was asked for. It is asked again then, in case it forgot before."""

TIMEOUT: Final = "408"
"""The status of a request whose time is over."""

SLACK: Final = 0.2
"""Seconds by which the broker's word that a request is over may be late."""

MAX_EVENTS: Final = 500
MAX_BYTES: Final = 4 * 1024 * 1024
"""A batch ends at the first of these two, so that large messages do not make a large transaction."""

PUT_BACK: Final = 1.0
"""Seconds after which others are sent what we had been sent, and did not take."""

LEAVE: Final = 2.0
"""Seconds. How long a broker is waited for that says nothing."""


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
        self._inlet = inlet
        self._inbox = f"_INBOX.{token_hex(12)}"
        self._asked = 0  # how often the broker was
        self._missing = 0  # messages that it has been asked for, and has not sent
        self._answered = asyncio.Event()
        self._pause = 0.0  # when there is no such consumer at the moment: nothing is gained by haste
        self._asking: asyncio.Task[None] | None = None
        self._url, self._name = url, name
        self._where = without_user(url)
        self._outages: Outages | None = None  # where a lost connection is told, from the start until we leave
        self._client: Client | None = None
        self._listen()

    def _listen(self) -> None:
        """A connection that is not made yet, and who listens on it."""
        self._broker = NatsBroker(
            servers_of(self._url),
            name=self._name,
            logger=None,
            apply_types=False,  # injecting the message would take a turn in a thread for each
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            ping_interval=PING_EVERY,
            max_outstanding_pings=UNANSWERED_PINGS,
            error_cb=_ignore,
            disconnected_cb=self._lost,
            reconnected_cb=self._back,
        )
        self._subscriber = self._broker.subscriber(
            f"{self._inbox}.*", parser=_as_it_came, decoder=_as_it_is, ack_policy=AckPolicy.MANUAL, no_reply=True
        )
        self._subscriber(self._receive)

    async def start(self) -> None:
        """Begin to ask, unless it does already. The stream and its consumer must be there."""
        if self._asking is not None:
            return
        await self._reach()
        self._outages = outages()  # here, in the role's own task, and not in those of nats-py
        self._asking = asyncio.create_task(forever("ask for messages", self._ask))

    async def stop(self) -> None:
        """Ask no more, and give back what was sent and not taken: others get it as soon as we are gone."""
        self._outages = None
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
        try:
            await self._leave()
            while not self._queue.empty():
                await Delivery(self._queue.get_nowait()).put_back(PUT_BACK)
            await self._broker.stop()
        except (NatsError, TimeoutError) as error:  # the broker is away: what we hold comes again after ack_wait
            log.debug("the intake could not take its leave", reason=str(error))
            if self._client is not None:
                await abandon(self._client)
        self._client = None

    def hold(self) -> None:
        """Ask no more until something is taken again."""
        self._room.clear()

    async def take(self) -> list[Delivery]:
        """Wait for a message, and take with it what else is already there."""
        if self._queue.qsize() < QUEUE_MESSAGES:
            self._room.set()  # whoever was held up goes on, or nothing would ever come
        deliveries = [Delivery(await self._queue.get())]
        events, size = len(deliveries[0].events), len(deliveries[0].message.data)
        while events < MAX_EVENTS and size < MAX_BYTES and not self._queue.empty():
            deliveries.append(Delivery(self._queue.get_nowait()))
            events += len(deliveries[-1].events)
            size += len(deliveries[-1].message.data)
        self._room.set()
        return deliveries

    async def _ask(self) -> float:
        """Ask once, and wait until everything has been sent or the request is over."""
        await self._room.wait()
        client = await self._reach()
        if not client.is_connected:
            return SLACK  # what is asked now would be asked many times over when the broker is back
        self._asked += 1
        self._missing = min(AT_ONCE, QUEUE_MESSAGES - self._queue.qsize())
        self._pause = 0.0
        self._answered.clear()
        request = {"batch": self._missing, "expires": int(EXPIRES * 1e9)}
        ours = f"{self._inlet.stream}.{self._inlet.durable}"
        await client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{ours}", to_json(request), reply=f"{self._inbox}.{self._asked}"
        )
        with suppress(TimeoutError):
            await asyncio.wait_for(self._answered.wait(), EXPIRES + SLACK)
        return self._pause

    async def _reach(self) -> Client:
        """The connection. One that nats-py has given up, since the server sent it away, is made anew."""
        if self._client is None or self._client.is_closed:
            self._listen()
            try:
                await self._broker.start()
                self._client = await self._broker.connect()
                await self._back()
            except (NatsError, OSError, TimeoutError) as error:
                raise BrokerOutOfReach(f"the messages cannot be fetched ({error})") from error
        return self._client

    async def _receive(self, message: StreamMessage[Msg]) -> None:
        """A message of the stream has a subject for its acknowledgement; what has none is the end of a request."""
        received = message.raw_message
        if not received.reply:
            if received.subject == f"{self._inbox}.{self._asked}":
                self._pause = 0.0 if (received.headers or {}).get("Status") == TIMEOUT else SLACK
                self._answered.set()
            return
        self._queue.put_nowait(received)
        if self._queue.qsize() >= QUEUE_MESSAGES:
            self._room.clear()
        self._missing -= 1
        if self._missing <= 0:
            self._answered.set()

    async def _lost(self) -> None:
        if self._outages is not None:
            reason = f"the connection to {self._where} is lost, over which messages come"
            self._outages.begins(Resource.NATS, self._noticer, reason)

    async def _back(self) -> None:
        if self._outages is not None:
            self._outages.ends(self._noticer)

    @property
    def _noticer(self) -> str:
        return f"the intake of {self._inlet.durable}"

    async def _leave(self) -> None:
        """The broker sends us no more; what it had sent before is here when this returns."""
        subscription = self._subscriber.subscription
        if subscription is not None and self._client is not None and self._client.is_connected:
            drain: Callable[[], Awaitable[None]] = subscription.drain
            await asyncio.wait_for(drain(), LEAVE)
            self._subscriber.subscription = None  # or FastStream would end it once more


async def _as_it_came(message: Msg) -> StreamMessage[Msg]:
    """Without what we do not use: ids that FastStream would make up, headers, the parts of the subject."""
    return StreamMessage(message, b"", correlation_id="-", message_id="-")


async def _as_it_is(message: StreamMessage[Msg]) -> StreamMessage[Msg]:
    return message


async def _ignore(_error: Exception) -> None:
    """Every failed reconnection is an error to nats-py; to us it is the same outage, told once."""
