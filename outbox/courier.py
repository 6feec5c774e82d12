"""The courier: what a service needs of a broker, and NATS as one.

The database is the truth and the broker only carries (promise 2), so this is all that a service knows of it. A
simulation stands in here, with a courier that loses, doubles and forgets.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import structlog

from outbox.broker import Broker
from outbox.delivery import Delivery
from outbox.envelope import Packet
from outbox.intake import Intake
from outbox.pull import NatsPullSubscription
from outbox.topology import COMMANDS, EVENTS, REPLIES, Inlet, Topology

log = structlog.get_logger()

SILENT_PUBLICATIONS: Final = {COMMANDS: 4, REPLIES: 4, EVENTS: 16}
"""In a row, each of which has waited for its answer: a stream that has left so many without one is broken.

Twenty seconds; and more than two minutes for events, which nobody asks for again when they are gone.
"""


class Publisher(Protocol):
    """Takes messages to the broker."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment."""
        ...

    async def publish(self, packets: Sequence[Packet]) -> list[Packet]:
        """Publish and wait for the broker to have stored them. Returns those that it has. Raises BrokerOutOfReach."""
        ...


class Source(Protocol):
    """What comes through one inlet."""

    async def start(self) -> None:
        """Begin to fetch. Raises BrokerOutOfReach."""
        ...

    async def stop(self) -> None:
        """Fetch no more, and give back what was fetched and not taken."""
        ...

    def hold(self) -> None:
        """Fetch no more until something is taken again."""
        ...

    async def take(self) -> list[Delivery]:
        """Wait for a message, and take with it what else is already there."""
        ...


class Courier(Publisher, Protocol):
    """Carries the messages of one service."""

    @property
    def problems(self) -> list[str]:
        """What it cannot carry until a person has changed something, though the broker is there."""
        ...

    async def connect(self) -> None:
        """One try. Raises BrokerOutOfReach."""
        ...

    async def ensure(self, inlets: Iterable[Inlet]) -> list[str]:
        """See that streams and consumers are as they should be. Returns what was done, in words."""
        ...

    def source(self, inlet: Inlet) -> Source:
        """What comes through an inlet. It is not started yet."""
        ...

    async def close(self) -> None:
        """Leave."""
        ...


class NatsCourier(Broker):
    """One service's connections to NATS: one that publishes, and one for each inlet."""

    def __init__(self, url: str, role: str, *, replicas: int = 1) -> None:
        super().__init__(url, name=f"amends-{role}")
        self._role = role
        self._replicas = replicas
        self._seen: dict[str, tuple[str, int] | None] = {}
        """Stream that answers us nothing -> what it was when that began: one that takes from others is not broken."""

    async def ensure(self, inlets: Iterable[Inlet]) -> list[str]:
        """See that streams and consumers are as they should be. Returns what was done, in words."""
        self._seen = {stream: state for stream, state in self._seen.items() if stream in self.silent}
        for stream, publications in list(self.silent.items()):
            await self._suspect(stream, publications)
        return await Topology(*inlets, replicas=self._replicas).ensure(self.jetstream)

    async def _suspect(self, stream: str, publications: int) -> None:
        """Delete a stream that is there and takes nothing: its files are gone, and nobody but us will notice.

        What it holds is asked for again, as after any loss of the broker's; while it takes nothing nothing goes on.
        """
        state = await Topology.state_of(self.jetstream, stream)
        if state is None or state != self._seen.get(stream):  # none; the first look; it takes messages; or is made anew
            self.silent[stream] = 1
            self._seen[stream] = state
        elif publications >= SILENT_PUBLICATIONS[stream]:
            log.error("a stream is there and takes no message: it is deleted and made anew", stream=stream)
            await Topology.delete(self.jetstream, stream)
            self.silent.pop(stream, None)
            del self._seen[stream]

    def source(self, inlet: Inlet) -> Intake:
        """What comes through an inlet. It is not started yet."""
        return Intake(NatsPullSubscription(self.url, inlet, name=f"amends-{self._role}-intake"))
