"""Sagas on Temporal: its development server, and one process that both starts the sagas and works on them.

How it was tuned is in README.md in this folder. These variables of the environment try something else:

PEER_STORAGE     file (as delivered) or memory: where the server keeps its state
PEER_SYNC        FULL (as delivered) or NORMAL: NORMAL may lose the last commits when the power fails
PEER_ACTIVITIES  queue (as delivered) or local: local ones are run inside the worker, not handed out by the server
"""

import asyncio
import contextlib
import dataclasses
import importlib.metadata
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import uvloop
from activities import Steps
from saga import Order, Saga
from server import Server, development_server, version
from temporalio.client import Client
from temporalio.worker import PollerBehaviorAutoscaling, UnsandboxedWorkflowRunner, Worker

from benchmarks.peers import load, work

STORAGE: Final = os.environ.get("PEER_STORAGE", "file")
SYNC: Final = os.environ.get("PEER_SYNC", "FULL")
ACTIVITIES: Final = os.environ.get("PEER_ACTIVITIES", "queue")
TASKS: Final = int(os.environ.get("PEER_TASKS", "200"))  # workflow tasks, and activities, at a time
THREADS: Final = int(os.environ.get("PEER_THREADS", "200"))  # that run workflow code
CACHED: Final = 2_000  # sagas whose state the worker keeps
PRAGMAS: Final = {"journal_mode": "WAL", "synchronous": SYNC}
QUEUE: Final = "sagas"
READY_TRIES: Final = 100


def main() -> None:
    """Start the server, run the load, report, and end everything."""
    options = load.Options.parse()
    folder = load.folder() / "temporal"
    database = None if STORAGE == "memory" else folder / "state.db"
    with development_server(folder, database, PRAGMAS) as server:
        figures = uvloop.run(_measure(options, server))
    load.report(
        options,
        [figures],
        system="temporal",
        version=f"SDK {importlib.metadata.version('temporalio')}, CLI {version()}",
        settings=_settings(),
        warm_up=load.warm_up_of(options),
    )


async def _measure(options: load.Options, server: Server) -> load.Figures:
    client = await _connect(server.address)
    async with _steps(options) as steps, _worker(client, steps):
        order = Order(options.steps, ACTIVITIES == "local")

        async def run(name: str) -> None:
            await client.execute_workflow(Saga.run, order, id=name, task_queue=QUEUE, request_eager_start=True)

        warming = dataclasses.replace(options, sagas=load.warm_up_of(options), rate=None)
        await load.Share.of(warming, 0, 1).measure(lambda number: run(f"warm-up-{number}"))
        load.say("warm")
        return await load.Share.of(options, 0, 1).measure(lambda number: run(f"saga-{number}"), helpers=[server.pid])


async def _connect(address: str) -> Client:
    """Connect as soon as the server, which takes connections already, answers."""
    for _ in range(READY_TRIES):
        with contextlib.suppress(RuntimeError):
            return await Client.connect(address)
        await asyncio.sleep(0.1)
    return await Client.connect(address)


@contextlib.asynccontextmanager
async def _steps(options: load.Options) -> AsyncIterator[Steps]:
    if options.empty:
        yield Steps([])
        return
    pools = await work.open_pools(load.urls())
    try:
        yield Steps(pools)
    finally:
        await work.close_pools(pools)


def _worker(client: Client, steps: Steps) -> Worker:
    return Worker(
        client,
        task_queue=QUEUE,
        workflows=[Saga],
        activities=[steps.carry_out, steps.undo],
        workflow_runner=UnsandboxedWorkflowRunner(),
        workflow_task_executor=ThreadPoolExecutor(THREADS),
        max_cached_workflows=CACHED,
        max_concurrent_workflow_tasks=TASKS,
        max_concurrent_activities=TASKS,
        max_concurrent_local_activities=TASKS,
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
    )


def _settings() -> dict[str, Any]:
    return {
        "state": "SQLite in memory" if STORAGE == "memory" else f"SQLite in a file, {PRAGMAS}",
        "activities": ACTIVITIES,
        "tasks at a time": TASKS,
        "processes": 1,
        "started eagerly": True,
        "pollers": "autoscaling",
        "sandbox": False,
    }


if __name__ == "__main__":
    main()
