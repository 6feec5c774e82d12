"""One process's courier, simulated: what it publishes, fetches and finds of the topology, as the broker has it."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, StreamConfig
from nats.js.errors import NotFoundError

from outbox.envelope import Packet
from outbox.errors import BrokerOutOfReach
from outbox.intake import Delivery
from outbox.topology import Inlet, Topology
from simulation.broker import ComeTo, Consumer, Listener, SimulatedBroker, Stream
from simulation.fate import Fate


class SimulatedCourier:
    """An `outbox.courier.Courier`."""

    def __init__(self, name: str, role: str, broker: SimulatedBroker, fate: Fate, come_to: ComeTo) -> None:
        self._name = name
        self._role = role
        self._broker = broker
        self._fate = fate
        self._come_to = come_to

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._broker.is_up

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

    def source(self, inlet: Inlet) -> "SimulatedSource":
        """What comes through an inlet. It is not started yet."""
        return SimulatedSource(self._broker, Listener(inlet.stream, inlet.durable, self._come_to))

    async def close(self) -> None:
        """Leave."""

    def _publish(self, packet: Packet) -> bool:
        stored = self._broker.store(packet, self._role)
        if self._fate.lines is not None:
            done = "has published" if stored else "was not told that the broker has"
            self._fate.note(f"{self._name}: {done} {packet.subject} {packet.message_id}")
        return stored

    def _check(self) -> None:
        if not self._broker.is_up:
            raise BrokerOutOfReach("the broker is away")


class SimulatedSource:
    """What comes through one inlet to one replica."""

    def __init__(self, broker: SimulatedBroker, listener: Listener) -> None:
        self._broker = broker
        self._listener = listener

    async def start(self) -> None:
        """Begin to fetch."""
        self._broker.listeners.append(self._listener)
        self._broker.serve()

    async def stop(self) -> None:
        """Fetch no more, and give back what was fetched and not taken."""
        self.leave()
        while not self._listener.queue.empty():
            await Delivery(self._listener.queue.get_nowait()).put_back(1.0)

    def leave(self) -> None:
        """Without a word: what was fetched comes again when nobody has acknowledged it."""
        if self._listener in self._broker.listeners:
            self._broker.listeners.remove(self._listener)

    def hold(self) -> None:
        """Fetch no more until something is taken again."""
        self._listener.is_held = True

    async def take(self) -> list[Delivery]:
        """Wait for a message, and take with it what else is already there."""
        if self._listener.is_held:
            self._listener.is_held = False
            self._broker.serve()
        queue = self._listener.queue
        taken = [Delivery(await queue.get())]
        while not queue.empty():
            taken.append(Delivery(queue.get_nowait()))
        return taken


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
        consumer = found.consumers[durable] = Consumer(stream, config, list(found.kept.values()))
        consumer.backlog = list(consumer.pending.values())
        self._broker.serve()

    async def _streams(self) -> dict[str, Stream]:
        await self._come_to("fetch")
        if not self._broker.is_up:
            raise OSError("the broker is away")
        return self._broker.streams


def _missing(name: str) -> Any:
    raise NotFoundError(code=404, description=f"{name} not found")
