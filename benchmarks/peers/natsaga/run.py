"""Sagas on natsaga: NATS JetStream and PostgreSQL, in Python.

The parts are those of its documentation: an orchestrator that starts sagas, the relay of nats-outbox, the listener
and the timeout checker, and services that consume commands and publish outcomes. Each kind has processes of its
own; how many, and why, is in README.md in the folder above.

natsaga tells nobody that a saga has ended, so the client looks for it in the table `saga_state`.
"""

import asyncio
import dataclasses
import importlib.metadata
import multiprocessing
import time
import uuid
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import asyncpg
import nats
from nats.js.api import StreamConfig
from nats_outbox.core.inbox import InboxEvent  # its table belongs to the same metadata
from natsaga.core.models import Base as SagaBase
from natsaga.orchestrator import SagaOrchestrator
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.peers import load
from benchmarks.peers.natsaga import roles
from benchmarks.peers.natsaga.broker import nats_server

LISTENERS: Final = 2
TYPES: Final = 4  # of sagas, alike but for their subjects: a listener takes the answers of a subject one by one
RELAYS: Final = 1
POLLING_SECONDS: Final = 0.1  # of the relay, when it finds nothing: for throughput
POLLING_SECONDS_OPEN: Final = 0.01  # for latency
STARTS: Final = 5  # sagas that are being started at the same time
IN_FLIGHT: Final = 100
LOOK_SECONDS: Final = 0.01
READY_SECONDS: Final = 60.0
_ENDED: Final = "SELECT id, status FROM saga_state WHERE id = ANY($1) AND status NOT IN ('running', 'compensating')"


def main() -> None:
    """Start everything, run the load, report, and end everything."""
    options = load.Options.parse(in_flight=IN_FLIGHT)
    with nats_server(load.folder() / "nats") as (address, broker):
        asyncio.run(_set_up(address))
        with _workers(options, address) as workers:
            figures = asyncio.run(_measure(options, address, [broker, *workers]))
    version, warm_up = importlib.metadata.version("natsaga"), load.warm_up_of(options)
    load.report(options, [figures], system="natsaga", version=version, settings=_settings(options), warm_up=warm_up)


class Ends:
    """Who waits for which saga to end, and the task that looks."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._waiting: dict[uuid.UUID, asyncio.Future[None]] = {}

    def of(self, saga_id: uuid.UUID) -> asyncio.Future[None]:
        """Done when this saga has completed; an error when it ended otherwise."""
        self._waiting[saga_id] = future = asyncio.get_running_loop().create_future()
        return future

    async def look(self) -> None:
        """Look for ever, as often as is worth while."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._waiting:
                for row in await self._connection.fetch(_ENDED, list(self._waiting)):
                    self._tell(self._waiting.pop(row["id"]), row["status"])

    def _tell(self, future: asyncio.Future[None], status: str) -> None:
        if status == "completed":
            future.set_result(None)
        else:
            future.set_exception(RuntimeError(f"A saga ended as {status}, and none should."))


async def _set_up(address: str) -> None:
    engine = create_async_engine(roles.database_url(load.urls()["system"]))
    async with engine.begin() as connection:
        await connection.run_sync(SagaBase.metadata.create_all)
        await connection.run_sync(InboxEvent.metadata.create_all)
    await engine.dispose()
    client = await nats.connect(address)
    for name, ending in ((roles.COMMANDS, ""), (roles.RESPONSES, ".response.>")):
        subjects = [f"{action}.*.*{ending}" for action in ("do", "undo")]
        await client.jetstream().add_stream(StreamConfig(name=name, subjects=subjects))
    await client.close()


@contextmanager
def _workers(options: load.Options, address: str) -> Iterator[list[int]]:
    """The ids of all processes but the client's. When one dies, sagas no longer end, and the run is late."""
    system = load.urls()["system"]
    wanted: list[tuple[str, dict[str, Any]]] = [("services", {"urls": None if options.empty else dict(load.urls())})]
    wanted += [("relay", {"url": system, "interval": _polling(options)})] * RELAYS
    for index in range(LISTENERS):
        types = range(index, TYPES, LISTENERS)
        wanted.append(("listener", {"url": system, "steps": options.steps, "types": types}))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_role, args=(name, address, given)) for name, given in wanted]
    try:
        for process in processes:
            process.start()
        yield [process.pid for process in processes if process.pid is not None]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _role(name: str, address: str, given: Mapping[str, Any]) -> None:
    role: Coroutine[Any, Any, None] = getattr(roles, name)(address=address, **given)
    asyncio.run(role)


async def _measure(options: load.Options, address: str, helpers: Sequence[int]) -> load.Figures:
    await _until_subscribed(options, address)
    system = load.urls()["system"]
    async with roles.sessions(system, STARTS) as factory:
        orchestrator = SagaOrchestrator(factory)
        classes = [roles.saga_class(options.steps, kind) for kind in range(TYPES)]
        for saga in classes:
            orchestrator.register(saga)
        ends = Ends(await asyncpg.connect(system))
        looking = asyncio.create_task(ends.look())

        async def run(number: int) -> None:
            saga_id = uuid.uuid4()
            end = ends.of(saga_id)
            await orchestrator.start(classes[number % len(classes)], payload={"number": number}, saga_id=saga_id)
            await end

        warming = dataclasses.replace(options, sagas=load.warm_up_of(options), rate=None)
        await load.Share.of(warming, 0, 1).measure(run)
        load.say("warm")
        figures = await load.Share.of(options, 0, 1).measure(run, helpers=helpers)
        looking.cancel()
    return figures


async def _until_subscribed(options: load.Options, address: str) -> None:
    """Every consumer that should be there is there."""
    client = await nats.connect(address)
    stream = client.jetstream()
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        counts = [(await stream.stream_info(name)).state.consumer_count for name in (roles.COMMANDS, roles.RESPONSES)]
        if counts == [2, 2 * options.steps * TYPES]:
            return await client.close()
        await asyncio.sleep(0.05)
    raise TimeoutError(f"The workers were not ready within {READY_SECONDS:g} s: {counts} consumers.")


def _polling(options: load.Options) -> float:
    return POLLING_SECONDS if options.rate is None else POLLING_SECONDS_OPEN


def _settings(options: load.Options) -> dict[str, Any]:
    return {
        "listeners": LISTENERS,
        "saga types": TYPES,
        "relays": RELAYS,
        "relay polling interval (s)": _polling(options),
        "starts at a time": STARTS,
        "steps at a time in the services": roles.AT_ONCE,
    }


if __name__ == "__main__":
    main()
