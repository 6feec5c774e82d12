"""The stage on which an example is played: real services with real databases, in one process, and a clock that leaps.

Nothing here is pretended. The orchestrator and each participant are a `Service` as in production: an SQLite database of
its own, inbox, outbox and relay, and a NATS server between them. Only time is ours: a story that needs two days to pass
says so, and every timer that is due by then fires.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from sqlalchemy import Executable, Row

from migrations.runner import upgrade
from orchestrator import tables
from orchestrator.composition import background_of, inlets_of
from orchestrator.definition import Saga
from orchestrator.engine import Engine
from orchestrator.events import Event
from orchestrator.model import ENDED, StepStatus
from orchestrator.model import Saga as State
from orchestrator.queries import Queries
from orchestrator.registry import Definitions
from outbox.courier import NatsCourier
from outbox.database import Database
from outbox.faults import NoFaults
from outbox.service import Service
from outbox.topology import ACK_WAIT, command_inlet
from outbox.unit_of_work import Outbox
from participants.runtime import Participant
from participants.runtime.processor import CommandProcessor
from participants.runtime.rows import Rows
from participants.runtime.work import Entity

ORCHESTRATOR: Final = "orchestrator"
PATIENCE: Final = 30.0
"""Seconds to wait for what should happen at once."""


class Stalled(Exception):
    """What a story waits for has not come. Says what that was."""


class LeapingClock:
    """This machine's clock, until a story lets time pass."""

    def __init__(self) -> None:
        self._ahead = timedelta(0)

    def now(self) -> datetime:
        """The time on this stage."""
        return datetime.now(UTC) + self._ahead

    def leap(self, by: timedelta) -> None:
        """So much time passes, in a moment."""
        self._ahead += by

    async def sync(self, database: Database) -> None:
        """No database sets it."""


class Stage:
    """One orchestrator and some participants, running. Leaving the stage stops them."""

    def __init__(
        self, folder: Path, nats_url: str, sagas: Iterable[Saga[Any]], participants: Iterable[Participant]
    ) -> None:
        self.clock = LeapingClock()
        self.definitions = Definitions(sagas)
        self.participants = {participant.name: participant for participant in participants}
        self.databases = {
            role: Database(f"sqlite:///{folder / role}.db") for role in (ORCHESTRATOR, *self.participants)
        }
        self.queries = Queries(self.databases[ORCHESTRATOR], self.definitions)
        self.engine = Engine(self.definitions, self._outbox(ORCHESTRATOR), clock=self.clock)
        self._nats_url = nats_url
        self._running: dict[str, tuple[Service, asyncio.Task[None]]] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for database in self.databases.values():
            self._stack.push_async_callback(database.close)
        await upgrade(self.databases[ORCHESTRATOR], ORCHESTRATOR)
        for name, participant in self.participants.items():
            async with self.databases[name].transaction() as connection:
                await connection.run_sync(participant.metadata.create_all)
        await self.open(*self.databases)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close(*self._running)
        finally:
            await self._stack.aclose()

    # --- services

    async def open(self, *roles: str) -> None:
        """Start these services, and wait until they are ready for work."""
        for role in roles:
            service = self._service(role)
            self._running[role] = service, asyncio.create_task(service.run())
        for role in roles:
            service, task = self._running[role]
            ready = asyncio.create_task(service.ready.wait())
            await asyncio.wait({ready, task}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                ready.cancel()
                raise Stalled(f"the {role} service does not start")

    async def close(self, *roles: str) -> None:
        """Stop these services: what is sent to them waits with the broker. Raises what one of them has died of."""
        stopping = [self._running.pop(role) for role in roles]
        for service, _ in stopping:
            service.stop()
        await asyncio.gather(*(task for _, task in stopping))

    def _service(self, role: str) -> Service:
        courier = NatsCourier(self._nats_url, role)
        if role == ORCHESTRATOR:
            inlets, jobs = inlets_of(self.engine, ACK_WAIT), background_of(self.engine)
            return Service(role, courier=courier, inlets=inlets, outbox=self.engine.outbox, background=jobs)
        inlets = {command_inlet(role): CommandProcessor(self.participants[role], self.databases[role])}
        return Service(role, courier=courier, inlets=inlets, outbox=self._outbox(role))

    def _outbox(self, role: str) -> Outbox:
        messaging = tables.messaging if role == ORCHESTRATOR else self.participants[role].messaging
        return Outbox(self.databases[role], messaging, clock=self.clock, faults=NoFaults(), role=role)

    # --- what a story does

    async def seed(self, role: str, *rows: Entity) -> None:
        """Put rows into a participant's database."""
        async with self.databases[role].transaction() as connection:
            seeding = Rows(self.databases[role], connection)
            work = seeding.open_work()
            for row in rows:
                work.add(row)
            seeding.take(work)
            await seeding.write()

    async def start(self, saga: str, data: Mapping[str, Any]) -> str:
        """Start a saga, as `saga start` does. Returns its id."""
        [result] = await self.engine.start([self.engine.request(saga, data)])
        return result.saga_id

    async def tell(self, saga_id: str, event: Event) -> None:
        """Let a person or a webhook say something to a saga, as `saga signal` and `saga compensate` do."""
        decision = await self.engine.tell(saga_id, event)
        if decision.ignored is not None:
            raise Stalled(f"saga {saga_id} does not listen: {decision.ignored}")

    async def reaches(self, saga_id: str, step: str, attempt: int = 1) -> None:
        """Wait until a step is under way: its command is out, for this attempt, or its wait has begun."""

        def under_way(saga: State) -> bool:
            state = saga.steps[step]
            return state.status is StepStatus.ASKED and state.attempt >= attempt

        await self._until(saga_id, under_way, f"comes to attempt {attempt} of {step}")

    async def becomes(self, saga_id: str, *statuses: str) -> None:
        """Wait until a saga has one of these statuses."""
        await self._until(saga_id, lambda saga: saga.status in statuses, f"becomes {' or '.join(statuses)}")

    async def ends(self, saga_id: str) -> None:
        """Wait until a saga has ended."""
        await self.becomes(saga_id, *ENDED)

    def passes(self, **time: float) -> None:
        """So much time passes: `stage.passes(hours=1)`."""
        self.clock.leap(timedelta(**time))

    async def _until(self, saga_id: str, good: Callable[[State], bool], what: str) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not good(saga := await self.queries.state(saga_id)):
            if asyncio.get_running_loop().time() > deadline:
                raise Stalled(f"within {PATIENCE:g} s no saga {saga_id} {what}: it is {saga.status}")
            await asyncio.sleep(0.02)

    # --- what an audit reads

    async def rows(self, role: str, query: Executable) -> Sequence[Row[Any]]:
        """Ask one of the databases."""
        async with self.databases[role].reading() as connection:
            return (await connection.execute(query)).all()


Story = Callable[[Stage], Awaitable[str]]
"""Plays something, and returns the id of the saga that it is about. Its docstring is its title."""
