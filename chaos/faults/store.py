"""The broker forgets: everything, what came lately, a stream, a consumer."""

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from typing import Final, TypeVar

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import StreamInfo

from chaos.errors import Missed
from chaos.faults.processes import standing_still
from chaos.faults.world import World
from chaos.plan import Planned
from chaos.record import Fault
from orchestrator.embedded.nats_server import EmbeddedNats
from outbox.topology import COMMANDS, EVENTS

T = TypeVar("T")

FILLER: Final = {COMMANDS: "saga.cmd.nobody.filler", EVENTS: "saga.event.nobody.filler"}
"""Subjects that nobody listens on."""

MOST_FILLERS: Final = 20
"""Of 900 kB each: a file of a stream has 8 MiB."""

ANEW_WITHIN: Final = {COMMANDS: 90.0, EVENTS: 240.0}
"""Seconds that a service may take to notice (see `outbox.courier.SILENT_PUBLICATIONS`), beside all else."""


async def wipe(world: World, planned: Planned) -> list[Fault]:
    """Every server of NATS is killed, loses its whole store, and starts anew."""
    async with world.hold(*world.site.nats):
        messages, at = await _messages(world), world.now()
        await _replace_stores(world, lambda server: shutil.rmtree(server.store))
        return [world.fault(planned, at, f"{messages:,} messages were in it")]


async def delete_store(world: World, planned: Planned) -> list[Fault]:
    """The store is deleted under the running servers, as `rm -rf` would; after a while they are started again."""
    async with world.hold(*world.site.nats):
        messages, at = await _messages(world), world.now()
        _need_stores(world)
        try:
            for server in world.site.nats.values():
                await asyncio.to_thread(shutil.rmtree, server.store, ignore_errors=True)
            await asyncio.sleep(planned.lasts)
        finally:
            async with _servers_down(world):
                pass
        return [world.fault(planned, at, f"{messages:,} messages were in it; the servers ran on for a while")]


async def abandon(world: World, planned: Planned) -> list[Fault]:
    """The store is deleted under the running server, and nobody starts it again.

    It goes on with its open files; so one stream is filled until it needs another file, and takes no more. Whoever
    publishes has to notice, and to make it anew.
    """
    stream, name = world.jetstream(), random.Random(planned.luck).choice(list(FILLER))
    async with world.hold(*world.site.nats, name):
        messages, at = await _messages(world), world.now()
        _need_stores(world)
        before = (await _asked(lambda: stream.stream_info(name))).created
        for server in world.site.nats.values():
            await asyncio.to_thread(shutil.rmtree, server.store, ignore_errors=True)
        if not await _fills_up(stream, FILLER[name]):
            raise Missed(f"{name} took everything")
        deaf_at = world.now()
        is_anew = await _made_anew(world, stream, name, before)
        took = f"made anew after {world.now() - deaf_at:.1f} s"
        how = took if is_anew else f"not made anew within {ANEW_WITHIN[name]:g} s"
        return [world.fault(planned, at, f"{messages:,} commands were in it; {name} took no more, and was {how}")]


async def _made_anew(world: World, stream: JetStreamContext, name: str, before: datetime | None) -> bool:
    """Somebody has replaced a stream, within the time that it may take. When nobody does, sagas will not end."""
    deadline = world.now() + ANEW_WITHIN[name]
    while world.now() < deadline:
        with suppress(NatsError, TimeoutError, OSError):
            if (await stream.stream_info(name)).created != before:
                return True
        await asyncio.sleep(0.2)
    return False


async def _fills_up(stream: JetStreamContext, subject: str) -> bool:
    """Publish until nobody answers."""
    for _ in range(MOST_FILLERS):
        try:
            await stream.publish(subject, b" " * 900_000, timeout=2.0)
        except TimeoutError:
            return True
        except (NatsError, OSError) as error:
            raise Missed(f"JetStream: {str(error) or type(error).__name__}") from error
    return False


