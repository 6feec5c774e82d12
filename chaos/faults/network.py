"""The network between any two: cut, cut in one direction, slow, lossy, or broken off (see `wire`)."""

import asyncio
import random
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
    async with world.hold(planned.target):
        at, wire = world.now(), _wire(world, planned)
        wire.cut(wire.up, wire.down)
        return await _mended(world, planned, wire, at, f"{len(wire.sides) // 2} connections")


async def cut_one_way(world: World, planned: Planned) -> list[Fault]:
    """Nothing passes in one direction; in the other all goes on."""
    async with world.hold(planned.target):
        at, wire = world.now(), _wire(world, planned)
        up = random.Random(planned.luck).random() < 0.5
        wire.cut(wire.up if up else wire.down)
        way = "to" if up else "from"
        return await _mended(world, planned, wire, at, f"{way} the server, {len(wire.sides) // 2} connections")


async def delay(world: World, planned: Planned) -> list[Fault]:
    """Everything comes late."""
    async with world.hold(planned.target):
        at, wire = world.now(), _wire(world, planned)
        seconds = random.Random(planned.luck).uniform(*DELAYS)
        wire.up.delay = wire.down.delay = seconds
        return await _suffered(world, planned, wire, at, f"{seconds * 1000:.0f} ms each way")


async def lose(world: World, planned: Planned) -> list[Fault]:
    """Segments are lost and sent again."""
    async with world.hold(planned.target):
        at, wire = world.now(), _wire(world, planned)
        share = random.Random(planned.luck).uniform(*LOSSES)
        wire.up.loss = wire.down.loss = share
        return await _suffered(world, planned, wire, at, f"{share:.0%} lost")


async def reset(world: World, planned: Planned) -> list[Fault]:
    """Every connection is broken off."""
    async with world.hold(planned.target):
        at, count = world.now(), _wire(world, planned).reset()
        return [world.fault(planned, at, f"{count} connections")]


def _wire(world: World, planned: Planned) -> Wire:
    wire = world.site.wires[planned.target]
    if not wire.sides:
        raise Missed(f"nobody is connected over {wire.name}")
    return wire


async def _mended(world: World, planned: Planned, wire: Wire, at: float, detail: str) -> list[Fault]:
    try:
        await asyncio.sleep(planned.lasts)
    finally:
        wire.mend()
    return [world.fault(planned, at, detail)]


async def _suffered(world: World, planned: Planned, wire: Wire, at: float, detail: str) -> list[Fault]:
    before = wire.suffered
    faults = await _mended(world, planned, wire, at, detail)
    if wire.suffered == before:
        raise Missed(f"nothing came over {wire.name} meanwhile")
    return faults
