"""JetStream, simulated: streams with limits retention, deduplication, durable consumers. And as bad as fate has it.

What it promises is less than JetStream does: it may forget what it has acknowledged, deliver again what was settled,
and lose all of it. What it does by itself is what JetStream does: a consumer that is made anew begins with the oldest
message; a message id that is known is dropped; what is not acknowledged in time comes again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from nats.js.api import ConsumerConfig, SequenceInfo, StreamConfig, StreamState

from outbox.envelope import Packet
from outbox.pull import Listener
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

    def __init__(self, config: ConsumerConfig, kept: Sequence[Kept]) -> None:
        self.config = config
        self.prefix = (config.filter_subject or "").removesuffix(">")
        self.pending = {one.number: Pending(one) for one in kept if one.subject.startswith(self.prefix)}
        self.backlog: list[Pending] = []
        """What nobody had asked for."""

        self.requests: list[Request] = []
        """Who has asked, and was not sent everything yet."""

        self.delivered: SequenceInfo | None = None
        """Nobody is told how far it is: here no consumer is ever ahead of its stream."""


class Stream:
    """A stream: what it keeps, which ids it knows, who consumes it."""

    def __init__(self, config: StreamConfig) -> None:
        self.config = config
        self.kept: dict[int, Kept] = {}
        self.known: dict[str, float] = {}
        self.number = 0
        self.consumers: dict[str, Consumer] = {}
        self.prefix = (config.subjects or [""])[0].removesuffix(">")

    @property
    def state(self) -> StreamState:
        """How much it holds, and the number of its last message."""
        return StreamState(len(self.kept), 0, min(self.kept, default=0), self.number, len(self.consumers))

    def copy(self) -> "Stream":
        """As it stands now."""
        twin = Stream(self.config)
        twin.kept, twin.known, twin.number = dict(self.kept), dict(self.known), self.number
        for name, consumer in self.consumers.items():
            twin.consumers[name] = Consumer(consumer.config, [one.kept for one in consumer.pending.values()])
        return twin


@dataclass(slots=True, eq=False)
class Line:
    """What connects one replica's intake with the broker, as the broker knows it."""

    durable: str
    come_to: ComeTo
    listener: Listener
    on_its_way: int = 0
    is_dead: bool = False


@dataclass(slots=True, eq=False)
class Request:
    """What somebody has asked of a consumer: which request it is, and how many messages are still to come."""

    line: Line
    number: int
    missing: int