async def roll_back(world: World, planned: Planned) -> list[Fault]:
    """The store is replaced by a copy of what it was some seconds ago; what came since is forgotten."""
    name = f"copy-{planned.at:.3f}"
    try:
        async with world.hold(*world.site.nats):
            copied, copied_at = await _commands(world), world.now()
            await _copy_stores(world, name)
        await asyncio.sleep(planned.lasts)
        async with world.hold(*world.site.nats):
            lost, at = await _commands(world), world.now()
            if (lost.created, lost.state.last_seq) == (copied.created, copied.state.last_seq):
                raise Missed("nothing came since the copy")
            await _replace_stores(world, lambda server: _put_back(server, name))
            anew = "" if lost.created == copied.created else ", and had been made anew"
            detail = f"to a copy {at - copied_at:.1f} s old, with {COMMANDS} up to {copied.state.last_seq:,}"
            return [world.fault(planned, at, f"{detail}; it was at {lost.state.last_seq:,}{anew}")]
    finally:
        for server in world.site.nats.values():
            shutil.rmtree(server.data_dir / name, ignore_errors=True)


async def delete_stream(world: World, planned: Planned) -> list[Fault]:
    """A stream is gone, with its consumers and all its messages."""
    stream, name = world.jetstream(), planned.target
    async with world.hold(name):
        found: StreamInfo = await _asked(lambda: stream.stream_info(name))
        at = world.now()
        await _asked(lambda: stream.delete_stream(name))
        await _until_back(world, lambda: stream.stream_info(name))
        return [world.fault(planned, at, f"{found.state.messages:,} messages were in it")]


async def delete_consumer(world: World, planned: Planned) -> list[Fault]:
    """A durable consumer is gone, and with it what has been delivered and acknowledged."""
    stream, (name, _, durable) = world.jetstream(), planned.target.partition("/")
    async with world.hold(name):
        await _asked(lambda: stream.consumer_info(name, durable))
        at = world.now()
        await _asked(lambda: stream.delete_consumer(name, durable))
        await _until_back(world, lambda: stream.consumer_info(name, durable))
        return [world.fault(planned, at)]


async def _replace_stores(world: World, replace: Callable[[EmbeddedNats], None]) -> None:
    """Nobody is killed who has no store: where there is nothing to lose, nothing happens."""
    _need_stores(world)
    async with _servers_down(world):
        for server in world.site.nats.values():
            await asyncio.to_thread(replace, server)


def _need_stores(world: World) -> None:
    """Raises Missed when a server does not run, or has no store: an earlier fault may have deleted it."""
    for name, server in world.site.nats.items():
        if not server.running:
            raise Missed(f"{name} does not run")
        if not server.store.exists():
            raise Missed(f"there is no store at {server.store}")


@asynccontextmanager
async def _servers_down(world: World) -> AsyncIterator[None]:
    """Every server of NATS is killed, and started again after the block, whatever happens in it."""
    async with AsyncExitStack() as stack:
        for name, server in world.site.nats.items():
            stack.push_async_callback(world.site.start, name)
            await asyncio.to_thread(server.kill)
        yield


def _put_back(server: EmbeddedNats, copy: str) -> None:
    shutil.rmtree(server.store)
    (server.data_dir / copy).rename(server.store)


async def _copy_stores(world: World, name: str) -> None:
    """All at one moment: every server stands still meanwhile, as a disk's snapshot would have it. Raises Missed."""
    _need_stores(world)
    async with AsyncExitStack() as stack:
        for server in world.site.nats.values():
            await stack.enter_async_context(standing_still(server.pid))
        for server in world.site.nats.values():
            await asyncio.to_thread(shutil.copytree, server.store, server.data_dir / name)


async def _messages(world: World) -> int:
    """How many commands the broker holds. Raises Missed when there are none: to lose nothing is no fault."""
    held = (await _commands(world)).state.messages
    if not held:
        raise Missed("the store is empty")
    return held


async def _commands(world: World) -> StreamInfo:
    stream = world.jetstream()
    return await _asked(lambda: stream.stream_info(COMMANDS))


async def _asked(ask: Callable[[], Awaitable[T]]) -> T:
    """Raises Missed: whoever does not answer, or is not there, cannot be hit."""
    try:
        return await ask()
    except (NatsError, TimeoutError, OSError) as error:
        raise Missed(f"JetStream: {str(error) or type(error).__name__}") from error


async def _until_back(world: World, look: Callable[[], Awaitable[object]]) -> None:
    """Somebody has put it back. When nobody does the sagas will not end, and that is what is judged."""
    deadline = world.now() + 30.0
    while world.now() < deadline:
        try:
            await look()
            return
        except (NatsError, TimeoutError, OSError):
            await asyncio.sleep(0.05)
