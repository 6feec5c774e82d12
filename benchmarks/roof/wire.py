"""Packets over JetStream: many events in one message, published after the commit, acknowledged after the commit."""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from benchmarks.roof.styles import Event, Packet, Style

PARTICIPANTS: Final = ("order", "inventory", "payment")
COMMANDS: Final = "ROOF_COMMANDS"
REPLIES: Final = "ROOF_REPLIES"
REPLY_SUBJECT: Final = "roof.reply"
SUBJECTS: Final = {COMMANDS: "roof.command.*", REPLIES: REPLY_SUBJECT}

DATABASE_VARIABLE: Final = "ROOF_DATABASE_URL"
NATS_VARIABLE: Final = "ROOF_NATS_URL"
"""How a process of the roof is told where the servers are."""

BATCH_EVENTS: Final = 500
"""A batch is what is already waiting, until there are so many."""

RETRY_AFTER: Final = 0.1
"""Seconds."""


def command_subject(participant: str) -> str:
    """Where the commands of a participant go."""
    return f"roof.command.{participant}"


async def connect(url: str) -> Client:
    """A connection that stays."""
    return await nats.connect(url, max_reconnect_attempts=-1)


async def create_streams(stream: JetStreamContext) -> None:
    """File storage and limits retention, as ours."""
    for name, subject in SUBJECTS.items():
        await stream.add_stream(StreamConfig(name=name, subjects=[subject], storage=StorageType.FILE))


async def delete_streams(stream: JetStreamContext) -> None:
    """Those that are there."""
    for name in SUBJECTS:
        try:
            await stream.delete_stream(name)
        except NotFoundError:
            continue


class Intake:
    """What comes to one process. The broker pushes; what it has pushed and we have not taken is a batch."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._waiting: deque[tuple[Msg, list[Event]]] = deque()
        self._arrived = asyncio.Event()

    async def start(self, stream: JetStreamContext, name: str, subject: str, durable: str) -> None:
        """Subscribe, with explicit acknowledgement."""
        config = ConsumerConfig(durable_name=durable, ack_policy=AckPolicy.EXPLICIT, ack_wait=30, max_ack_pending=4096)
        await stream.subscribe(subject, stream=name, durable=durable, config=config, manual_ack=True, cb=self._receive)

    async def take(self, *, wait: bool = True) -> tuple[list[Msg], list[Event]]:
        """Everything that is there, up to a limit; the first is waited for."""
        while wait and not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        messages: list[Msg] = []
        events: list[Event] = []
        while self._waiting and len(events) < BATCH_EVENTS:
            message, more = self._waiting.popleft()
            messages.append(message)
            events.extend(more)
        return messages, events

    async def _receive(self, message: Msg) -> None:
        self._waiting.append((message, self._style.unpack(message.data)))
        self._arrived.set()


class Relay:
    """Publishes the packets that were committed, and knows which rows of the outbox the next transaction may delete."""

    def __init__(self, stream: JetStreamContext) -> None:
        self._stream = stream
        self._sent: list[str] = []
        self._under_way: set[asyncio.Task[None]] = set()

    def take_sent(self) -> list[str]:
        """The rows that are no longer needed. Who takes them deletes them."""
        sent, self._sent = self._sent, []
        return sent

    def publish(self, packets: Iterable[Packet]) -> None:
        """Begin to publish; the next batch does not wait for it."""
        for packet in packets:
            task = asyncio.create_task(self._publish(packet))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def finish(self) -> None:
        """Wait until the broker has stored everything."""
        while self._under_way:
            await asyncio.gather(*self._under_way)

    async def _publish(self, packet: Packet) -> None:
        while not await self._is_stored(packet):
            await asyncio.sleep(RETRY_AFTER)
        self._sent.extend(packet.row_ids)

    async def _is_stored(self, packet: Packet) -> bool:
        """A publish that timed out may have been stored: the inbox makes the second one harmless."""
        try:
            await self._stream.publish(packet.subject, packet.body)
        except (NatsError, TimeoutError):
            return False
        return True
