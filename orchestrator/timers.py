"""Timers: what is due is looked for again and again, and fired as long as what it asks for can leave."""

import time
from collections.abc import Callable
from typing import Final

from orchestrator.engine import TIMERS_AT_ONCE, Engine
from outbox.loops import forever
from outbox.outages import CONNECTION, outages
from outbox.relay import lane_to
from outbox.topology import COMMANDS

TICK: Final = 0.2
"""Seconds between two looks at what is due."""

SETTLING: Final = 5.0
"""Seconds after an outage of NATS in which what has waited for it may be answered, before it is asked again."""

SENDING: Final = (CONNECTION, lane_to(COMMANDS))
"""Who notices first that no command can leave."""


class Timers:
    """Fires the timers of one engine. Time goes by as `monotonic` says, in seconds."""

    def __init__(self, engine: Engine, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._monotonic = monotonic
        self._held_until = 0.0

    async def fire(self) -> float:
        """One look. Returns how many seconds to pause before the next one.

        In an outage of NATS nothing fires: what is asked again would not leave, and only use up attempts
        (docs/adr/0027).
        """
        if is_cut_off := outages().are_noticed_by(*SENDING):
            self._held_until = self._monotonic() + SETTLING
        if is_cut_off or self._monotonic() < self._held_until:
            return TICK
        return 0.0 if await self._engine.fire_timers() == TIMERS_AT_ONCE else TICK


async def run_timers(engine: Engine) -> None:
    """Fire timers until cancelled. An outage of the database is waited out; the timers are still there after it."""
    await forever("fire the timers", Timers(engine).fire)
