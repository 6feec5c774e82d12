"""Lets the faults happen that were planned, and keeps what came of each."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

import structlog

from chaos.errors import Missed
from chaos.faults import STRIKES
from chaos.faults.world import World
from chaos.plan import Planned
from chaos.record import Fault

log = structlog.get_logger()

MOST_AT_ONCE: Final = 6
"""Faults; beyond that one does not see any more what comes of which."""


@dataclass(slots=True)
class Injector:
    """Lets the faults happen that were planned."""

    world: World
    faults: list[Fault] = field(default_factory=list)
    missed: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    """Faults that were not made, or not taken back, as they should be."""

    _under_way: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, planned: list[Planned]) -> None:
        """One after another at their times, each in a task of its own; until the last is over."""
        for one in planned:
            await asyncio.sleep(max(0.0, one.at - self.world.now()))
            if len(self._under_way) >= MOST_AT_ONCE:
                self._miss("too much was happening already")
                continue
            task = asyncio.create_task(self._strike(one))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        while self._under_way:
            await asyncio.gather(*self._under_way)

    async def _strike(self, planned: Planned) -> None:
        try:
            self.faults.extend(await STRIKES[planned.kind](self.world, planned))
        except Missed as reason:
            self._miss(f"{planned.kind}: {reason}")
        except Exception as error:  # an hour of faults should not be lost to one, but it must be seen
            log.error("a fault went wrong", kind=planned.kind, target=planned.target, exc_info=error)
            self.wrong.append(f"{planned.kind} of {planned.target} went wrong: {type(error).__name__}: {error}")

    def _miss(self, reason: str) -> None:
        self.missed[reason] = self.missed.get(reason, 0) + 1
