"""One running role: an intake and a pump for each inlet, relay and topology watch, started and stopped as one."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog
from sqlalchemy import select

from outbox.courier import Courier
from outbox.errors import BrokerOutOfReach, DatabaseOutOfReach
from outbox.health import Readiness, readiness
from outbox.loops import forever
from outbox.outages import Outages, Resource, report_to
from outbox.pump import Processor, Pump
from outbox.relay import Relay
from outbox.topology import Inlet
from outbox.unit_of_work import Outbox
from outbox.within import cancellations

log = structlog.get_logger()

WATCH_EVERY: Final = 2.0
"""Seconds between two looks at whether streams and consumers are still there."""

DRAIN: Final = 5.0

LONGEST_HANG: Final = 120.0
"""Seconds. A batch of which nothing comes for longer, with database and broker in reach, will never end."""

Background = Callable[[], Coroutine[Any, Any, None]]


class Service:
    """A role that runs until it is told to stop."""

    def __init__(
        self,
        role: str,
        *,
        courier: Courier,
        inlets: Mapping[Inlet, Processor],
        outbox: Outbox,
        background: tuple[Background, ...] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.role = role
        self.ready = asyncio.Event()
        self.outages = Outages()
        self._stop = asyncio.Event()
        self._outbox = outbox
        self._courier = courier
        self._inlets = tuple(inlets)
        self._sources = [courier.source(inlet) for inlet in inlets]
        parts = zip(self._sources, inlets.items(), strict=True)
        self._pumps = [
            Pump(source, outbox, processor, name=inlet.subject, monotonic=monotonic)
            for source, (inlet, processor) in parts
        ]
        self._relay = Relay(outbox, courier)
        self._background = background
        self._tasks: list[asyncio.Task[Any]] = []

    def stop(self) -> None:
        """Finish the batch in hand and leave."""
        self._stop.set()

    @property
    def ailments(self) -> list[str]:
        """What only a new process can cure; nothing when it is well, starts, or waits for what is out of reach."""
        dead = ["one of its loops has ended"] if any(task.done() for task in self._tasks) else []
        hangs = [pump.hangs_for for pump in self._pumps if pump.hangs_for > LONGEST_HANG]
        hung = [f"nothing has come of the batch in hand for {seconds:.0f} s" for seconds in hangs]
        return [] if self._stop.is_set() else dead + ([] if self.outages.current else hung)

    async def readiness(self) -> Readiness:
        """Whether it does its work, and what it lacks."""
        problems = self._courier.problems
        return await readiness(self.role, self._outbox, self.outages, problems, has_started=self.ready.is_set())

    async def run(self) -> None:
        """Until `stop` is called. A broker that is away is waited for, for as long as it takes."""
        structlog.contextvars.bind_contextvars(role=self.role)
        report_to(self.outages)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            starting = asyncio.create_task(self._start())
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await self._work(stopping)
            else:
                starting.cancel()
                with suppress(asyncio.CancelledError):
                    await starting
                await self._stop_sources()  # some may have begun
        finally:
            stopping.cancel()
            await self._courier.close()
            await self._outbox.database.close()

    async def _start(self) -> None:
        await self._check_database()
        delay = 0.1
        while True:
            try:
                await self._courier.connect()
                if done := await self._courier.ensure(self._inlets):
                    log.info("; ".join(done))
                for source in self._sources:
                    await source.start()
                break
            except (BrokerOutOfReach, OSError) as error:
                self.outages.begins(Resource.NATS, "the start", str(error))
                if cancellations():
                    raise asyncio.CancelledError from error  # which nats-py has swallowed
                await asyncio.sleep(delay)
                delay = min(5.0, delay * 2)
        self.outages.ends("the start")
        self.ready.set()
        log.info("ready", database=str(self._outbox.database))

    async def _check_database(self) -> None:
        delay = 0.1
        while True:
            try:
                async with self._outbox.database.reading() as connection:
                    await connection.execute(select(self._outbox.tables.outbox.c.message_id).limit(1))
                await self._outbox.clock.sync(self._outbox.database)
                self.outages.ends("the start")
                return
            except DatabaseOutOfReach as error:
                self.outages.notice(error, "the start")
                await asyncio.sleep(delay)
                delay = min(5.0, delay * 2)

    async def _work(self, stopping: asyncio.Task[Any]) -> None:
        pumps = [asyncio.create_task(pump.run()) for pump in self._pumps]
        others = [
            asyncio.create_task(self._relay.run()),
            asyncio.create_task(forever("watch the topology", self._watch)),
            *(asyncio.create_task(job()) for job in self._background),
        ]
        self._tasks = [*pumps, *others]
        try:
            done, _ = await asyncio.wait({stopping, *pumps, *others}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # a task that ended by itself ended by an error: let it be seen
            for pump in self._pumps:
                pump.stop()
            await asyncio.gather(*pumps)
            await self._stop_sources()
            await self._relay.drain(DRAIN if self._courier.is_connected else 0.0)
        except BaseException:
            await self._stop_sources()  # what we shall not handle should be fetched by somebody else
            raise
        finally:
            for task in (*pumps, *others):
                task.cancel()
            await asyncio.gather(*pumps, *others, return_exceptions=True)

    async def _stop_sources(self) -> None:
        for source in self._sources:
            await source.stop()

    async def _watch(self) -> float:
        await self._courier.connect()  # nats-py gives a connection up when the server sends it away
        if self._courier.is_connected and (done := await self._courier.ensure(self._inlets)):
            log.warning(f"{'; '.join(done)}: what was missing, or had changed, is as it should be")
        await self._outbox.clock.sync(self._outbox.database)
        return WATCH_EVERY
