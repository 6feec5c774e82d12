"""A pull subscription: the line on which a role asks the broker for messages, and on which they come.

A request names our inbox, and the broker hands each message over as it comes, until there were as many as were asked
for or the request's time is over. A FastStream subscriber listens there (docs/adr/0024).
"""

from collections.abc import Awaitable, Callable
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
from outbox.delivery import Message
from outbox.errors import BrokerOutOfReach
from outbox.outages import Outages, Resource, outages
from outbox.topology import Inlet
from outbox.within import within

log = structlog.get_logger()

TIME_IS_OVER: Final = "408"
"""The status of a request that has ended as it should. With any other there is, at the moment, no such consumer."""

LEAVE: Final = 2.0
"""Seconds. How long a broker is waited for that says nothing."""


class Listener(Protocol):
    """Who asks."""

    def hear(self, message: Message) -> None:
        """A message has come."""
        ...

    def hear_end(self, request: int, *, in_time: bool) -> None:
        """A request will bring no more; at its time, or because nobody can serve it."""
        ...


class PullSubscription(Protocol):
    """A line to one durable consumer. A simulation has another."""

    @property
    def is_up(self) -> bool:
        """Whether anybody would hear a request at this moment."""
        ...

    async def open(self, listener: Listener) -> None:
        """Make the connection, unless there is one, which may be trying to come back. Raises BrokerOutOfReach."""
        ...

    async def ask(self, request: int, messages: int, expires: float) -> None:
        """Ask for so many messages, within so many seconds. Nobody says whether the request has arrived."""
        ...

    async def leave(self) -> None:
        """Be sent no more. What had been sent before was heard when this returns. Raises BrokerOutOfReach."""
        ...

    async def close(self) -> None:
        """Hang up, whatever state it is in."""
        ...


class NatsPullSubscription:
    """One on a connection of its own."""

    def __init__(self, url: str, inlet: Inlet, *, name: str) -> None:
        self._url, self._name = url, name
        self._where = without_user(url)
        self._inlet = inlet
        self._inbox = f"_INBOX.{token_hex(12)}"
        self._listener: Listener | None = None
        self._outages: Outages | None = None  # where a lost connection is told, until we leave
        self._client: Client | None = None
        self._prepare()  # so that there is something to close

    def _prepare(self) -> None:
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

    @property
    def is_up(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._client is not None and self._client.is_connected

    async def open(self, listener: Listener) -> None:
        """One that nats-py has given up, since the server sent it away, is made anew."""
        if self._client is not None and not self._client.is_closed:
            if self._client.is_connected:
                await self._back()  # one that was given up may tell of its end when there is another already
            return
        self._listener = listener
        self._outages = outages()  # here, in the role's own task, and not in those of nats-py
        self._prepare()
        try:
            await self._broker.start()
            self._client = await self._broker.connect()
            await self._back()
        except (NatsError, OSError, TimeoutError) as error:
            raise BrokerOutOfReach(f"the messages cannot be fetched ({error})") from error

    async def ask(self, request: int, messages: int, expires: float) -> None:
        """One line of the documented protocol."""
        if self._client is not None:
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._inlet.stream}.{self._inlet.durable}"
            body = to_json({"batch": messages, "expires": int(expires * 1e9)})
            await self._client.publish(subject, body, reply=f"{self._inbox}.{request}")

    async def leave(self) -> None:
        """Drain. From now on a lost connection is no news."""
        self._outages = None
        subscription = self._subscriber.subscription
        if subscription is None or not self.is_up:
            return
        drain: Callable[[], Awaitable[None]] = subscription.drain
        try:
            async with within(LEAVE):
                await drain()
        except (NatsError, OSError, TimeoutError) as error:
            raise BrokerOutOfReach(f"the broker does not let us go ({error})") from error
        self._subscriber.subscription = None  # or FastStream would end it once more

    async def close(self) -> None:
        """Without another word to a broker that did not let us go."""
        self._outages = None
        client, self._client = self._client, None
        if client is not None and self._subscriber.subscription is not None:
            self._subscriber.subscription = None
            await abandon(client)
            return
        try:
            await self._broker.stop()
        except (NatsError, OSError, TimeoutError) as error:
            log.debug("the connection did not close", reason=str(error))
            if client is not None:
                await abandon(client)

    async def _receive(self, message: StreamMessage[Msg]) -> None:
        """A message of the stream has a subject for its acknowledgement; what has none is the end of a request."""
        received = message.raw_message
        if self._listener is None:
            return
        if received.reply:
            self._listener.hear(received)
        else:
            status = (received.headers or {}).get("Status")
            request = received.subject.rpartition(".")[2]
            self._listener.hear_end(int(request), in_time=status == TIME_IS_OVER)

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


async def _as_it_came(message: Msg) -> StreamMessage[Msg]:
    """Without what we do not use: ids that FastStream would make up, headers, the parts of the subject."""
    return StreamMessage(message, b"", correlation_id="-", message_id="-")


async def _as_it_is(message: StreamMessage[Msg]) -> StreamMessage[Msg]:
    return message


async def _ignore(_error: Exception) -> None:
    """Every failed reconnection is an error to nats-py; to us it is the same outage, told once."""
