"""`saga start`, stopped at the worst moment: it says what the database holds, on both databases."""

import asyncio
import io
from typing import Final

import pytest

from orchestrator.cli.starting import AT_ONCE, Options, Starting
from orchestrator.composition import Client
from outbox.broker import Broker
from outbox.relay import Relay
from outbox.topology import Topology
from tests.support.cli import as_lines
from tests.support.world import Desk, World, an_order

ORDERS: Final = 2 * AT_ONCE + 1


class CtrlC:
    """Interrupts whoever is starting, when the second batch is about to be committed."""

    def __init__(self) -> None:
        self.starting: asyncio.Task[None] | None = None
        self.batches = 0

    def reach(self, point: str) -> None:
        """Count the batches."""
        self.batches += point == "orchestrator.before-commit"
        if self.batches == 2 and point == "orchestrator.before-commit":
            assert self.starting is not None
            self.starting.cancel()


def client_of(world: World, desk: Desk) -> Client:
    """What `saga start` opens, with a broker that it does not reach."""
    broker = Broker("nats://127.0.0.1:1", name="test")
    relay = Relay(desk.outbox, broker)
    return Client(desk.engine, desk.engine.definitions, world.queries, desk.outbox.database, relay, broker, Topology())


async def test_ctrl_c_lets_the_batch_in_hand_be_committed_and_tells_of_it(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupting = CtrlC()
    options = Options("place-order", None, None, wait=False, follow=False, patience=60.0, json=False, in_flight=0)
    starting = Starting(client_of(world, world.desk(faults=interrupting)), options, None)
    orders = as_lines(*(an_order() for _ in range(ORDERS)))
    interrupting.starting = asyncio.create_task(starting.run(io.BytesIO(orders.encode())))
    with pytest.raises(asyncio.CancelledError):
        await interrupting.starting

    told = capsys.readouterr()
    accepted = [saga.id for saga in await world.sagas()]
    assert sorted(told.out.splitlines()) == sorted(accepted)
    assert 0 < len(accepted) <= 2 * AT_ONCE
    assert told.err == f"stopped before line {len(accepted) + 1}: {len(accepted):,} started; what was started goes on\n"
