"""Processes that die or freeze: roles and servers."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import psutil

from chaos.errors import Missed
from chaos.faults.world import World
from chaos.names import POSTGRES, PROCESSES
from chaos.plan import Planned
from chaos.record import Fault

RESTART_AFTER: Final = 0.3
"""Seconds until whoever looks after a process starts it again."""

SEEN_WITHIN: Final = 2.0


async def kill(world: World, planned: Planned) -> list[Fault]:
    """SIGKILL. The process is started again a moment later."""
    name = planned.target
    async with world.hold(name):
        at = world.now()
        if name in PROCESSES:
            await world.fleet.kill(name)
            await asyncio.sleep(RESTART_AFTER)
            world.fleet.start(name)
        else:
            await kill_server(world, name)
            await asyncio.sleep(RESTART_AFTER)
            await world.site.start(name)
        return [world.fault(planned, at, "SIGKILL")]


async def kill_server(world: World, name: str) -> None:
    """SIGKILL to a server, with all its processes. Raises Missed when it did not run."""
    server = world.site.server(name)
    if not server.running:
        raise Missed(f"{name} does not run")
    await asyncio.to_thread(server.kill)


async def restart_database(world: World, planned: Planned) -> list[Fault]:
    """PostgreSQL's immediate shutdown, and a start that has to replay its log."""
    async with world.hold(POSTGRES):
        at, server = world.now(), world.site.postgres
        if not server.running:
            raise Missed(f"{POSTGRES} does not run")
        try:
            await asyncio.to_thread(server.stop_at_once)
            await asyncio.sleep(planned.lasts)
        finally:
            await world.site.start(POSTGRES)
        return [world.fault(planned, at, "immediate shutdown")]


async def pause(world: World, planned: Planned) -> list[Fault]:
    """SIGSTOP, to a server with all its processes; SIGCONT after a while."""
    name = planned.target
    async with world.hold(name):
        at = world.now()
        async with standing_still(world.fleet.pid(name) if name in PROCESSES else world.site.server(name).pid) as count:
            await asyncio.sleep(planned.lasts)
        return [world.fault(planned, at, f"SIGSTOP to {count} processes" if count > 1 else "SIGSTOP")]


@asynccontextmanager
async def standing_still(pid: int) -> AsyncIterator[int]:
    """A process and its children are stopped while the block runs. Says how many. Raises Missed."""
    family = _family(pid)
    try:
        for one in family:
            _send(one, signal.SIGSTOP)
        await _until_stopped(family[0])
        yield len(family)
    finally:
        for one in family:
            _send(one, signal.SIGCONT)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):  # the database's processes come and go
        process.send_signal(number)


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess as error:
        raise Missed(f"process {pid} does not run") from error


async def _until_stopped(process: psutil.Process) -> None:
    deadline = asyncio.get_running_loop().time() + SEEN_WITHIN
    while not process.is_running() or process.status() != psutil.STATUS_STOPPED:
        if asyncio.get_running_loop().time() > deadline:
            raise Missed(f"process {process.pid} does not stand still")
        await asyncio.sleep(0.005)
