"""The connection to NATS that publishes and looks after the topology."""

import asyncio
import re
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Final

import structlog
from nats.aio.client import Client
from nats.errors import BadSubjectError, MaxPayloadError
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import BadRequestError

from outbox.envelope import Packet
from outbox.errors import BrokerOutOfReach
from outbox.line import Line
from outbox.outages import CONNECTION, Resource, outages
from outbox.topology import stream_of

log = structlog.get_logger()

PUBLISH_TIMEOUT: Final = 5.0
"""Seconds. A publish that timed out may have been stored: it is sent again, and the inbox sorts it out."""

PING_EVERY: Final = 5
UNANSWERED_PINGS: Final = 2
"""A server that has answered none of these many pings, so many seconds apart, is gone: a cut network says nothing."""


MOST_REMEMBERED: Final = 1000
"""Messages that are not told of twice."""


class Forbidden(NatsError):
    """NATS does not let this user publish on a subject."""


REFUSALS: Final = (Forbidden, MaxPayloadError, BadSubjectError, BadRequestError)
"""What is wrong with one message, or is not allowed to us. NATS is there, and the next message may be taken."""


class Broker:
    """A connection that never gives up, and says once when it is lost and once when it is back."""

    def __init__(self, url: str, *, name: str) -> None:
        self.url = url
        self._where = without_user(url)
        self._name = name
        self._client: Client | None = None
        self._complaint = ""  # the last one of nats-py, which tries again and again
        self._forbidden: set[str] = set()  # subjects, in lower case
        self._refused: dict[str, None] = {}  # ids of messages that were told of, the oldest first
        self.silent: Counter[str] = Counter()
        """Stream -> how many publications in a row it has not answered, on a connection that stands."""

    async def connect(self, *, patience: float = 2.0) -> None:
        """One try, unless there is a connection, or nats-py still tries to get it back. Raises BrokerOutOfReach."""
        if self._client is not None and not self._client.is_closed:
            if self._client.is_connected:
                outages().ends(CONNECTION)  # one that was given up may tell of its end when there is another already
            return
        client, self._complaint = Client(), ""
        if not self.url.startswith(("ws://", "wss://")):
            client._transport = Line()
        try:
            async with asyncio.timeout(patience):
                await client.connect(
                    servers_of(self.url),
                    name=self._name,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    ping_interval=PING_EVERY,
                    max_outstanding_pings=UNANSWERED_PINGS,
                    connect_timeout=int(max(1, patience)),
                    flush_timeout=PUBLISH_TIMEOUT,
                    error_cb=self._heed,
                    disconnected_cb=self._lost,
                    reconnected_cb=self._back,
                )
        except (NatsError, OSError, TimeoutError, ValueError) as error:
            await abandon(client)
            reason = self._complaint or str(error) or "no answer"
            raise BrokerOutOfReach(
                f"NATS at {self._where} is out of reach ({reason})",
                "check that it is running and that the URL is right (`saga config show`)",
            ) from error
        self._client = client
        outages().ends(CONNECTION)

    @property
    def jetstream(self) -> JetStreamContext:
        """The JetStream context. Raises BrokerOutOfReach before `connect`."""
        if self._client is None:
            raise BrokerOutOfReach(f"not connected to NATS at {self._where}")
        return self._client.jetstream(timeout=PUBLISH_TIMEOUT)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._client is not None and self._client.is_connected

    async def publish(self, packets: Sequence[Packet]) -> list[Packet]:
        """Publish and wait for the broker to have stored them. Returns those that it has."""
        if not self.is_connected:
            raise BrokerOutOfReach(f"NATS at {self._where} is out of reach")
        stream = self.jetstream
        answers = await asyncio.gather(
            *(self._publish_one(stream, packet) for packet in packets), return_exceptions=True
        )
        self._note_silence(packets, answers)
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        unexpected = [error for error in failed if not isinstance(error, NatsError | OSError | TimeoutError)]
        if unexpected:
            raise unexpected[0]
        self._tell_of_refusals(packets, answers)
        away = [error for error in failed if not isinstance(error, REFUSALS)]
        if away and len(failed) == len(packets):
            raise BrokerOutOfReach(f"NATS at {self._where} took no message ({str(away[0]) or 'no answer'})")
        return [p for p, answer in zip(packets, answers, strict=True) if not isinstance(answer, BaseException)]

    async def close(self) -> None:
        """Leave."""
        client, self._client = self._client, None
        if client is not None:
            await abandon(client)

    def _note_silence(self, packets: Sequence[Packet], answers: Sequence[BaseException | None]) -> None:
        """An error is an answer too; and who is not connected has asked nobody."""
        asked = {stream_of(packet.subject) for packet in packets}
        pairs = zip(packets, answers, strict=True)
        answered = {stream_of(packet.subject) for packet, answer in pairs if not isinstance(answer, TimeoutError)}
        for stream in answered:
            del self.silent[stream]
        if self.is_connected:
            self.silent.update(asked - answered)

    def _tell_of_refusals(self, packets: Sequence[Packet], answers: Sequence[BaseException | None]) -> None:
        """Once for each message: it stays in the outbox, and is tried again until somebody has changed something."""
        for packet, answer in zip(packets, answers, strict=True):
            if isinstance(answer, REFUSALS) and packet.message_id not in self._refused:
                self._refused[packet.message_id] = None
                log.error(
                    "NATS does not take a message; it stays in the outbox and is tried again",
                    message_id=packet.message_id,
                    subject=packet.subject,
                    bytes=len(packet.body.encode()),
                    reason=str(answer),
                )
        while len(self._refused) > MOST_REMEMBERED:
            del self._refused[next(iter(self._refused))]

    async def _publish_one(self, stream: JetStreamContext, packet: Packet) -> None:
        headers = {"Nats-Msg-Id": packet.message_id, "Content-Type": packet.content_type}
        try:
            async with asyncio.timeout(2 * PUBLISH_TIMEOUT):  # nats-py's own begins when the message has been written
                await stream.publish(packet.subject, packet.body.encode(), headers=headers, timeout=PUBLISH_TIMEOUT)
        except TimeoutError as error:
            if packet.subject.lower() in self._forbidden:
                raise Forbidden(f"the user of this connection may not publish on {packet.subject!r}") from error
            raise
        self._forbidden.discard(packet.subject.lower())

    async def _heed(self, error: Exception) -> None:
        """A subject that is forbidden is told of aside, and the publication gets no answer.

        Every failed connection is an error to nats-py as well; to us it is the same outage, told once.
        """
        self._complaint = in_words(error)
        if found := re.search(r"permissions violation for publish to \"?([^\s\"]+)", str(error), re.IGNORECASE):
            self._forbidden.add(found[1].lower())

    async def _lost(self) -> None:
        self.silent.clear()
        self._forbidden.clear()
        if self._client is not None:
            outages().begins(Resource.NATS, CONNECTION, f"the connection to {self._where} is lost")

    async def _back(self) -> None:
        self.silent.clear()
        outages().ends(CONNECTION)


def in_words(error: Exception) -> str:
    """Why there is no connection, as nats-py and the operating system tell of it."""
    told = str(error).strip().removeprefix("nats: ").strip("'\"")
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        return "no host has this name"
    if "authorization violation" in told.lower():
        return "user, password or token was refused"
    return told


def servers_of(url: str) -> list[str]:
    """One URL, or several separated by commas."""
    return [server.strip() for server in url.split(",") if server.strip()]


def without_user(url: str) -> str:
    """The same, with neither password nor token: it goes into logs, and is told by `/readyz`."""
    return re.sub(r"//[^/,]*@", "//", url)


async def abandon(client: Client) -> None:
    """Close a connection, whatever state it is in."""
    try:
        async with asyncio.timeout(2.0):
            await client.close()
    except asyncio.CancelledError:  # also of a task of nats-py's that it has ended, and waits for
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
    except Exception as error:  # it may never have been open, and we are leaving anyway
        log.debug("NATS connection did not close", reason=str(error))
