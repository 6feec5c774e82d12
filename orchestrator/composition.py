"""The composition root: the one place where everything is wired together, and the only one that knows every part."""

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Final

from orchestrator import tables
from orchestrator.admission import Admission, run_admission
from orchestrator.commands import OrchestratorCommands
from orchestrator.engine import Engine
from orchestrator.letters import Letters
from orchestrator.queries import Queries
from orchestrator.registry import Definitions
from orchestrator.retention import Pruner, SagaRetention
from orchestrator.scheduler import Scheduler, run_schedules
from orchestrator.settings import Settings
from orchestrator.timers import run_timers
from orchestrator.verify import Books, Verifier
from orchestrator.why import Advisor, Door, Witness
from orchestrator.why.witness import REPLIES
from orchestrator.window import Windows
from outbox.broker import Broker
from outbox.clock import Clock, DatabaseClock
from outbox.courier import Courier, NatsCourier
from outbox.database import Database
from outbox.dead_letters import DeadLetters
from outbox.errors import DatabaseOutOfReach
from outbox.faults import Faults, faults_from
from outbox.pump import Processor
from outbox.relay import Relay
from outbox.retention import MessagingRetention
from outbox.service import Background, Service
from outbox.tables import MessagingTables
from outbox.topology import Inlet, Topology, command_inlet, reply_inlet
from outbox.unit_of_work import Outbox
from participants.inventory import handlers as inventory
from participants.inventory import seed as inventory_seed
from participants.inventory.audit import InventoryAuditor
from participants.order import handlers as order
from participants.order.audit import OrderAuditor
from participants.payment import handlers as payment
from participants.payment import seed as payment_seed
from participants.payment.audit import PaymentAuditor
from participants.runtime.processor import CommandProcessor

PARTICIPANTS: Final = {module.participant.name: module.participant for module in (order, inventory, payment)}


def load_definitions(settings: Settings) -> Definitions:
    """The sagas that this process runs. Raises InvalidDefinition."""
    here = str(Path.cwd())  # the module of somebody's own sagas need not be installed
    if here not in sys.path:
        sys.path.append(here)
    return Definitions.of_modules(name.strip() for name in settings.definitions.split(",") if name.strip())


def open_database(settings: Settings, role: str, *, must_exist: bool = True) -> Database:
    """One role's database. Raises DatabaseOutOfReach when it should be there and is not."""
    database = Database(settings.database_url(role), pool_size=settings.pool_size)
    file = database.url.database
    if must_exist and database.dialect == "sqlite" and file and not Path(file).exists():
        raise DatabaseOutOfReach(
            f"there is no database {file}",
            "start `saga dev`, or make it with `saga db upgrade`, or say where it is with --data-dir",
        )
    return database


def messaging_of(role: str) -> MessagingTables:
    """The messaging tables of one role."""
    return tables.messaging if role == "orchestrator" else PARTICIPANTS[role].messaging


def inlet_of(settings: Settings, role: str) -> Inlet:
    """What comes to one role."""
    ack_wait = timedelta(seconds=settings.ack_wait)
    return reply_inlet(ack_wait) if role == "orchestrator" else command_inlet(role, ack_wait)


def build_service(
    settings: Settings, role: str, *, clock: Clock | None = None, faults: Faults | None = None
) -> Service:
    """A role that is ready to run."""
    outbox = _outbox(settings, role, open_database(settings, role), clock, faults)
    courier = NatsCourier(settings.nats_url, role, replicas=settings.stream_replicas)
    definitions = load_definitions(settings) if role == "orchestrator" else Definitions(())
    ack_wait = timedelta(seconds=settings.ack_wait)
    return service_of(role, outbox, courier, definitions, ack_wait, max_in_flight=settings.max_in_flight)


def service_of(
    role: str,
    outbox: Outbox,
    courier: Courier,
    definitions: Definitions,
    ack_wait: timedelta,
    *,
    max_in_flight: int = 0,
) -> Service:
    """A role on the parts that it is given. The definitions are for the orchestrator alone."""
    if role != "orchestrator":
        processor = CommandProcessor(PARTICIPANTS[role], outbox.database)
        return Service(role, courier=courier, inlets={command_inlet(role, ack_wait): processor}, outbox=outbox)
    engine = Engine(definitions, outbox, clock=outbox.clock, max_in_flight=max_in_flight)
    inlets, background = inlets_of(engine, ack_wait), background_of(engine)
    return Service(role, courier=courier, inlets=inlets, outbox=outbox, background=background)


def inlets_of(engine: Engine, ack_wait: timedelta) -> dict[Inlet, Processor]:
    """What comes to the orchestrator, and who handles it."""
    return {reply_inlet(ack_wait): engine, command_inlet("orchestrator", ack_wait): OrchestratorCommands(engine)}


def background_of(engine: Engine) -> tuple[Background, ...]:
    """What the orchestrator does without being asked."""
    return (
        lambda: run_timers(engine),
        lambda: run_admission(Admission(engine)),
        lambda: run_schedules(Scheduler(engine)),
    )


