"""Processes that are not what they should be: a clock that jumps, a participant that answers as it likes."""

import asyncio
from typing import Any

from chaos.account import read
from chaos.errors import Missed
from chaos.faults.world import World
from chaos.plan import Planned
from chaos.record import Fault
from orchestrator.cli.processes import role_of


async def skew_clock(world: World, planned: Planned) -> list[Fault]:
    """A process whose clock of the day jumps to and fro by hours; nobody's deadline may depend on it."""
    at, told = await _replaced(world, planned, "chaos.skewed:main")
    if not told["jumps"]:
        raise Missed("the clock did not jump")
    seconds = f"{told['least']:+,.0f} s to {told['most']:+,.0f} s"
    return [world.fault(planned, at, f"{told['jumps']} jumps, from {seconds}")]


async def go_rogue(world: World, planned: Planned) -> list[Fault]:
    """A participant that answers twice, late, never, or with garbage. Each of them is a fault of its own."""
    at, told = await _replaced(world, planned, "chaos.rogue:main")
    done: dict[str, int] = told["done"]
    if not done:
        raise Missed("it had nothing to answer")
    return [world.fault(planned, at, f"{count:,} messages", kind=f"answer-{kind}") for kind, count in done.items()]


async def _replaced(world: World, planned: Planned, function: str) -> tuple[float, dict[str, Any]]:
    """Let another stand in for a process for a while. Returns since when, and what it has told of itself."""
    name = planned.target
    account = world.site.folder / f"{name}.{planned.kind}.json"
    account.unlink(missing_ok=True)
    async with world.hold(name):
        await world.fleet.kill(name)
        at = world.now()
        arguments = (role_of(name), str(account), planned.luck)
        world.fleet.start(name, function=function, arguments=arguments)
        await asyncio.sleep(planned.lasts)
        await world.fleet.kill(name)
        world.fleet.start(name)
    return at, read(account)
