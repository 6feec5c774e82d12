"""A whole world in one process: the four roles on real databases and a real NATS, with a clock that a test may own.

    async with World(database_urls, nats.url) as world:
        await world.start(*ROLES)
        saga_ids = await world.place(an_order(), an_order(sku="sold-out"))
        assert await world.until_ended(saga_ids) == ["completed", "compensated"]
        assert await world.findings() == []

What only needs an engine, a test does at a `Desk`, which is found here too.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from types import TracebackType
from typing import Any, Final, Self

from sqlalchemy import Executable, Row, select, text

from orchestrator import tables
from orchestrator.composition import messaging_of, service_of
from orchestrator.engine import Engine, new_saga_id
from orchestrator.model import SAGA, Saga
from orchestrator.queries import Queries, SagaView
from orchestrator.registry import Definitions
from orchestrator.verify import Books, Finding, Verifier
from outbox.broker import Broker
from outbox.clock import Clock, DatabaseClock
from outbox.courier import NatsCourier
from outbox.database import Database
from outbox.envelope import Envelope
from outbox.errors import BrokerOutOfReach, DatabaseOutOfReach
from outbox.faults import Faults, NoFaults
from outbox.outages import Outages
from outbox.relay import Relay
from outbox.service import Service
from outbox.topology import Topology
from outbox.unit_of_work import Outbox
from participants.inventory.audit import InventoryAuditor
from participants.inventory.seed import seed_stock
from participants.order.audit import OrderAuditor
from participants.payment.audit import PaymentAuditor
from participants.payment.seed import seed_accounts
from participants.runtime.audit import Auditor
from tests.support.desk import (
    ASKING_FOR_EVER,
    DAWN,
    SQLITE_IS_ENOUGH,
    THREE_TIMES,
    UNTIRING,
    Desk,
    OwnedClock,
    an_order,
    answer,
    definitions_with,
    mixed_orders,
    received,
    with_policies,
)
from tests.support.messaging import unpacked
from tests.support.servers import DatabaseUrls, Role
from tests.support.waiting import eventually

__all__ = [
    "ASKING_FOR_EVER", "DAWN", "ROLES", "SQLITE_IS_ENOUGH", "THREE_TIMES", "UNTIRING", "Desk", "OwnedClock", "Running",
    "World", "an_order", "answer", "definitions_with", "mixed_orders", "received", "waits_for_lock", "with_policies",
]  # fmt: skip

ROLES: Final[tuple[Role, ...]] = ("orchestrator", "order", "inventory", "payment")
PATIENCE: Final = 60.0
GRACE: Final = timedelta(seconds=1)
ACK_WAIT: Final = timedelta(seconds=5)

STOCK: Final = {"lamp": 100_000, "sold-out": 0}
ACCOUNTS: Final = {"ada": Decimal(10_000_000), "bob": Decimal(5)}


class Reached:
    """Counts the crash points that a replica passes, and crashes at none: tells who has worked."""

    def __init__(self) -> None:
        self.points: Counter[str] = Counter()

    def reach(self, point: str) -> None:
        """Count and go on."""
        self.points[point] += 1


async def waits_for_lock(world: "World", how_many: int = 1) -> bool:
    """Whether so many connections to the orchestrator's PostgreSQL wait for somebody's lock."""
    query = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    [row] = await world.rows("orchestrator", text(query))
    return bool(row[0] == how_many)


@dataclass(slots=True)
class Running:
    """One running replica of a role."""

    service: Service
    task: asyncio.Task[None]
    reached: Reached = field(default_factory=Reached)


class World:
    """Everything that there is in one test. Leaving it stops what runs and closes what is open."""

    def __init__(
        self,
        database_urls: DatabaseUrls,
        nats_url: str = "",
        *,
        roles: Sequence[Role] = ROLES,
        definitions: Definitions = UNTIRING,
        clock: Clock | None = None,
        ack_wait: timedelta = ACK_WAIT,
    ) -> None:
        self._urls = database_urls
        self._nats_url = nats_url
        self._roles = roles
        self._definitions = definitions
        self._stack = AsyncExitStack()
        self._running: dict[Role, list[Running]] = defaultdict(list)
        self._client: tuple[Desk, Relay] | None = None
        self._clock = clock
        self._ack_wait = ack_wait
        self.databases: dict[Role, Database] = {}
        """A door to each role's database for the test's own looks."""

    async def __aenter__(self) -> Self:
        for role in self._roles:
            await self._urls.migrated(role)
            self.databases[role] = self._open(role)
        if "inventory" in self._roles:
            await seed_stock(self.databases["inventory"], STOCK)
        if "payment" in self._roles:
            await seed_accounts(self.databases["payment"], ACCOUNTS, "EUR")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop(*self._running)
        finally:
            await self._stack.aclose()

    # --- roles

    async def start(self, *roles: Role, faults: Faults | None = None) -> None:
        """Start one replica for each name, and wait until they are ready."""
        started = [self._start(role, faults) for role in roles]
        for one in started:
            ready = asyncio.create_task(one.service.ready.wait())
            await asyncio.wait({ready, one.task}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                ready.cancel()
                raise AssertionError(
                    f"the {one.service.role} service was not ready within {PATIENCE:g} s, or has ended"
                )

    async def stop(self, *roles: Role) -> None:
        """Stop every replica of these roles in order. Raises what one of them has died of."""
        stopping = [one for role in roles for one in self._running.pop(role, [])]
        for one in stopping:
            one.service.stop()
        for ended in await asyncio.gather(*(one.task for one in stopping), return_exceptions=True):
            if ended is not None:
                raise ended

    async def killed(self, role: Role, by: type[BaseException]) -> None:
        """Wait until every replica of a role has died of this, and of nothing else."""
        for one in self._running.pop(role):
            [ended] = await asyncio.wait_for(asyncio.gather(one.task, return_exceptions=True), PATIENCE)
            if not isinstance(ended, by | BaseExceptionGroup):
                raise AssertionError(f"the {role} service was to be killed, and has ended with {ended!r}")

    def reached(self, role: Role) -> list[Counter[str]]:
        """For each running replica of a role: which crash points it has passed, and how often."""
        return [one.reached.points for one in self._running[role]]

    def outages(self, role: Role) -> Outages:
        """What the one replica of a role cannot reach."""
        [one] = self._running[role]
        return one.service.outages

    def desk(
        self,
        *,
        definitions: Definitions | None = None,
        faults: Faults | None = None,
        ids: Callable[[], str] = new_saga_id,
        max_in_flight: int = 0,
    ) -> Desk:
        """Another replica's engine, for the test to feed."""
        outbox = self._outbox("orchestrator", self._open("orchestrator"), faults or NoFaults())
        known = self._definitions if definitions is None else definitions
        return Desk(Engine(known, outbox, clock=outbox.clock, ids=ids, max_in_flight=max_in_flight), outbox)

    def outbox(self, role: Role) -> Outbox:
        """A service's own outbox, as a test may use it in the service's place."""
        return self._outbox(role, self._open(role), NoFaults())

    # --- orders

    async def place(self, *orders: Mapping[str, Any], saga: str = "place-order") -> list[str]:
        """Place orders in one transaction, and publish their first commands if the broker can be reached."""
        if self._client is None:
            broker = Broker(self._nats_url, name="amends-test")
            await broker.connect()
            self._stack.push_async_callback(broker.close)
            await Topology().ensure(broker.jetstream)
            desk = self.desk()
            self._client = desk, Relay(desk.outbox, broker)
        desk, relay = self._client
        results = await desk.engine.start([desk.engine.request(saga, order) for order in orders])
        with suppress(BrokerOutOfReach):
            await relay.flush()
        return [result.saga_id for result in results]

    async def until_ended(self, saga_ids: Sequence[str], *, within: float = PATIENCE) -> list[str]:
        """Wait until these sagas have ended, or are stuck. Returns the status of each."""
        return await self._until(saga_ids, lambda status: status in ("completed", "compensated", "stuck"), within)

    async def until_asked(self, saga_ids: Sequence[str], step: str, direction: str = "do") -> None:
        """Wait until this step of all of these sagas has a command out."""
        wanted = {f"{saga_id}/{step}/{direction}" for saga_id in saga_ids}

        async def all_asked() -> bool:
            asked = [one for one in await self.sagas() if step in one.steps and one.steps[step].attempt]
            return {saga.command_id(step) for saga in asked} >= wanted

        await eventually(all_asked, f"{step}/{direction} of {len(wanted)} sagas is asked", seconds=PATIENCE)

    async def _until(self, saga_ids: Sequence[str], good: Callable[[str], bool], within: float) -> list[str]:
        statuses: dict[str, str] = {}

        async def all_good() -> bool:
            with suppress(DatabaseOutOfReach):  # some tests take it away
                statuses.update(await self.queries.statuses(saga_ids))
                return all(good(statuses.get(saga_id, "")) for saga_id in saga_ids)
            return False

        try:
            await eventually(all_good, "the sagas have ended", seconds=within)
        except AssertionError as error:
            late = [await self.view(saga_id) for saga_id in saga_ids if not good(statuses.get(saga_id, ""))]
            raise AssertionError(f"{error}; {len(late)} have not, the first is {late[:1]}") from None
        return [statuses[saga_id] for saga_id in saga_ids]

    # --- looks

    @property
    def queries(self) -> Queries:
        """The reading side of the orchestrator."""
        return Queries(self.databases["orchestrator"], self._definitions)

    async def view(self, saga_id: str) -> SagaView:
        """Everything about one saga."""
        return await self.queries.get(saga_id, (self._clock or DatabaseClock()).now())

    async def saga(self, saga_id: str) -> Saga:
        """The stored state of one saga."""
        [row] = await self.rows("orchestrator", select(tables.sagas.c.state).where(tables.sagas.c.id == saga_id))
        return SAGA.validate_json(row.state)

    async def sagas(self) -> list[Saga]:
        """The stored state of every saga."""
        rows = await self.rows("orchestrator", select(tables.sagas.c.state).order_by(tables.sagas.c.id))
        return [SAGA.validate_json(row.state) for row in rows]

    async def in_state(self, status: str) -> list[str]:
        """The ids of the sagas with this status."""
        return [saga.id for saga in await self.sagas() if saga.status == status]

    async def children(self, saga_id: str) -> list[Saga]:
        """The sagas that one has started, in the order in which they came to be."""
        begun = select(tables.sagas.c.state).where(tables.sagas.c.key.startswith(f"{saga_id}/", autoescape=True))
        rows = await self.rows("orchestrator", begun.order_by(tables.sagas.c.started_at, tables.sagas.c.key))
        return [SAGA.validate_json(row.state) for row in rows]

    async def log(self, saga_id: str) -> list[str]:
        """What the log says of one saga: `asked open-order`, `completed`, …"""
        lines = [line.entry async for line in self.queries.whole_log(saga_id)]
        return [f"{entry.kind} {getattr(entry, 'step', '')}".rstrip() for entry in lines]

    async def outgoing(self, role: Role = "orchestrator") -> list[Envelope]:
        """What waits in a role's outbox, by id and attempt. Without a relay that is all that was ever sent."""
        rows = await self.rows(role, select(messaging_of(role).outbox.c.body))
        envelopes = [envelope for row in rows for envelope in unpacked(row.body)]
        return sorted(envelopes, key=lambda envelope: (envelope.id, envelope.attempt))

    async def commands(self) -> list[tuple[str, int]]:
        """The command ids and attempts in the orchestrator's outbox."""
        return [(one.id, one.attempt) for one in await self.outgoing() if one.replyto is not None]

    async def dead_letters(self, role: Role = "orchestrator") -> list[str]:
        """Why messages were buried."""
        table = messaging_of(role).dead_letters
        return [row.reason for row in await self.rows(role, select(table.c.reason).order_by(table.c.id))]

    async def rows(self, role: Role, query: Executable) -> Sequence[Row[Any]]:
        """Ask one of the databases."""
        async with self.databases[role].reading() as connection:
            return (await connection.execute(query)).all()

    async def execute(self, role: Role, *statements: Executable) -> None:
        """Change one of the databases behind everybody's back, in one transaction."""
        async with self.databases[role].transaction() as connection:
            for statement in statements:
                await connection.execute(statement)

    async def reconnect(self) -> None:
        """Let go of the test's own connections, after the server behind them was restarted."""
        for database in self.databases.values():
            await database.close()

    async def findings(self) -> list[Finding]:
        """What `saga verify` says of the databases that are open."""
        kinds: dict[Role, Callable[[Database], Auditor]] = {
            "order": OrderAuditor,
            "inventory": InventoryAuditor,
            "payment": PaymentAuditor,
        }
        auditors = [kind(self.databases[role]) for role, kind in kinds.items() if role in self.databases]
        relayed = self.databases if self._nats_url else {}  # without a broker everything stays in the outbox
        books = [Books(role, database, messaging_of(role)) for role, database in relayed.items()]
        verifier = Verifier(self.databases["orchestrator"], self._definitions, auditors, books)
        return [finding async for finding in verifier.findings()]

    # --- how it is made

    def _open(self, role: Role) -> Database:
        database = Database(self._urls(role))
        self._stack.push_async_callback(database.close)
        return database

    def _outbox(self, role: Role, database: Database, faults: Faults) -> Outbox:
        clock = self._clock or DatabaseClock()
        return Outbox(database, messaging_of(role), clock=clock, faults=faults, role=role, grace=GRACE)

    def _start(self, role: Role, faults: Faults | None) -> Running:
        reached = Reached()
        database = Database(self._urls(role))  # the service closes it
        outbox = self._outbox(role, database, faults or reached)
        courier = NatsCourier(self._nats_url, role)
        service = service_of(role, outbox, courier, self._definitions, self._ack_wait)
        running = Running(service, asyncio.create_task(service.run()), reached)
        self._running[role].append(running)
        return running
