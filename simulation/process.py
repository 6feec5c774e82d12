"""A process, simulated: one replica of one role, made of the real parts, that can be held up, frozen, and killed.

It is put together as `outbox.service.Service` is. What a service looks for again and again (timers, waiting sagas, an
outbox that is overdue, its streams) it is told to look for when there is something: polling costs nobody anything in
virtual time, and us all of it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from contextlib import suppress
from contextvars import Context, copy_context
from datetime import datetime, timedelta
from typing import Any

import structlog

from orchestrator.admission import Admission
from orchestrator.composition import PARTICIPANTS, inlets_of, messaging_of
from orchestrator.engine import Engine
from orchestrator.registry import Definitions
from orchestrator.timers import Timers
from outbox.database import Database
from outbox.errors import OutOfReach
from outbox.intake import Intake
from outbox.loops import SURVIVED
from outbox.outages import CONNECTION, Outages, Resource, report_to
from outbox.pump import Processor, Pump
from outbox.relay import Relay
from outbox.topology import Inlet, command_inlet
from outbox.unit_of_work import Outbox
from participants.runtime.processor import CommandProcessor
from simulation.boundary import CURRENT, Killed, Place
from simulation.broker import SimulatedBroker
from simulation.courier import Habits, SimulatedCourier
from simulation.fate import Fate
from simulation.server import Server

Job = Callable[[], Coroutine[Any, Any, Any]]


class SimulatedClock:
    """The time of the database, as one process knows it."""

    def __init__(self, now: Callable[[], datetime], skew: timedelta) -> None:
        self._now = now
        self.skew = skew

    def now(self) -> datetime:
        """The current time, with the time zone UTC."""
        return self._now() + self.skew

    async def sync(self, database: Database) -> None:
        """It is the database's already, give or take its skew."""


class Surroundings:
    """What all processes of one role have around them."""

    def __init__(
        self,
        role: str,
        *,
        fate: Fate,
        broker: SimulatedBroker,
        server: Server,
        database: Database,
        now: Callable[[], datetime],
        definitions: Definitions,
        ids: Callable[[], str],
        ack_wait: timedelta,
        grace: timedelta,
        habits: Habits,
        max_in_flight: int,
    ) -> None:
        self.role = role
        self.fate = fate
        self.broker = broker
        self.server = server
        self.database = database
        self.now = now
        self.definitions = definitions
        self.ids = ids
        self.ack_wait = ack_wait
        self.grace = grace
        self.habits = habits
        self.max_in_flight = max_in_flight
        self.slowness = 0.0
        """Seconds that a batch may take longer than it should."""


