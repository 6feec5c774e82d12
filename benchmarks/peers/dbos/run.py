"""Sagas on DBOS: durable workflows in PostgreSQL, in Python.

A saga is a workflow whose steps are DBOS steps; when one fails, the workflow undoes those before it in reverse order,
each undo a step as well. Workflows and steps are plain functions, called on threads of several processes: why, and
what else was tried, is in README.md in the folder above.
"""

import asyncio
import dataclasses
import importlib.metadata
import multiprocessing
import uuid
from concurrent.futures import ThreadPoolExecutor
from queue import LifoQueue
from typing import Final

import psycopg
from dbos import DBOS, DBOSConfig

from benchmarks.peers import load, work

PROCESSES: Final = 4
CONNECTIONS: Final = 4  # of each process, to each database
IN_FLIGHT: Final = 16
OPEN_THREADS: Final = 16  # of each process, when sagas arrive at fixed times

_participants: list["Participant"] = []  # none when steps are to be empty


class Participant:
    """A participant's database. Steps are not coroutines here, so the work goes through psycopg, DBOS's own driver."""

    def __init__(self, url: str) -> None:
        self._idle: LifoQueue[psycopg.Connection] = LifoQueue()
        for _ in range(CONNECTIONS):
            self._idle.put(psycopg.connect(url, autocommit=True, cursor_factory=psycopg.RawCursor))

    def execute(self, statement: str, *values: str | int) -> None:
        """Run one statement as one transaction."""
        connection = self._idle.get()
        try:
            connection.execute(statement, values)
        finally:
            self._idle.put(connection)


@DBOS.step()
def carry_out(saga_id: str, step: int) -> None:
    """One step of a saga."""
    if _participants:
        values = (work.message_id(saga_id, step), work.account_of(saga_id), saga_id, step)
        _participants[step % len(_participants)].execute(work.CARRY_OUT, *values)


@DBOS.step(retries_allowed=True, max_attempts=10)
def undo(saga_id: str, step: int) -> None:
    """Take one step back: it has to succeed in the end, so it is tried again."""
    if _participants:
        values = (work.message_id(saga_id, step), work.account_of(saga_id))
        _participants[step % len(_participants)].execute(work.UNDO, *values)


@DBOS.workflow()
def saga(saga_id: str, steps: int) -> None:
    """All steps, or none that lasts."""
    done: list[int] = []
    try:
        for step in range(steps):
            carry_out(saga_id, step)
            done.append(step)
    except Exception:
        for step in reversed(done):
            undo(saga_id, step)
        raise


def main() -> None:
    """Make the tables of DBOS, run the load in several processes, and report."""
    options = load.Options.parse(in_flight=IN_FLIGHT)
    first = multiprocessing.get_context("spawn").Process(target=_make_tables)
    first.start()
    first.join()
    figures = load.spread(_measure, options, PROCESSES)
    settings = {
        "processes": PROCESSES,
        "sys_db_pool_size of each": CONNECTIONS,
        "pool_pre_ping": False,
        "workflows": "plain functions, called on threads, no queue",
    }
    version = importlib.metadata.version("dbos")
    load.report(options, figures, system="dbos", version=version, settings=settings, warm_up=load.warm_up_of(options))


async def _measure(options: load.Options, share: load.Share) -> load.Figures:
    _launch()
    if not options.empty:
        _participants.extend(Participant(load.urls()[name]) for name in work.PARTICIPANTS)
    threads = ThreadPoolExecutor(share.in_flight if share.rate is None else OPEN_THREADS)

    async def run(number: int, kind: str = "saga") -> None:
        saga_id = f"{kind}-{share.index}-{number}"
        await asyncio.get_running_loop().run_in_executor(threads, saga, saga_id, options.steps)

    warming = dataclasses.replace(options, sagas=load.warm_up_of(options), rate=None)
    await load.Share.of(warming, share.index, share.processes).measure(lambda number: run(number, "warm-up"))
    await share.all_ready()
    figures = await share.measure(run)
    await asyncio.to_thread(DBOS.destroy)
    return figures


def _launch() -> None:
    config: DBOSConfig = {
        "name": "peer-saga",
        "application_version": "1",
        "executor_id": str(uuid.uuid4()),
        "system_database_url": load.urls()["system"],
        "sys_db_pool_size": CONNECTIONS,
        "db_engine_kwargs": {"pool_pre_ping": False},
        "log_level": "WARNING",
    }
    DBOS(config=config)
    DBOS.launch()


def _make_tables() -> None:
    """Once, before the processes would all want to."""
    _launch()
    DBOS.destroy()


if __name__ == "__main__":
    main()