@dataclass(frozen=True, slots=True)
class Client:
    """An engine for a command that comes and goes: it writes like a replica, and publishes what it wrote if it can."""

    engine: Engine
    definitions: Definitions
    queries: Queries
    database: Database
    relay: Relay
    broker: Broker
    topology: Topology

    async def connect(self) -> None:
        """Reach the broker, and see that its streams are there. Raises BrokerOutOfReach."""
        await self.broker.connect()
        await self.topology.ensure(self.broker.jetstream)


@asynccontextmanager
async def open_client(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Client]:
    """Opens the orchestrator's database. The caller connects the broker; without it the orchestrator publishes."""
    database = open_database(settings, "orchestrator")
    outbox = _outbox(settings, "orchestrator", database, clock, None)
    broker = Broker(settings.nats_url, name="amends-cli")
    try:
        await outbox.clock.sync(database)
        definitions = load_definitions(settings)
        engine = Engine(definitions, outbox, clock=outbox.clock)
        topology = Topology(replicas=settings.stream_replicas)
        queries = Queries(database, definitions)
        yield Client(engine, definitions, queries, database, Relay(outbox, broker), broker, topology)
    finally:
        await broker.close()
        await database.close()


@asynccontextmanager
async def open_queries(settings: Settings) -> AsyncIterator[Queries]:
    """The reading side, for a command that comes and goes."""
    database = open_database(settings, "orchestrator")
    try:
        yield Queries(database, load_definitions(settings))
    finally:
        await database.close()


@asynccontextmanager
async def open_verifier(settings: Settings) -> AsyncIterator[Verifier]:
    """Opens every database."""
    roles = ("orchestrator", *PARTICIPANTS)
    async with AsyncExitStack() as stack:
        databases = {role: open_database(settings, role) for role in roles}
        for database in databases.values():
            stack.push_async_callback(database.close)
        auditors = (
            OrderAuditor(databases["order"]),
            InventoryAuditor(databases["inventory"]),
            PaymentAuditor(databases["payment"]),
        )
        books: Sequence[Books] = [Books(role, databases[role], messaging_of(role)) for role in roles]
        yield Verifier(databases["orchestrator"], load_definitions(settings), auditors, books)


@asynccontextmanager
async def open_pruner(settings: Settings, *, batch: int) -> AsyncIterator[Pruner]:
    """Opens every database."""
    faults, clock = faults_from(settings.crash_at), DatabaseClock()
    async with AsyncExitStack() as stack:
        databases = {role: open_database(settings, role) for role in ("orchestrator", *PARTICIPANTS)}
        for database in databases.values():
            stack.push_async_callback(database.close)
        await clock.sync(databases["orchestrator"])
        messaging = [
            MessagingRetention(role, database, messaging_of(role), batch=batch, faults=faults)
            for role, database in databases.items()
        ]
        yield Pruner(SagaRetention(databases["orchestrator"], batch=batch, faults=faults), messaging, clock.now())


@asynccontextmanager
async def open_letters(settings: Settings, roles: Sequence[str]) -> AsyncIterator[Letters]:
    """The dead letters of these roles. A database that is not there yet hides its own, and no others."""
    letters = Letters({}, partial(open_database, settings, "orchestrator"))
    async with AsyncExitStack() as stack:
        for role in roles:
            try:
                database = open_database(settings, role)
            except DatabaseOutOfReach as error:
                letters.hidden[role] = str(error)
                continue
            stack.push_async_callback(database.close)
            letters.boxes[role] = DeadLetters(role, _outbox(settings, role, database, None, None))
        yield letters


def witness_of(settings: Settings, client: Client, advisor: Advisor) -> Witness:
    """Looks at one saga from all sides. Nothing but the client's own database has to be in reach."""
    roles = ("orchestrator", *PARTICIPANTS)
    doors = [Door(role, partial(open_database, settings, role), messaging_of(role)) for role in roles]
    inlets = {role: inlet_of(settings, role) for role in PARTICIPANTS}
    inlets |= {REPLIES: reply_inlet(), "orchestrator": command_inlet("orchestrator")}
    windows = Windows(client.database, client.engine.outbox.clock, client.definitions, settings.max_in_flight)
    return Witness(client.queries, client.database, client.definitions, doors, client.broker, inlets, advisor, windows)


class SeedRefused(Exception):
    """Seeding that would contradict what has already happened."""


async def seed_stock(settings: Settings, quantities: Mapping[str, int]) -> None:
    """Let each article have had so many in all. Raises SeedRefused."""
    database = open_database(settings, "inventory")
    try:
        await inventory_seed.seed_stock(database, quantities)
    except inventory_seed.NotEnoughStock as error:
        raise SeedRefused(str(error)) from error
    finally:
        await database.close()


async def seed_accounts(settings: Settings, balances: Mapping[str, Decimal], currency: str) -> None:
    """Let each customer have been given so much in all. Raises SeedRefused."""
    database = open_database(settings, "payment")
    try:
        await payment_seed.seed_accounts(database, balances, currency)
    except payment_seed.AccountConflict as error:
        raise SeedRefused(str(error)) from error
    finally:
        await database.close()


def _outbox(settings: Settings, role: str, database: Database, clock: Clock | None, faults: Faults | None) -> Outbox:
    return Outbox(
        database,
        messaging_of(role),
        clock=clock or DatabaseClock(),
        faults=faults or faults_from(settings.crash_at),
        role=role,
        grace=timedelta(seconds=settings.outbox_grace),
    )
