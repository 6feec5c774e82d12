"""A command that kills whoever handles it: its neighbours are handled, it alone is buried, and people are told.

The process is a `saga run inventory` that SIGKILL ends, and somebody starts again, as a container's runtime does.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.registry import Definitions
from outbox.broker import Broker
from outbox.suspects import DEADLY_AFTER, SUSPECT_AFTER
from outbox.topology import COMMANDS
from tests.support import deadly
from tests.support.cli import Saga
from tests.support.messaging import stored
from tests.support.servers import SqliteDatabases
from tests.support.waiting import eventually
from tests.support.world import ROLES, World, an_order

REASON: Final = f"{DEADLY_AFTER} processes died with it in hand, and lately with nothing else"


@pytest.fixture
async def world(nats: EmbeddedNats, tmp_path: Path) -> AsyncIterator[World]:
    """All but the inventory run."""
    async with World(SqliteDatabases(tmp_path), nats.url, definitions=Definitions([deadly.patient])) as world:
        await world.start("orchestrator", "order", "payment")
        yield world


@pytest.fixture
def saga(nats: EmbeddedNats, tmp_path: Path) -> Saga:
    """The same databases. What a death leaves behind is soon delivered again."""
    urls = SqliteDatabases(tmp_path)
    settings = {f"SAGA_{role.upper()}_DATABASE_URL": urls(role) for role in ROLES}
    return Saga(
        tmp_path, SAGA_NATS_URL=nats.url, SAGA_ACK_WAIT="1", SAGA_DEFINITIONS="tests.support.deadly", **settings
    )


@asynccontextmanager
async def started_again_until_it_lives(saga: Saga, world: World) -> AsyncIterator[int]:
    """Tells how often the inventory has died."""
    deaths = 0
    while True:
        with saga.background("run", "inventory", function=deadly.SAGA) as process:

            async def has_died_or_buried() -> bool:
                return process.code is not None or bool(await world.dead_letters("inventory"))

            await eventually(has_died_or_buried, "it dies, or buries", seconds=60)
            if process.code is None:
                yield deaths
                return
            assert process.code == -signal.SIGKILL, process.err
            deaths += 1


async def packets(nats: EmbeddedNats) -> list[tuple[str, ...]]:
    """The ids of the commands to reserve stock, message by message."""
    broker = Broker(nats.url, name="test")
    await broker.connect()
    found = await stored(broker.jetstream, COMMANDS)
    await broker.close()
    wanted = [message for message in found if message.subject == "saga.cmd.inventory.reserve-stock"]
    return [tuple(event.id for event in message.events) for message in wanted]


@pytest.mark.timeout(300)  # ten processes, one after the other
async def test_only_the_command_that_kills_is_buried_and_people_are_told(
    nats: EmbeddedNats, world: World, saga: Saga
) -> None:
    saga_ids = await world.place(an_order(), an_order(quantity=deadly.DEADLY_QUANTITY), an_order())
    before, killer, after = saga_ids
    await world.until_asked(saga_ids, "reserve-stock")

    async with started_again_until_it_lives(saga, world) as deaths:
        assert deaths == SUSPECT_AFTER + DEADLY_AFTER
        assert await world.until_ended([before, after]) == ["completed"] * 2
        assert await packets(nats) == [tuple(f"{saga_id}/reserve-stock/do" for saga_id in saga_ids)]
        assert await world.dead_letters("inventory") == [REASON]
        shown = await asyncio.to_thread(saga, "dlq", "show", "inventory/1")
        assert REASON in shown.out
        assert f"{killer}/reserve-stock/do" in shown.out
        told = (await asyncio.to_thread(saga, "why", killer)).out
        assert f"it is the dead letter inventory/1 ({REASON}); it is asked again in " in told
        assert "saga dlq redrive inventory/1 --reason" in told

    with saga.background("run", "inventory"):
        redriven = await asyncio.to_thread(saga, "dlq", "redrive", "inventory/1", "--reason", "it is mended")
        assert redriven.code == 0
        assert await world.until_ended([killer]) == ["completed"]
        assert await world.findings() == []
