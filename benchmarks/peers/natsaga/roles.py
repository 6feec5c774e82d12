"""natsaga's own workers and the services that answer them, as their documentation lays them out.

Each is a function that runs until it is cancelled: the relay of nats-outbox, the listener (with the timeout checker)
of natsaga, and the three services, which do the work of a step and publish its outcome.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import nats
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig
from nats_outbox.publishers.nats_publisher import NatsPublisher
from nats_outbox.relay.polling import PollingRelay
from nats_outbox.settings import OutboxSettings
from natsaga.core.saga import Saga
from natsaga.core.step import Step
from natsaga.listener import SagaListener
from natsaga.orchestrator import SagaOrchestrator
from natsaga.timeout_checker import TimeoutChecker
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from benchmarks.peers import work

COMMANDS: Final = "SAGA_COMMANDS"
RESPONSES: Final = "SAGA_RESPONSES"
STEP_TIMEOUT: Final = 120  # seconds: nothing times out here
AT_ONCE: Final = 50  # steps that the services carry out at the same time


def saga_class(steps: int, kind: int) -> type[Saga]:
    """A type of sagas of so many steps, with subjects of its own."""
    listed = [
        Step(
            name=f"step-{step}",
            action_subject=f"do.{kind}.{step}",
            compensation_subject=f"undo.{kind}.{step}",
            timeout_seconds=STEP_TIMEOUT,
        )
        for step in range(steps)
    ]

    class ChainSaga(Saga):
        saga_type = f"chain-{kind}"

        @classmethod
        def steps(cls) -> list[Step]:
            return listed

    return ChainSaga


def database_url(url: str) -> str:
    """The address in the form that natsaga asks for."""
    return url.replace("postgresql://", "postgresql+asyncpg://", 1)


@asynccontextmanager
async def sessions(url: str, size: int) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Sessions on the database of natsaga, of which `size` may work at the same time."""
    engine = create_async_engine(database_url(url), pool_size=size, max_overflow=0)
    try:
        yield async_sessionmaker(engine, expire_on_commit=False)
    finally:
        await engine.dispose()


async def relay(url: str, address: str, *, interval: float) -> None:
    """Publish what the outbox holds, as `nats-outbox relay start` does."""
    settings = OutboxSettings(database_url=database_url(url), nats_url=address, polling_interval=interval)
    async with sessions(url, 1) as factory:
        connection = await nats.connect(address)
        await PollingRelay(factory, await NatsPublisher.from_nats_client(connection), settings).start()


async def listener(url: str, address: str, *, steps: int, types: Sequence[int]) -> None:
    """Advance the sagas of these types, as `natsaga listener start` and `natsaga timeout-checker start` do."""
    async with sessions(url, steps * len(types) + 2) as factory:
        orchestrator = SagaOrchestrator(factory)
        for kind in types:
            orchestrator.register(saga_class(steps, kind))
        connection = await nats.connect(address)
        await TimeoutChecker(session_factory=factory, orchestrator=orchestrator).start()
        hears = await SagaListener.from_nats_client(connection, orchestrator=orchestrator, stream_name=RESPONSES)
        await hears.subscribe_all()
        await hears.run_forever()


async def services(urls: dict[str, str] | None, address: str) -> None:
    """Order, inventory and payment: do each command's work and publish what came of it."""
    pools = [] if urls is None else await work.open_pools(urls)
    connection = await nats.connect(address)
    stream = connection.jetstream()
    free = asyncio.Semaphore(AT_ONCE)
    tasks: set[asyncio.Task[None]] = set()

    def done(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        free.release()

    async def take(message: Msg) -> None:
        await free.acquire()
        task = asyncio.create_task(_answer(stream, pools, message))
        tasks.add(task)
        task.add_done_callback(done)

    for action in ("do", "undo"):
        config = ConsumerConfig(ack_wait=STEP_TIMEOUT)
        await stream.subscribe(
            f"{action}.*.*", stream=COMMANDS, durable=action, cb=take, manual_ack=True, config=config
        )
    await asyncio.Event().wait()


async def _answer(stream: JetStreamContext, pools: Sequence[asyncpg.Pool], message: Msg) -> None:
    command: dict[str, Any] = json.loads(message.data)
    act = work.undo if message.subject.startswith("undo.") else work.carry_out
    if pools:
        await act(pools, command["saga_id"], command["step_index"])
    subject = f"{message.subject}.response.{command['saga_id']}.{command['step_index']}"
    await stream.publish(subject, json.dumps({"outcome": "success", "result": {}}).encode())
    await message.ack()
