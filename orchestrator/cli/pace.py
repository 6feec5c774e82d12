"""The pace of `saga start`: what a file holds begins as fast as sagas end, and the rest of it waits in the file.

That is the backpressure. Without it a file would be accepted far faster than participants can work, and a pipe would
never be told to wait.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from nats.errors import Error as NatsError

from orchestrator.composition import Client
from orchestrator.definition import Saga
from orchestrator.window import Window
from outbox.errors import BrokerOutOfReach
from outbox.topology import command_inlet, is_fetching, reply_inlet

FIRST_LOOK: Final = 0.05
LONGEST_PAUSE: Final = 0.5
FOR_A_CROWD: Final = 1.0
"""Seconds. So long it waits for a tenth of the window to be free, because many are started more cheaply than one."""

STANDSTILL: Final = 5.0
"""Seconds. When nothing has ended for so long, a person is told why."""

LOOKS: Final = 4


class Pace:
    """Hands out places in a window. `patience` is how many seconds it may stand still; None: for ever."""

    def __init__(self, window: Window, patience: float | None, explain: Callable[[], Awaitable[None]]) -> None:
        self._window = window
        self._patience = patience
        self._explain = explain
        self._free = 0

    async def places(self, wanted: int) -> int:
        """Wait until some of `wanted` may begin, and take places for them. 0 when patience is at its end."""
        if not self._free:
            self._free = await self._wait(wanted)
        taken = min(wanted, self._free)
        self._free -= taken
        return taken

    async def _wait(self, wanted: int) -> int:
        loop = asyncio.get_running_loop()
        since, pause, explained = loop.time(), FIRST_LOOK, 0.0
        crowd = min(wanted, max(1, self._window.size // 10))
        while True:
            free, waited = await self._window.places(), loop.time() - since
            if free >= crowd or (free > 0 and waited > FOR_A_CROWD):
                return free
            if self._patience is not None and waited > self._patience:
                return 0
            if waited > explained + STANDSTILL:
                await self._explain()
                explained = waited
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 1.2)


async def why_nothing_ends(client: Client, definition: Saga[Any]) -> str:
    """What a person can do about sagas that do not end, in half a sentence; empty when everybody is at work."""
    try:
        away = await _away(client, definition)
    except (BrokerOutOfReach, NatsError, TimeoutError, OSError):
        return "NATS is out of reach"
    return f"nobody runs {' and '.join(away)}" if away else ""


async def _away(client: Client, definition: Saga[Any]) -> list[str]:
    """The roles that do not fetch what is there for them. Between two fetches nobody does, so we look again."""
    stream = client.broker.jetstream
    inlets = {"the orchestrator": reply_inlet()}
    inlets |= {name: command_inlet(name) for name in sorted(definition.participants - {"orchestrator"})}
    for _ in range(LOOKS):
        inlets = {name: inlet for name, inlet in inlets.items() if not await is_fetching(stream, inlet)}
        if not inlets:
            break
        await asyncio.sleep(0.1)
    return list(inlets)
