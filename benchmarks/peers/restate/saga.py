"""The saga as Restate's documentation writes one: a list of compensations, gone through backwards on failure.

An ASGI server serves `app`. The handler is run by Restate, which keeps the outcome of every `ctx.run` durably and
calls again after a crash, so a step that was done is not done twice.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable

import asyncpg
import restate
from restate.exceptions import TerminalError

from benchmarks.peers import work

saga = restate.Service("Saga")


@saga.handler()
async def run(ctx: restate.Context, order: dict[str, int | str]) -> None:
    """Step after step; when one fails for good, the undo of every step that may have been done."""
    saga_id, steps = str(order["saga_id"]), int(order["steps"])
    compensations: list[Callable[[], Awaitable[None]]] = []
    try:
        for step in range(steps):
            compensations.append(  # before the step: it may fail after it had its effect
                lambda step=step: ctx.run_typed(f"undo {step}", _undo, saga_id=saga_id, step=step)
            )
            await ctx.run_typed(f"step {step}", _carry_out, saga_id=saga_id, step=step)
    except TerminalError:
        for compensation in reversed(compensations):
            await compensation()
        raise


app = restate.app([saga])


class _Pools:
    """The participants' databases, connected to when the first step asks: by then the event loop runs."""

    def __init__(self) -> None:
        self._urls: dict[str, str] | None = json.loads(os.environ.get("PEER_STEPS_ON", "null"))
        self._lock = asyncio.Lock()
        self._opened: list[asyncpg.Pool] | None = None

    async def opened(self) -> list[asyncpg.Pool]:
        """No pools at all when steps are to do nothing."""
        if self._opened is None:
            async with self._lock:
                if self._opened is None:
                    self._opened = await work.open_pools(self._urls) if self._urls else []
        return self._opened


_pools = _Pools()


async def _carry_out(saga_id: str, step: int) -> None:
    if pools := await _pools.opened():
        await work.carry_out(pools, saga_id, step)


async def _undo(saga_id: str, step: int) -> None:
    if pools := await _pools.opened():
        await work.undo(pools, saga_id, step)
