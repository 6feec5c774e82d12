"""The connection to NATS that publishes and looks after the topology."""

import asyncio
import re
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Final

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from outbox.envelope import Packet
from outbox.errors import BrokerOutOfReach
from outbox.line import Line
from outbox.outages import CONNECTION, Resource, outages
from outbox.refusals import REFUSALS, Forbidden, Refusals
from outbox.topology import stream_of
from outbox.within import cancellations, within

log = structlog.get_logger()

PUBLISH_TIMEOUT: Final = 5.0
"""Seconds. A publish that timed out may have been stored: it is sent again, and the inbox sorts it out."""

PING_EVERY: Final = 5
UNANSWERED_PINGS: Final = 2
"""A server that has answered none of these many pings, so many seconds apart, is gone: a cut network says nothing."""

WRONG_USER: Final = "user, password or token was refused"


class Broker:
    """A connection that never gives up, and says once when it is lost and once when it is back."""

    def __init__(self, url: str, *, name: str) -> None:
        self.url = url
        self._where = without_user(url)
        self._name = name
        self._client: Client | None = None
        self._complaint = ""  # the last one of nats-py, which tries again and again
        self._refusals = Refusals()
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
            async with within(patience):
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

    @property
    def problems(self) -> list[str]:
        """What NATS does not take from us, though it is there, until a person has changed something."""
        return self._refusals.problems

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
        self._refusals.note(packets, answers)
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

    async def _publish_one(self, stream: JetStreamContext, packet: Packet) -> None:
        headers = {"Nats-Msg-Id": packet.message_id, "Content-Type": packet.content_type}
        try:
            async with within(2 * PUBLISH_TIMEOUT):  # nats-py's own begins when the message has been written
                await stream.publish(packet.subject, packet.body.encode(), headers=headers, timeout=PUBLISH_TIMEOUT)
        except TimeoutError as error:
            if self._refusals.is_forbidden(packet.subject):
                raise Forbidden(f"the user of this connection may not publish on {packet.subject!r}") from error
            raise

    async def _heed(self, error: Exception) -> None:
        """Every failed connection is an error to nats-py; to us it is the same outage, told once."""
        if self._complaint != WRONG_USER:  # after which the server hangs up, which is an error as well
            self._complaint = in_words(error)
        self._refusals.heed(error)

    async def _lost(self) -> None:
        self.silent.clear()
        self._refusals.forget()
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
        return WRONG_USER
    return told


def servers_of(url: str) -> list[str]:
    """One URL, or several separated by commas."""
    return [server.strip() for server in url.split(",") if server.strip()]


def without_user(url: str) -> str:
    """The same, with neither password nor token: it goes into logs, and is told by `/readyz`."""
    return re.sub(r"//[^/,]*@", "//", url)


async def abandon(client: Client) -> None:
    """Close a connection, whatever state it is in."""
    before = cancellations()
    try:
        async with within(2.0):
            await client.close()
    except asyncio.CancelledError:  # also of a task of nats-py's that it has ended, and waits for
        if cancellations() > before:
            raise
    except Exception as error:  # it may never have been open, and we are leaving anyway
        log.debug("NATS connection did not close", reason=str(error))
