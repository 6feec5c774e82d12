"""What a fault has in hand: the servers, the wires, the processes, and who is being hit already."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from nats.js import JetStreamContext

from chaos.errors import Missed
from chaos.fleet import Fleet
from chaos.plan import Planned
from chaos.record import Fault
from chaos.site import Site
from orchestrator.composition import Client
from outbox.errors import BrokerOutOfReach
from outbox.within import within

PATIENCE: Final = 5.0
"""Seconds that a fault waits for its turn at a victim that is being hit already."""


@dataclass(slots=True)
class World:
    """One run, as the faults see it."""

    site: Site
    fleet: Fleet
    client: Client
    began: float
    """The time of the loop at which the run began."""

    _turns: dict[str, asyncio.Lock] = field(default_factory=dict)

    def now(self) -> float:
        """Seconds since the run began."""
        return asyncio.get_running_loop().time() - self.began

    @asynccontextmanager
    async def hold(self, *victims: str) -> AsyncIterator[None]:
        """Nobody else hits these meanwhile. Raises Missed when somebody does for too long."""
        async with AsyncExitStack() as stack:
            for victim in sorted(victims):
                turn = self._turns.setdefault(victim, asyncio.Lock())
                try:
                    async with within(PATIENCE):
                        await turn.acquire()
                except TimeoutError:
                    raise Missed(f"{victim} is being hit by another fault") from None
                stack.callback(turn.release)
            yield

    def jetstream(self) -> JetStreamContext:
        """Our own connection, over no wire. Raises Missed."""
        try:
            return self.client.broker.jetstream
        except BrokerOutOfReach as error:
            raise Missed(str(error)) from error

    def fault(self, planned: Planned, at: float, detail: str = "", *, kind: str | None = None) -> Fault:
        """It has fired at that time, and is over now."""
        return Fault(kind=kind or planned.kind, target=planned.target, at=at, until=self.now(), detail=detail)
