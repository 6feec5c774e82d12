"""JetStream, simulated: streams with limits retention, deduplication, durable consumers. And as bad as fate has it.

What it promises is less than JetStream does: it may forget what it has acknowledged, deliver again what was settled,
and lose all of it. What it does by itself is what JetStream does: a consumer that is made anew begins with the oldest
message; a message id that is known is dropped; what is not acknowledged in time comes again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from nats.js.api import ConsumerConfig, StreamConfig

from outbox.envelope import Packet
from simulation.boundary import Place
from simulation.fate import Fate
from simulation.witness import Witness

ComeTo = Callable[[Place], Awaitable[None]]

DUPLICATE_WINDOW: Final = 120.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A message in a stream."""

    number: int
    subject: str
    data: bytes
    id: str


@dataclass(slots=True)
class Pending:
    """A message that a consumer has not been told is settled."""

    kept: Kept
    deliveries: int = 0
    timer: asyncio.TimerHandle | None = None


class Consumer:
    """A durable consumer: what of its stream is still to be settled."""

    def __init__(self, stream: str, config: ConsumerConfig, kept: Sequence[Kept]) -> None:
        self.stream = stream
        self.config = config
        self.prefix = (config.filter_subject or "").removesuffix(">")
        self.pending = {one.number: Pending(one) for one in kept if one.subject.startswith(self.prefix)}
        self.backlog: list[Pending] = []
        """What nobody was there to take."""


class Stream:
    """A stream: what it keeps, which ids it knows, who consumes it."""

    def __init__(self, config: StreamConfig) -> None:
        self.config = config
        self.kept: dict[int, Kept] = {}
        self.known: dict[str, float] = {}
        self.number = 0
        self.consumers: dict[str, Consumer] = {}
        self.prefix = (config.subjects or [""])[0].removesuffix(">")

    def copy(self) -> "Stream":
        """As it stands now."""
        twin = Stream(self.config)
        twin.kept, twin.known, twin.number = dict(self.kept), dict(self.known), self.number
        for name, consumer in self.consumers.items():
            twin.consumers[name] = Consumer(
                consumer.stream, consumer.config, [one.kept for one in consumer.pending.values()]
            )
        return twin


class Listener:
    """Somebody who fetches from a consumer: one replica's source."""

    def __init__(self, stream: str, durable: str, come_to: ComeTo) -> None:
        self.stream = stream
        self.durable = durable
        self.queue: asyncio.Queue[Message] = asyncio.Queue()
        self.is_held = False
        self.come_to = come_to

    def hears(self, consumer: Consumer) -> bool:
        """Whether it fetches from this one."""
        return self.durable == consumer.config.durable_name and self.stream == consumer.stream


class Message:
    """A message as it was delivered: what `outbox.intake.Delivery` takes for a NATS message."""

    __slots__ = ("_broker", "_consumer", "_listener", "data", "num_delivered", "number", "subject")

    def __init__(
        self, broker: "SimulatedBroker", consumer: Consumer, listener: Listener, kept: Kept, num_delivered: int
    ) -> None:
        self.subject, self.data, self.number = kept.subject, kept.data, kept.number
        self.num_delivered: int | None = num_delivered
        self._broker = broker
        self._consumer = consumer
        self._listener = listener

    @property
    def metadata(self) -> "Message":
        """What the broker says about it."""
        return self

    async def ack(self) -> None:
        """It is done with."""
        self._broker.witness.settled(self._listener.durable, self.subject, self.data)
        await self._tell(lambda: self._broker.settle(self._consumer, self.number))

    async def nak(self, delay: float | None = None) -> None:
        """It should come again."""
        await self._tell(lambda: self._broker.redeliver(self._consumer, self.number, delay or 0.0))

    async def in_progress(self) -> None:
        """It needs as much time again."""
        await self._tell(lambda: self._broker.extend(self._consumer, self.number))

    async def _tell(self, what: Callable[[], None]) -> None:
        await self._listener.come_to("acknowledge")
        if not self._broker.is_up:
            raise OSError("the broker is away")
        if not self._broker.fate.strikes("acknowledgement-lost"):
            what()


