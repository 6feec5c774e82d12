"""A constant stream of orders. Each has a key, so that it can be sent again when nobody knows whether it was taken: the
database restarts under us as it does under everybody.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.exc import DBAPIError

from chaos import orders
from orchestrator.composition import Client
from orchestrator.store import LostRace
from outbox.errors import OutOfReach

AT_ONCE: Final = 200
DEFINITION: Final = "place-order"
PAUSE: Final = 0.25


@dataclass(slots=True)
class Load:
    """Starts orders, in the order of their numbers."""

    client: Client
    seed: int
    rate: float
    most: int | None
    started: dict[int, str] = field(default_factory=dict)
    """Number -> the saga that we were told of."""

    conflicts: list[str] = field(default_factory=list)
    """What an order was answered that it should not have been."""

    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Until `stop`, or until there are no more. Who is late catches up."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not self._stopping.is_set():
            number = len(self.started)
            due = int((loop.time() - began) * self.rate) + 1 - number
            if self.most is not None:
                due = min(due, self.most - number)
            if due > 0:
                await self._start(range(number, number + min(due, AT_ONCE)))
            await asyncio.sleep(min(0.2, 1 / self.rate))

    def stop(self) -> None:
        """The batch in hand is the last; it is sent until it is known to have been taken."""
        self._stopping.set()

    async def _start(self, numbers: range) -> None:
        engine = self.client.engine
        requests = [engine.request(DEFINITION, orders.order(n), orders.key(self.seed, n)) for n in numbers]
        while True:
            try:
                results = await engine.start(requests)
                break
            except (OutOfReach, LostRace, DBAPIError):
                await asyncio.sleep(PAUSE)
        for number, result in zip(numbers, results, strict=True):
            if result.outcome == "conflict":
                self.conflicts.append(f"order {number}: its key belongs to saga {result.saga_id}, with another input")
            self.started[number] = result.saga_id