class Process:
    """One process: its memory, its tasks, its connections. All of it goes when it dies."""

    def __init__(self, name: str, around: Surroundings, *, skew: float, on_death: Callable[["Process"], None]) -> None:
        self.name = name
        self.around = around
        self.is_dead = False
        self.is_ready = False
        self.frozen_until = 0.0
        self.surprises: list[str] = []
        self._on_death = on_death
        self._tasks: list[asyncio.Task[Any]] = []
        self._busy: set[str] = set()
        self._context: Context = copy_context()
        self._context.run(CURRENT.set, self)
        self.clock = SimulatedClock(around.now, timedelta(seconds=skew))
        self.outbox = Outbox(
            around.database,
            messaging_of(around.role),
            clock=self.clock,
            faults=_Points(self),
            role=around.role,
            grace=around.grace,
        )
        self.courier = SimulatedCourier(name, around.role, around.broker, around.fate, self.come_to, around.habits)
        self.relay = Relay(self.outbox, self.courier)
        self.engine: Engine | None = None
        self._timers: Timers | None = None
        self._outages = Outages()
        self._context.run(report_to, self._outages)
        self._inlets: Mapping[Inlet, Processor] = {}
        self._sources: list[Intake] = []
        self._pumps: list[Pump] = []

    @property
    def is_frozen(self) -> bool:
        """Whether it does nothing at this moment."""
        return self.frozen_until > asyncio.get_running_loop().time()

    # --- its life

    def boot(self) -> None:
        """Begin to work as a replica of its role."""
        if self.around.role == "orchestrator":
            self._timers = Timers(self.open_engine(), monotonic=asyncio.get_running_loop().time)
        else:
            commands = CommandProcessor(PARTICIPANTS[self.around.role], self.around.database)
            self._inlets = {command_inlet(self.around.role, self.around.ack_wait): commands}
        for inlet, processor in self._inlets.items():
            source = self.courier.source(inlet)
            self._sources.append(source)
            self._pumps.append(Pump(source, self.outbox, processor))
        self.spawn("start", self._start)

    def open_engine(self) -> Engine:
        """What the orchestrator thinks with."""
        around = self.around
        self.engine = Engine(
            around.definitions, self.outbox, clock=self.clock, ids=around.ids, max_in_flight=around.max_in_flight
        )
        self._inlets = inlets_of(self.engine, self.around.ack_wait)
        return self.engine

    def spawn(self, name: str, job: Job) -> None:
        """Do a job in this process, unless it is at it already."""
        if self.is_dead or name in self._busy:
            return
        self._busy.add(name)
        loop = asyncio.get_running_loop()
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(loop.create_task(self._do(name, job), context=self._context.copy()))

    def die(self, why: str) -> None:
        """At once, and all of it."""
        if self.is_dead:
            return
        self.is_dead, self.is_ready = True, False
        if self.around.fate.lines is not None:
            self.around.fate.note(f"{self.name}: dies ({why})")
        self.courier.hang_up()
        self.around.server.close_all(self)
        running = asyncio.current_task()
        for task in self._tasks:
            if task is not running:
                task.cancel()
        self._on_death(self)

    def freeze(self, seconds: float) -> None:
        """Do nothing for a while, and know nothing of it."""
        now = asyncio.get_running_loop().time()
        if self.around.fate.lines is not None:
            self.around.fate.note(f"{self.name}: stands still for {seconds:g} s")
        self.frozen_until = max(self.frozen_until, now + seconds)
        for _ in range(self.around.server.freeze(self, seconds)):
            self.around.fate.count("transaction-taken-back", self.name)

    async def stop(self) -> None:
        """Leave in good order."""
        for pump in self._pumps:
            pump.stop()
        for source in self._sources:
            await source.stop()
        await self.relay.drain(5.0)
        self.die("it was asked to stop")

    # --- what it does

    def look_after_timers(self) -> None:
        """Something is due."""
        if self._timers is not None:
            self.spawn("timers", self._timers.fire)

    def look_for_waiting(self) -> None:
        """Somebody may begin."""
        if self.engine is not None:
            self.spawn("admission", Admission(self.engine).admit)

    def look_for_overdue(self) -> None:
        """Something in the outbox is overdue."""
        if self.courier.is_connected:
            self.spawn("sweep", self.relay.sweep)

    def notice_connection(self) -> None:
        """The connection to the broker is lost, or back, as nats-py tells `outbox.broker.Broker`."""
        if self.courier.is_connected:
            self._outages.ends(CONNECTION)
        else:
            self._outages.begins(Resource.NATS, CONNECTION, "the broker is away")

    def look_after_topology(self) -> None:
        """Something may be missing."""
        self.spawn("watch", self._watch)

    async def _start(self) -> None:
        delay = 0.1
        while True:
            try:
                await self.courier.connect()
                await self.courier.ensure(self._inlets)
                for source in self._sources:
                    await source.start()
                break
            except (OutOfReach, OSError):
                await asyncio.sleep(delay)
                delay = min(5.0, delay * 2)
        self.is_ready = True
        self.around.fate.note(f"{self.name}: ready")
        self.spawn("relay", lambda: self.relay.run(sweeping=False))
        for number, pump in enumerate(self._pumps):
            self.spawn(f"pump {number}", pump.run)

    async def _watch(self) -> None:
        while not await self._tend():
            await asyncio.sleep(2.0)

    async def _tend(self) -> bool:
        if self.courier.is_connected:
            with suppress(OutOfReach):
                await self.courier.ensure(self._inlets)
                return True
        return False

    async def _do(self, name: str, job: Job) -> None:
        try:
            await job()
        except Killed:
            self.die("killed")
        except OutOfReach as error:
            self.around.fate.note(f"{self.name}: {name}: {error}")
        except Exception as error:  # a service tells of it and tries again, or ends if it is a pump's
            self.surprises.append(f"{name}: {type(error).__name__}: {error}")
            self.around.fate.note(f"{self.name}: {name} has failed: {error!r}")
            if name.startswith(("start", "pump", "relay")):
                self.die(f"{name} has failed")
        finally:
            self._busy.discard(name)

    # --- where it may be held up, or die

    def come_to_point(self, point: str) -> None:
        """One of the named crash points."""
        if self.is_dead:
            raise Killed
        if self.around.fate.strikes("process-crashed"):
            self.die(f"at {point}")
            raise Killed

    async def come_to(self, place: Place | str, cut: Callable[[], None] = lambda: None) -> None:
        """Come to a boundary: go on, later or never."""
        if self.is_dead:
            raise Killed
        fate = self.around.fate
        if fate.is_active:
            self._strike(place, cut)
        delay = self._delay(place)
        if delay:
            await asyncio.sleep(delay)
        if self.is_dead:
            raise Killed

    def _strike(self, place: Place | str, cut: Callable[[], None]) -> None:
        fate = self.around.fate
        if fate.strikes("process-crashed"):
            self.die(f"at {place}")
            raise Killed
        if fate.strikes("process-paused"):
            self.freeze(fate.random.choice((0.3, 2.0, 8.0, 15.0, 40.0)))
        if place in ("statement", "commit") and fate.strikes("connection-reset"):
            cut()
        if place == "committed" and fate.strikes("commit-unanswered"):
            cut()

    def _delay(self, place: Place | str) -> float:
        chance = self.around.fate.random
        delay = max(0.0, self.frozen_until - asyncio.get_running_loop().time())
        if self.around.slowness and place == "statement":
            delay += chance.random() * self.around.slowness
        if self.around.fate.strikes("process-slow"):
            delay += chance.random()
        elif chance.random() < self.around.fate.jitter:
            delay += chance.random() * 0.01
        return delay


def heed(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: what a loop has survived was not foreseen, whatever it was. All else is no news."""
    process = CURRENT.get()
    if event["event"] == SURVIVED and isinstance(process, Process):
        process.surprises.append(f"{event['job']}: {event['reason']}")
    raise structlog.DropEvent


class _Points:
    """The named crash points of `outbox.faults`, for one process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def reach(self, point: str) -> None:
        """Go on, or die."""
        self._process.come_to_point(point)