@dataclass(slots=True)
class SimulatedBroker:
    """The one broker of a world."""

    fate: Fate
    witness: Witness
    is_up: bool = True
    streams: dict[str, Stream] = field(default_factory=dict)
    listeners: list[Listener] = field(default_factory=list)
    on_loss: Callable[[], None] = lambda: None

    # --- publishing

    def store(self, packet: Packet, role: str | None = None) -> bool:
        """Keep a message. Returns whether the publisher is told so."""
        stream = next((one for one in self.streams.values() if packet.subject.startswith(one.prefix)), None)
        if stream is None or self.fate.strikes("publish-lost"):
            return False
        now = asyncio.get_running_loop().time()
        is_known = now - stream.known.get(packet.message_id, -DUPLICATE_WINDOW) < DUPLICATE_WINDOW
        if role is not None:
            self.witness.stored(role, packet, is_known=is_known)
        if not is_known:
            stream.known[packet.message_id] = now
            if not self.fate.strikes("message-forgotten"):
                self._keep(stream, packet)
        elif self.fate.lines is not None:
            self.fate.note(f"broker: duplicate {packet.message_id} is dropped")
        return not self.fate.strikes("publish-unanswered")

    def _keep(self, stream: Stream, packet: Packet) -> None:
        stream.number += 1
        kept = Kept(stream.number, packet.subject, packet.body.encode(), packet.message_id)
        stream.kept[kept.number] = kept
        for consumer in stream.consumers.values():
            if kept.subject.startswith(consumer.prefix):
                pending = consumer.pending[kept.number] = Pending(kept)
                self._offer(consumer, pending, self._latency())
                if self.fate.strikes("message-doubled"):
                    self._offer(consumer, pending, self._latency() + self.fate.random.random() * 20)

    def _latency(self) -> float:
        chance = self.fate.random
        if self.fate.strikes("message-late"):
            return chance.uniform(1.0, 90.0)
        if self.fate.strikes("message-overtaken"):
            return chance.uniform(0.01, 1.0)
        return chance.uniform(0.0005, 0.005)

    # --- delivering

    def _offer(self, consumer: Consumer, pending: Pending, delay: float) -> None:
        asyncio.get_running_loop().call_later(delay, self._deliver, consumer, pending)

    def _deliver(self, consumer: Consumer, pending: Pending) -> None:
        """Give it to somebody who listens, also when it has been settled meanwhile: then it is a duplicate."""
        if not self._is_there(consumer):
            return
        takers = [one for one in self.listeners if one.hears(consumer) and not one.is_held]
        if not takers or not self.is_up:
            consumer.backlog.append(pending)
            return
        taker = takers[0] if len(takers) == 1 else self.fate.random.choice(takers)
        pending.deliveries += 1
        if pending.kept.number in consumer.pending:
            self._watch(consumer, pending)
        taker.queue.put_nowait(Message(self, consumer, taker, pending.kept, pending.deliveries))

    def _watch(self, consumer: Consumer, pending: Pending) -> None:
        if pending.timer is not None:
            pending.timer.cancel()
        ack_wait = consumer.config.ack_wait or 30.0
        pending.timer = asyncio.get_running_loop().call_later(ack_wait, self._come_again, consumer, pending)

    def _come_again(self, consumer: Consumer, pending: Pending) -> None:
        if pending.kept.number in consumer.pending:
            self._deliver(consumer, pending)

    def _is_there(self, consumer: Consumer) -> bool:
        return any(one is consumer for stream in self.streams.values() for one in stream.consumers.values())

    def serve(self) -> None:
        """Somebody listens who did not: deliver what has waited."""
        if not self.is_up:
            return
        for stream in self.streams.values():
            for consumer in stream.consumers.values():
                backlog, consumer.backlog = consumer.backlog, []
                for pending in backlog:
                    self._offer(consumer, pending, self._latency())

    # --- what is told by whoever got a message

    def settle(self, consumer: Consumer, number: int) -> None:
        """It does not come again, unless fate wants it."""
        pending = consumer.pending.pop(number, None)
        if pending is not None and pending.timer is not None:
            pending.timer.cancel()

    def redeliver(self, consumer: Consumer, number: int, delay: float) -> None:
        """It comes again."""
        pending = consumer.pending.get(number)
        if pending is not None:
            if pending.timer is not None:
                pending.timer.cancel()
            self._offer(consumer, pending, delay)

    def extend(self, consumer: Consumer, number: int) -> None:
        """It comes again later than it would have."""
        pending = consumer.pending.get(number)
        if pending is not None:
            self._watch(consumer, pending)

    # --- what befalls it

    def come_back(self) -> None:
        """After it was away."""
        self.is_up = True
        self.serve()

    def lose(self, streams: Sequence[str]) -> None:
        """Streams are gone, and all that they kept."""
        for name in streams:
            self.streams.pop(name, None)
        self.on_loss()

    def lose_consumer(self, durable: str) -> None:
        """A consumer is gone: nobody knows what it had settled."""
        for stream in self.streams.values():
            stream.consumers.pop(durable, None)
        self.on_loss()

    def copy(self) -> dict[str, Stream]:
        """All that it holds now."""
        return {name: stream.copy() for name, stream in self.streams.items()}

    def roll_back(self, copy: dict[str, Stream]) -> None:
        """It holds again what it held then."""
        self.streams = copy
        for stream in copy.values():
            for consumer in stream.consumers.values():
                for pending in consumer.pending.values():
                    self._offer(consumer, pending, self._latency())
        self.on_loss()
