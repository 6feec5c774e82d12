"""What a run costs: processor time and memory by role, messages, transactions, log volume, and the outbox's lag.

Counters that only grow are read before and after; what comes and goes is looked at once a second.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import asyncpg
import psutil
from sqlalchemy import func, select

from benchmarks.parts import Servers
from orchestrator.composition import Client
from orchestrator.settings import ROLES
from outbox.topology import COMMANDS, EVENTS, REPLIES

STREAMS: Final = {"commands": COMMANDS, "replies": REPLIES, "events": EVENTS}
SAMPLE_EVERY: Final = 1.0
TOLD_AFTER: Final = 1.5
"""Seconds until what a backend of PostgreSQL has committed is in its statistics."""

Processes = Mapping[str, list[int]]
"""Role -> process ids; of postgres the main process, whose children count with it."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Whatever only grows, at one moment."""

    cpu: dict[str, float]
    """Role -> seconds of processor time."""

    messages: dict[str, int]
    transactions: dict[str, int] | None
    """Role -> commits in its database; None where nobody counts them."""

    wal_bytes: int | None

    def since(self, before: "Counters") -> "Counters":
        """What was added in between."""
        return Counters(
            {role: used - before.cpu.get(role, 0.0) for role, used in self.cpu.items()},
            {name: count - before.messages[name] for name, count in self.messages.items()},
            None
            if self.transactions is None or before.transactions is None
            else {role: count - before.transactions[role] for role, count in self.transactions.items()},
            None if self.wal_bytes is None or before.wal_bytes is None else self.wal_bytes - before.wal_bytes,
        )


async def read_before(servers: Servers, client: Client, processes: Processes) -> Counters:
    """The counters now, when the statistics have caught up."""
    await _until_told(servers)
    return await _read(servers, client, read_cpu(processes))


async def read_after(servers: Servers, client: Client, processes: Processes) -> Counters:
    """The counters as of now; the statistics are given the time to catch up."""
    cpu = read_cpu(processes)
    await _until_told(servers)
    return await _read(servers, client, cpu)


async def _until_told(servers: Servers) -> None:
    if servers.postgres is not None:
        await asyncio.sleep(TOLD_AFTER)


async def _read(servers: Servers, client: Client, cpu: dict[str, float]) -> Counters:
    stream = client.broker.jetstream
    messages = {name: (await stream.stream_info(full)).state.last_seq for name, full in STREAMS.items()}
    if servers.postgres is None:
        return Counters(cpu, messages, None, None)
    return Counters(cpu, messages, *await _read_postgres(servers.postgres.dsn()))


async def _read_postgres(dsn: str) -> tuple[dict[str, int], int]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT datname, xact_commit FROM pg_stat_database")
        commits = {row["datname"]: row["xact_commit"] for row in rows}
        wal = await connection.fetchval("SELECT pg_current_wal_lsn() - '0/0'")
        return {role: commits[role] for role in ROLES}, int(wal)
    finally:
        await connection.close()


def read_cpu(processes: Processes) -> dict[str, float]:
    """Role -> seconds of processor time so far, of its processes with their children, the ended ones included."""
    used: dict[str, float] = defaultdict(float)
    for role, pids in processes.items():
        for pid in pids:
            with suppress(psutil.NoSuchProcess):
                used[role] += _cpu_of_family(psutil.Process(pid))
    return dict(used)


def _cpu_of_family(process: psutil.Process) -> float:
    times = process.cpu_times()
    total = times.user + times.system
    if process.pid == os.getpid():  # our children are the other roles
        return total
    for child in process.children():
        with suppress(psutil.NoSuchProcess):
            child_times = child.cpu_times()
            total += child_times.user + child_times.system
    return total + times.children_user + times.children_system


def read_memory(processes: Processes) -> dict[str, int]:
    """Role -> bytes in memory; what the backends of PostgreSQL share is counted once."""
    found = {}
    for role, pids in processes.items():
        own, shared = 0, 0
        for pid in pids:
            for process in _family(pid):
                with suppress(psutil.NoSuchProcess):
                    info = process.memory_info()
                    own, shared = own + info.rss - info.shared, max(shared, info.shared)
        found[role] = own + shared
    return found


def _family(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process] if pid == os.getpid() else [process, *process.children()]
    return []


@dataclass(slots=True)
class Peaks:
    """The highest that was seen of what comes and goes."""

    memory: dict[str, int] = field(default_factory=dict)
    outbox_lag: float = 0.0
    """Seconds since the oldest row of the orchestrator's outbox was written."""

    def note(self, memory: Mapping[str, int], lag: float) -> None:
        """Another look."""
        for role, size in memory.items():
            self.memory[role] = max(size, self.memory.get(role, 0))
        self.outbox_lag = max(lag, self.outbox_lag)


@asynccontextmanager
async def watching(client: Client, processes: Processes) -> AsyncIterator[Peaks]:
    """Look once a second while the block runs."""
    peaks = Peaks()
    looking = asyncio.create_task(_watch(client, processes, peaks))
    try:
        yield peaks
        if looking.done():
            looking.result()  # an error of its own is an error of the run
        peaks.note(read_memory(processes), 0.0)
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def _watch(client: Client, processes: Processes, peaks: Peaks) -> None:
    while True:
        peaks.note(read_memory(processes), await _outbox_lag(client))
        await asyncio.sleep(SAMPLE_EVERY)


async def _outbox_lag(client: Client) -> float:
    outbox = client.engine.outbox
    async with client.database.reading() as connection:
        oldest: datetime | None = (await connection.execute(select(func.min(outbox.tables.outbox.c.due_at)))).scalar()
    if oldest is None:
        return 0.0
    return max(0.0, (datetime.now(UTC) - (oldest - outbox.grace)).total_seconds())


def percentile(ordered: list[float], percent: float) -> float:
    """The smallest value that at least so many percent of the values do not exceed. Raises IndexError when empty."""
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]
