"""A disk that is full for a while. Who has given up by then is started again."""

import asyncio
from contextlib import suppress

from chaos.errors import Missed
from chaos.faults.processes import kill_server
from chaos.faults.world import World
from chaos.names import POSTGRES
from chaos.plan import Planned
from chaos.record import Fault


async def fill(world: World, planned: Planned) -> list[Fault]:
    """Not a byte is left on a server's disk, until somebody makes room."""
    name = planned.target
    disk = world.site.disks.get(name)
    if disk is None:
        raise Missed(f"{name} has no disk of its own")
    async with world.hold(name):
        at = world.now()
        before = await asyncio.to_thread(disk.fill)
        try:
            full = disk.free
            await asyncio.sleep(planned.lasts)
        finally:
            await asyncio.to_thread(disk.relieve)
        died = not world.site.server(name).running
        with suppress(Missed):
            if name != POSTGRES:  # it switches JetStream off for good when a write has failed
                await kill_server(world, name)
        await world.site.start(name)
        if full > 1 << 20:
            raise Missed(f"{full:,} bytes were still free on the disk of {name}")
        after = "; the server had died of it" if died else ""
        return [world.fault(planned, at, f"{before >> 20:,} MiB were taken{after}")]
