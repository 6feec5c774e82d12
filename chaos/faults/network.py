"""The network between any two: cut, cut in one direction, slow, lossy, or broken off (see `wire`)."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from chaos.errors import Missed
from chaos.faults.world import World
from chaos.plan import Planned
from chaos.record import Fault
from chaos.wire import Wire

DELAYS: Final = (0.02, 0.4)
"""Seconds; to and fro makes twice as much."""

LOSSES: Final = (0.05, 0.4)


async def cut(world: World, planned: Planned) -> list[Fault]:
    """Nothing passes in either direction."""
    async with _impaired(world, planned) as (wire, at):
        wire.cut(wire.up, wire.down)
        count = len(wire.sides) // 2
    return [world.fault(planned, at, f"{count} connections")]


async def cut_one_way(world: World, planned: Planned) -> list[Fault]:
    """Nothing passes in one direction; in the other all goes on."""
    up = random.Random(planned.luck).random() < 0.5
    async with _impaired(world, planned) as (wire, at):
        wire.cut(wire.up if up else wire.down)
        count = len(wire.sides) // 2
    return [world.fault(planned, at, f"{'to' if up else 'from'} the server, {count} connections")]


async def delay(world: World, planned: Planned) -> list[Fault]:
    """Everything comes late."""
    seconds = random.Random(planned.luck).uniform(*DELAYS)
    async with _suffered(world, planned) as (wire, at):
        wire.up.delay = wire.down.delay = seconds
    return [world.fault(planned, at, f"{seconds * 1000:.0f} ms each way")]


async def lose(world: World, planned: Planned) -> list[Fault]:
    """Segments are lost and sent again."""
    share = random.Random(planned.luck).uniform(*LOSSES)
    async with _suffered(world, planned) as (wire, at):
        wire.up.loss = wire.down.loss = share
    return [world.fault(planned, at, f"{share:.0%} lost")]


async def reset(world: World, planned: Planned) -> list[Fault]:
    """Every connection is broken off."""
    async with _impaired(world, planned) as (wire, at):
        count = wire.reset()
    return [world.fault(planned, at, f"{count} connections")]


@asynccontextmanager
async def _impaired(world: World, planned: Planned) -> AsyncIterator[tuple[Wire, float]]:
    """A wire, and the time. It stays as the block leaves it for as long as was planned, and is mended then.

    Raises Missed when nobody is connected over it.
    """
    async with world.hold(planned.target):
        wire = world.site.wires[planned.target]
        if not wire.sides:
            raise Missed(f"nobody is connected over {wire.name}")
        try:
            yield wire, world.now()
            await asyncio.sleep(planned.lasts)
        finally:
            wire.mend()


@asynccontextmanager
async def _suffered(world: World, planned: Planned) -> AsyncIterator[tuple[Wire, float]]:
    """The same, and somebody must have noticed. Raises Missed when nothing came meanwhile."""
    async with _impaired(world, planned) as (wire, at):
        before = wire.suffered
        yield wire, at
    if wire.suffered == before:
        raise Missed(f"nothing came over {wire.name} meanwhile")
