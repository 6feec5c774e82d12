"""The steps of a saga as Temporal activities, and what undoes them."""

from collections.abc import Sequence

import asyncpg
from temporalio import activity

from benchmarks.peers import work


class Steps:
    """Activities on the participants' databases; with no pools they do nothing, which is the engine alone."""

    def __init__(self, pools: Sequence[asyncpg.Pool]) -> None:
        self._pools = pools

    @activity.defn
    async def carry_out(self, saga_id: str, step: int) -> None:
        """Do a step."""
        if self._pools:
            await work.carry_out(self._pools, saga_id, step)

    @activity.defn
    async def undo(self, saga_id: str, step: int) -> None:
        """Take a step back."""
        if self._pools:
            await work.undo(self._pools, saga_id, step)
