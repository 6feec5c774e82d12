"""The load: sagas are started and their ends are heard of.

- *Closed loop*: so many sagas are under way, and as some end others begin. It shows what the system can do.
- *Open loop*: sagas come at fixed times, whatever has become of those before. Latency counts from the time at which a
  saga should have come, so a system that falls behind cannot hide it by making its clients wait (no coordinated
  omission).

All that is due is started in one transaction: a batch is what is already waiting. An end is learned from the event that
the orchestrator publishes. Events can get lost, they are for whom it may concern; so in the end the database is asked
about every saga that has not been heard of, and none is missing from the sample.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter, time
from typing import Any, Final

import nats
import orjson
from nats.aio.msg import Msg
from sqlalchemy import func, select

from benchmarks.errors import RunFailed
from benchmarks.stages import Advance
from orchestrator.cli.publish import publishing
from orchestrator.composition import Client
from orchestrator.door import StartRequest
from orchestrator.tables import sagas
from outbox.broker import servers_of
from outbox.within import within

AT_ONCE: Final = 500
ENDS: Final = ("completed", "compensated", "stuck")
QUIET: Final = 2.0
"""Seconds without news after which the database is asked."""

PATIENCE: Final = 60.0
"""Seconds without any saga ending after which the run has failed."""


@dataclass(slots=True)
class Sample:
    """What was seen of the sagas that were measured."""

    latencies: list[float] = field(default_factory=list)
    """Seconds, one for each saga that has ended."""

    statuses: Counter[str] = field(default_factory=Counter)
    unheard: int = 0
    """Sagas whose end was found in the database only."""

    first_start: float = 0.0
    last_end: float = 0.0

    @property
    def seconds(self) -> float:
        """From the first start to the last end."""
        return self.last_end - self.first_start


class Load:
    """Starts sagas of one definition, and keeps the time until each has ended."""

    def __init__(self, client: Client, definition: str, advance: Advance) -> None:
        self._client = client
        self._definition = definition
        self._advance = advance
        self._under_way: dict[str, float] = {}
        self._news = asyncio.Event()
        self.sample = Sample()

    async def closed(self, inputs: Iterator[dict[str, Any]], in_flight: int) -> Sample:
        """So many under way at any time, until the inputs are at an end and all sagas have ended."""
        self._begin()
        while batch := list(islice(inputs, min(AT_ONCE, in_flight - len(self._under_way)))):
            now = perf_counter()
            await self._start(batch, [now] * len(batch))
            while len(self._under_way) >= in_flight:
                await self._hear()
        return await self._all_ended()

    async def open(self, inputs: Iterator[dict[str, Any]], rate: float) -> Sample:
        """So many a second, at fixed times, until the inputs are at an end and all sagas have ended."""
        self._begin()
        started = 0
        while True:
            due = int((perf_counter() - self.sample.first_start) * rate) + 1 - started
            batch = list(islice(inputs, min(AT_ONCE, max(due, 1))))
            if not batch:
                return await self._all_ended()
            times = [self.sample.first_start + (started + number) / rate for number in range(len(batch))]
            await asyncio.sleep(max(0.0, times[0] - perf_counter()))
            await self._start(batch, times)
            started += len(batch)

    def _begin(self) -> None:
        self.sample = Sample(first_start=perf_counter())

    async def _start(self, inputs: Sequence[dict[str, Any]], times: Sequence[float]) -> None:
        requests: list[StartRequest] = [self._client.engine.request(self._definition, one) for one in inputs]
        results = await self._client.engine.start(requests)
        self._under_way.update((result.saga_id, at) for result, at in zip(results, times, strict=True))

    async def hear(self, message: Msg) -> None:
        """Take note of the sagas whose end an event tells of; a message may carry many."""
        now, status = perf_counter(), message.subject.rpartition(".")[2]
        content = orjson.loads(message.data)
        self._note([event["subject"] for event in (content if isinstance(content, list) else [content])], status, now)

    def _note(self, saga_ids: Sequence[str], status: str, now: float) -> None:
        starts = [at for saga_id in saga_ids if (at := self._under_way.pop(saga_id, None)) is not None]
        if not starts:
            return
        self.sample.latencies.extend(now - at for at in starts)
        self.sample.statuses[status] += len(starts)
        self.sample.last_end = max(self.sample.last_end, now)
        self._advance(len(starts))
        self._news.set()

    async def _all_ended(self) -> Sample:
        while self._under_way:
            await self._hear()
        return self.sample

    async def _hear(self) -> None:
        """Wait for news; when there are none for a while, ask the database."""
        deadline = perf_counter() + PATIENCE
        self._news.clear()
        while not self._news.is_set():
            try:
                async with within(QUIET):
                    await self._news.wait()
            except TimeoutError:
                await self._ask()
            if perf_counter() > deadline:
                raise RunFailed(
                    f"no saga has ended for {PATIENCE:g} s, and {len(self._under_way):,} are under way: "
                    "see the logs of the services"
                )

    async def _ask(self) -> None:
        """Note the sagas that have ended by what their rows say."""
        asked = sorted(self._under_way)
        offset = perf_counter() - time()
        for start in range(0, len(asked), AT_ONCE):
            for saga_id, (status, ended_at) in (await _ends(self._client, asked[start : start + AT_ONCE])).items():
                if saga_id in self._under_way:
                    self.sample.unheard += 1
                    self._note([saga_id], status, ended_at + offset)


async def _ends(client: Client, saga_ids: Sequence[str]) -> dict[str, tuple[str, float]]:
    """id -> status and time of the end, of those that have ended or are stuck."""
    query = select(sagas.c.id, sagas.c.status, func.coalesce(sagas.c.ended_at, sagas.c.stuck_at)).where(
        client.database.any_of(sagas.c.id, saga_ids), sagas.c.status.in_(ENDS)
    )
    async with client.database.reading() as connection:
        return {saga_id: (status, at.timestamp()) for saga_id, status, at in await connection.execute(query)}


@asynccontextmanager
async def open_load(client: Client, url: str, definition: str, advance: Advance) -> AsyncIterator[Load]:
    """A load that publishes what it starts, like `saga start`, and hears of the ends of its sagas."""
    load = Load(client, definition, advance)
    listener = await nats.connect(servers_of(url), name="amends-bench")
    try:
        for end in ENDS:
            await listener.subscribe(f"saga.event.{definition}.{end}", cb=load.hear)
        await listener.flush()
        async with publishing(client, "They go on when NATS is back."):
            yield load
    finally:
        await listener.close()
