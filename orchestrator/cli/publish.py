"""Bringing what a command has written to the broker; without one the orchestrator does it when it can."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from orchestrator.cli.console import say
from orchestrator.composition import Client
from outbox.errors import BrokerOutOfReach

PATIENCE = 5.0
"""Seconds that a command waits in the end for what it has in hand to be published."""


@asynccontextmanager
async def publishing(client: Client, otherwise: str) -> AsyncIterator[None]:
    """Publish what is committed inside the block. Warns with `otherwise` when the broker is out of reach."""
    if not await _connect(client, otherwise):
        client.engine.outbox.on_commit(lambda _: None)  # or the relay would hold in memory what it never sends
        yield
        return
    relaying = asyncio.create_task(client.relay.run())
    try:
        yield
        await client.relay.drain(PATIENCE)
    finally:
        relaying.cancel()
        with suppress(asyncio.CancelledError):
            await relaying


async def publish(client: Client, otherwise: str) -> None:
    """Publish what was committed. Warns with `otherwise` when the broker is out of reach."""
    if await _connect(client, otherwise):
        try:
            await client.relay.flush()
        except BrokerOutOfReach as error:
            say(f"warning: {error}. {otherwise}")


async def _connect(client: Client, otherwise: str) -> bool:
    try:
        await client.connect()
    except BrokerOutOfReach as error:
        say(f"warning: {error}. {otherwise}")
        return False
    return True