class Message:
    """A message as it was delivered: what `outbox.delivery.Delivery` takes for a NATS message."""

    __slots__ = ("_broker", "_consumer", "_line", "data", "num_delivered", "number", "subject")

    def __init__(
        self, broker: "SimulatedBroker", consumer: Consumer, line: Line, kept: Kept, num_delivered: int
    ) -> None:
        self.subject, self.data, self.number = kept.subject, kept.data, kept.number
        self.num_delivered: int | None = num_delivered
        self._broker = broker
        self._consumer = consumer
        self._line = line

    @property
    def metadata(self) -> "Message":
        """What the broker says about it."""
        return self

    async def ack(self) -> None:
        """It is done with."""
        self._broker.witness.settled(self._line.durable, self.subject, self.data)
        await self._tell(lambda: self._broker.settle(self._consumer, self.number))

    async def nak(self, delay: float | None = None) -> None:
        """It should come again."""
        await self._tell(lambda: self._broker.redeliver(self._consumer, self.number, delay or 0.0))

    async def in_progress(self) -> None:
        """It needs as much time again."""
        await self._tell(lambda: self._broker.extend(self._consumer, self.number))

    async def _tell(self, what: Callable[[], None]) -> None:
        await self._line.come_to("acknowledge")
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
    on_loss: Callable[[], None] = lambda: None
    on_turn: Callable[[], None] = lambda: None
    """Told when it goes away, and when it is back."""

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
        """Send it to somebody who has asked, also when it has been settled meanwhile: then it is a duplicate."""
        if not self._is_there(consumer):
            return
        requests = consumer.requests
        if not requests or not self.is_up:
            consumer.backlog.append(pending)
            return
        request = requests[0] if len(requests) == 1 else self.fate.random.choice(requests)
        request.missing -= 1
        if request.missing <= 0:
            requests.remove(request)
        pending.deliveries += 1
        if pending.kept.number in consumer.pending:
            self._watch(consumer, pending)
        if not self.fate.strikes("delivery-lost"):
            message = Message(self, consumer, request.line, pending.kept, pending.deliveries)
            request.line.on_its_way += 1
            asyncio.get_running_loop().call_later(self._journey(), self._arrive, request.line, message)

    def _arrive(self, line: Line, message: Message) -> None:
        line.on_its_way -= 1
        if not line.is_dead:
            line.listener.hear(message)

    def _journey(self) -> float:
        """How long a message, or the end of a request, is on its way: at times longer than the request lasts."""
        slow = self.fate.strikes("delivery-slow")
        return self.fate.random.uniform(0.01, 12.0) if slow else self.fate.random.uniform(0.0005, 0.005)

    def _watch(self, consumer: Consumer, pending: Pending) -> None:
        if pending.timer is not None:
            pending.timer.cancel()
        ack_wait = consumer.config.ack_wait or 30.0
        pending.timer = asyncio.get_running_loop().call_later(ack_wait, self._come_again, consumer, pending)

    def _come_again(self, consumer: Consumer, pending: Pending) -> None:
        if pending.kept.number in consumer.pending:
            self._deliver(consumer, pending)

    def _is_there(self, consumer: Consumer) -> bool:
        return any(one is consumer for one in self._consumers())

    # --- being asked

    def ask(self, line: Line, stream: str, number: int, messages: int, expires: float) -> None:
        """A replica asks for so many messages, within so many seconds; nobody tells it whether anybody heard."""
        if not self.is_up or self.fate.strikes("request-lost"):
            return
        consumers = self.streams[stream].consumers if stream in self.streams else {}
        consumer, request = consumers.get(line.durable), Request(line, number, messages)
        if consumer is None:
            self._end(request, in_time=False)
            return
        consumer.requests.append(request)
        asyncio.get_running_loop().call_later(expires, self._expire, consumer, request)
        waiting, consumer.backlog = consumer.backlog[:messages], consumer.backlog[messages:]
        for pending in waiting:
            self._offer(consumer, pending, self._latency())

    def forget(self, line: Line) -> None:
        """Whoever is at its end has gone: what it has asked for is void."""
        for consumer in self._consumers():
            consumer.requests = [one for one in consumer.requests if one.line is not line]

    def _expire(self, consumer: Consumer, request: Request) -> None:
        if request in consumer.requests:
            consumer.requests.remove(request)
            self._end(request, in_time=True)

    def _end(self, request: Request, *, in_time: bool) -> None:
        if not self.fate.strikes("request-lost"):
            asyncio.get_running_loop().call_later(self._journey(), self._tell_end, request, in_time)

    @staticmethod
    def _tell_end(request: Request, in_time: bool) -> None:
        if not request.line.is_dead:
            request.line.listener.hear_end(request.number, in_time=in_time)

    def _consumers(self) -> list[Consumer]:
        return [consumer for stream in self.streams.values() for consumer in stream.consumers.values()]

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

    def go_away(self) -> None:
        """Whoever had asked for something has asked nobody."""
        self.is_up = False
        for consumer in self._consumers():
            consumer.requests = []
        self.on_turn()

    def come_back(self) -> None:
        """After it was away."""
        self.is_up = True
        self.on_turn()

    def lose(self, streams: Sequence[str]) -> None:
        """Streams are gone, and all that they kept."""
        for name in streams:
            self.streams.pop(name, None)
        self.on_loss()

    def lose_consumer(self, durable: str) -> None:
        """A consumer is gone: nobody knows what it had settled. Whoever waits for its messages is told."""
        for stream in self.streams.values():
            consumer = stream.consumers.pop(durable, None)
            for request in consumer.requests if consumer is not None else ():
                self._end(request, in_time=False)
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
