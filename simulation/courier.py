"""One process's courier, simulated: what it publishes, fetches and finds of the topology, as the broker has it."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, StreamConfig
from nats.js.errors import NotFoundError

from outbox.envelope import Packet
from outbox.errors import BrokerOutOfReach
from outbox.intake import Intake
from outbox.pull import Listener
from outbox.topology import Inlet, Topology
from simulation.broker import ComeTo, Consumer, Line, SimulatedBroker, Stream
from simulation.fate import Fate


@dataclass(frozen=True, slots=True)
class Habits:
    """How the intakes of a world ask: with so much room in their queues, for so many at once, for so many seconds."""

    room: int
    at_once: int
    expires: float


class SimulatedCourier:
    """An `outbox.courier.Courier`."""

    def __init__(
        self, name: str, role: str, broker: SimulatedBroker, fate: Fate, come_to: ComeTo, habits: Habits
    ) -> None:
        self._name = name
        self._role = role
        self._broker = broker
        self._fate = fate
        self._come_to = come_to
        self._habits = habits
        self._subscriptions: list[SimulatedPullSubscription] = []

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._broker.is_up

    @property
    def problems(self) -> list[str]:
        """Nothing is forbidden here."""
        return []

    async def connect(self) -> None:
        """One try. Raises BrokerOutOfReach."""
        await self._come_to("fetch")
        self._check()

    async def ensure(self, inlets: Iterable[Inlet]) -> list[str]:
        """See that streams and consumers are as they should be. Returns what was done, in words."""
        return await Topology(*inlets).ensure(cast(JetStreamContext, JetStream(self._broker, self._come_to)))

    async def publish(self, packets: Sequence[Packet]) -> list[Packet]:
        """Publish. Returns those that the broker says it has. Raises BrokerOutOfReach."""
        await self._come_to("publish")
        self._check()
        stored = [packet for packet in packets if self._publish(packet)]
        await self._come_to("published")
        if not stored:
            raise BrokerOutOfReach("the broker took no message")
        return stored

    def source(self, inlet: Inlet) -> Intake:
        """What comes through an inlet. It is not started yet."""
        subscription = SimulatedPullSubscription(self._broker, inlet, self._come_to)
        self._subscriptions.append(subscription)
        return Intake(subscription, room=self._habits.room, at_once=self._habits.at_once, expires=self._habits.expires)

    async def close(self) -> None:
        """Leave."""
        self.hang_up()

    def hang_up(self) -> None:
        """Without a word: what was sent comes again when nobody has acknowledged it."""
        for subscription in self._subscriptions:
            subscription.hang_up()

    def _publish(self, packet: Packet) -> bool:
        stored = self._broker.store(packet, self._role)
        if self._fate.lines is not None:
            done = "has published" if stored else "was not told that the broker has"
            self._fate.note(f"{self._name}: {done} {packet.subject} {packet.message_id}")
        return stored

    def _check(self) -> None:
        if not self._broker.is_up:
            raise BrokerOutOfReach("the broker is away")


class SimulatedPullSubscription:
    """An `outbox.pull.PullSubscription`: the line of one replica to one consumer."""

    def __init__(self, broker: SimulatedBroker, inlet: Inlet, come_to: ComeTo) -> None:
        self._broker = broker
        self._inlet = inlet
        self._come_to = come_to
        self._line: Line | None = None

    @property
    def is_up(self) -> bool:
        """Whether anybody would hear a request at this moment."""
        return self._broker.is_up and self._line is not None

    async def open(self, listener: Listener) -> None:
        """Be connected from now on, whenever the broker is there."""
        if self._line is None:
            await self._come_to("fetch")
            if not self._broker.is_up:
                raise BrokerOutOfReach("the messages cannot be fetched")
            self._line = Line(self._inlet.durable, self._come_to, listener)

    async def ask(self, request: int, messages: int, expires: float) -> None:
        """Ask for so many messages, within so many seconds."""
        await self._come_to("fetch")
        if self._line is not None:
            self._broker.ask(self._line, self._inlet.stream, request, messages, expires)

    async def leave(self) -> None:
        """Be sent no more. What is on its way arrives."""
        await self._come_to("fetch")
        line, broker = self._line, self._broker
        if line is None:
            return
        if not broker.is_up:
            raise BrokerOutOfReach("the broker does not let us go")
        broker.forget(line)
        while line.on_its_way:
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Hang up."""
        self.hang_up()

    def hang_up(self) -> None:
        """Void what was asked for, and hear nothing more."""
        if self._line is not None:
            self._line.is_dead = True
            self._broker.forget(self._line)
            self._line = None


class JetStream:
    """As much of nats-py's JetStreamContext as `outbox.topology.Topology` needs."""

    def __init__(self, broker: SimulatedBroker, come_to: ComeTo) -> None:
        self._broker = broker
        self._come_to = come_to

    async def stream_info(self, name: str) -> Stream:
        """Raises NotFoundError."""
        streams = await self._streams()
        return streams[name] if name in streams else _missing(name)

    async def add_stream(self, config: StreamConfig) -> None:
        """Make a stream."""
        (await self._streams()).setdefault(config.name or "", Stream(config))

    async def update_stream(self, config: StreamConfig) -> None:
        """Change the settings of a stream."""
        (await self._streams())[config.name or ""].config = config

    async def consumer_info(self, stream: str, durable: str) -> Consumer:
        """Raises NotFoundError."""
        consumers = (await self.stream_info(stream)).consumers
        return consumers[durable] if durable in consumers else _missing(durable)

    async def add_consumer(self, stream: str, config: ConsumerConfig) -> None:
        """Make a consumer, or change its settings."""
        found = await self.stream_info(stream)
        durable = config.durable_name or ""
        if durable in found.consumers:
            found.consumers[durable].config = config
            return
        consumer = found.consumers[durable] = Consumer(config, list(found.kept.values()))
        consumer.backlog = list(consumer.pending.values())

    async def _streams(self) -> dict[str, Stream]:
        await self._come_to("fetch")
        if not self._broker.is_up:
            raise OSError("the broker is away")
        return self._broker.streams


def _missing(name: str) -> Any:
    raise NotFoundError(code=404, description=f"{name} not found")
