"""Runs the roof against given servers, checks that the work was really done, and says how fast it was."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks.roof.checking import ROLES, RoofFailed, check, connected
from benchmarks.roof.cpu import CpuMeter
from benchmarks.roof.schema import (
    DROP,
    ORCHESTRATOR_TABLES,
    OUTBOX_TABLE,
    PARTICIPANT_TABLES,
)
from benchmarks.roof.wire import DATABASE_VARIABLE, NATS_VARIABLE, PARTICIPANTS, connect, create_streams, delete_streams

WARM_UP: Final = 2000
"""Sagas, before those that count."""

PATIENCE: Final = 1800.0
"""Seconds for a run."""

LONGEST_ANSWER: Final = 1 << 30
"""Bytes: how long each saga took is one line."""


@dataclass(frozen=True, slots=True)
class Roof:
    """What was measured. `cpu_ms_per_saga` has the four processes, and the servers whose pid was given."""

    style: str
    steps: int
    sagas: int
    in_flight: int
    sagas_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms_per_saga: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the orchestrator says of a run, in seconds."""

    seconds: float
    durations: list[float]


async def measure(
    *,
    urls: Mapping[str, str],
    nats_url: str,
    steps: int,
    sagas: int,
    in_flight: int,
    style: str = "bare",
    servers: Mapping[str, int] | None = None,
) -> Roof:
    """Run sagas by hand: `in_flight` at any time, after a warm-up that is not counted.

    `urls` gives the databases of orchestrator, order, inventory and payment (postgresql://); they hold no tables named
    roof_* and get some for the time of the run. `servers` are the pids of servers whose CPU is counted too, by name.
    Raises RoofFailed when a process dies or an effect is missing or there twice.
    """
    async with _furnished(urls, nats_url), AsyncExitStack() as stack:
        workers = {
            role: await stack.enter_async_context(_worker(role, urls[role], nats_url, steps, style)) for role in ROLES
        }
        warm_up = min(WARM_UP, sagas)
        await _run(workers, "warm/", warm_up, in_flight)
        meter = CpuMeter({**{role: worker.pid for role, worker in workers.items()}, **(servers or {})})
        answer = await _run(workers, "saga/", sagas, in_flight)
        cpu = meter.seconds()
        for role, worker in workers.items():
            await _finish(role, worker)
        await check(urls, steps, sagas + warm_up)
    durations = sorted(answer.durations)
    return Roof(
        style=style,
        steps=steps,
        sagas=sagas,
        in_flight=in_flight,
        sagas_per_second=sagas / answer.seconds,
        p50_ms=_percentile(durations, 50) * 1000,
        p99_ms=_percentile(durations, 99) * 1000,
        cpu_ms_per_saga={name: seconds / sagas * 1000 for name, seconds in cpu.items()},
    )


@asynccontextmanager
async def _furnished(urls: Mapping[str, str], nats_url: str) -> AsyncIterator[None]:
    """Tables and streams, for the time of the run."""
    client = await connect(nats_url)
    try:
        await delete_streams(client.jetstream())
        await create_streams(client.jetstream())
        for role in ROLES:
            await _execute(urls[role], OUTBOX_TABLE)
            await _execute(urls[role], ORCHESTRATOR_TABLES if role == "orchestrator" else PARTICIPANT_TABLES)
        yield
    finally:
        for role in ROLES:
            await _execute(urls[role], DROP)
        await delete_streams(client.jetstream())
        await client.close()


@asynccontextmanager
async def _worker(role: str, database_url: str, nats_url: str, steps: int, style: str) -> AsyncIterator[Process]:
    """A process that is ready, and that is gone afterwards."""
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.roof.worker", role, str(steps), style),
        stdin=PIPE,
        stdout=PIPE,
        limit=LONGEST_ANSWER,
        cwd=Path(__file__).parents[2],
        env={**os.environ, DATABASE_VARIABLE: database_url, NATS_VARIABLE: nats_url},
    )
    try:
        await _answer(role, worker)
        yield worker
    finally:
        if worker.returncode is None:
            worker.kill()
        await worker.wait()


async def _run(workers: Mapping[str, Process], prefix: str, sagas: int, in_flight: int) -> _Answer:
    """Have the orchestrator run sagas, unless a participant dies meanwhile."""
    await _tell(workers["orchestrator"], {"prefix": prefix, "sagas": sagas, "in_flight": in_flight})
    answer = asyncio.create_task(_answer("orchestrator", workers["orchestrator"]))
    deaths = [asyncio.create_task(_death(role, workers[role])) for role in PARTICIPANTS]
    done, pending = await asyncio.wait([answer, *deaths], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    if not done:
        raise RoofFailed(
            f"The {sagas:,} sagas had not all ended after {PATIENCE:g} s: run fewer, or look at the servers."
        )
    for task in done - {answer}:
        await task
    return _Answer(**answer.result())


async def _death(role: str, worker: Process) -> None:
    raise RoofFailed(_died(role, await worker.wait()))


async def _answer(role: str, worker: Process) -> Any:
    assert worker.stdout is not None
    line = await worker.stdout.readline()
    if not line:
        raise RoofFailed(_died(role, await worker.wait()))
    return orjson.loads(line)


async def _tell(worker: Process, request: object) -> None:
    assert worker.stdin is not None
    worker.stdin.write(orjson.dumps(request) + b"\n")
    await worker.stdin.drain()


async def _finish(role: str, worker: Process) -> None:
    """The end of its stdin has it tidy up and leave."""
    assert worker.stdin is not None
    worker.stdin.close()
    if status := await worker.wait():
        raise RoofFailed(_died(role, status))


def _died(role: str, status: int) -> str:
    return f"The process of {role} ended with status {status} in the middle of the run; its stderr says why."


async def _execute(url: str, statements: str) -> None:
    async with connected(url) as connection:
        await connection.execute(statements)


def _percentile(ordered: Sequence[float], percent: int) -> float:
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]
