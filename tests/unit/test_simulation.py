"""The stand-ins of the simulation: time, the database server, the broker. Each is as bad as it says, and no worse."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox.database import Database
from outbox.delivery import Message
from outbox.envelope import Packet
from outbox.errors import DatabaseOutOfReach
from outbox.intake import Intake
from outbox.topology import COMMANDS, EVENTS, REPLIES, Topology, command_inlet
from simulation import virtual
from simulation.boundary import CURRENT, Place
from simulation.broker import Line, SimulatedBroker
from simulation.courier import Habits, JetStream, SimulatedCourier
from simulation.engine import open_engine
from simulation.fate import Fate
from simulation.runner import Report
from simulation.schedule import Outcome
from simulation.server import IDLE_TIMEOUT, LOCK_TIMEOUT, Kind, Server, kind_of
from simulation.violation import Violation
from simulation.witness import Witness

ROWS = Table("rows", MetaData(), Column("name", String, primary_key=True), Column("amount", Integer))
PACKET = Packet("m-1", "saga.cmd.order.open-order", "{}")


async def at_ease(_place: Place) -> None:
    """Nothing happens on the way."""


class Steady:
    """A process to which nothing happens, unless it is told to fall asleep at a place."""

    def __init__(self) -> None:
        self.sleeps: dict[str, float] = {}

    async def come_to(self, place: Place, cut: Any = None) -> None:
        """Go on, sooner or later."""
        await asyncio.sleep(self.sleeps.pop(place, 0.0))


@dataclass
class Door:
    """An `outbox.database.Server`."""

    server: Server = field(default_factory=lambda: Server("order"))

    def engine(self, **options: Any) -> AsyncEngine:
        """What executes statements there."""
        return open_engine(self.server, **options)


@pytest.fixture
def server() -> Server:
    """A server with one row in one table."""
    server = Server("order")
    server.disk.execute("CREATE TABLE rows (name TEXT PRIMARY KEY, amount INTEGER)")
    server.disk.execute("INSERT INTO rows VALUES ('a', 1)")
    server.remember()
    return server


@pytest.fixture
def database(server: Server) -> Database:
    """The door to it."""
    return Database("sqlite:///:memory:", server=Door(server))


def amount(server: Server) -> int:
    return int(server.ask("SELECT amount FROM rows WHERE name = 'a'")[0][0])


async def add(database: Database, *, lock: bool, thinking: float = 0.0) -> None:
    """Read, think, write."""
    async with database.transaction() as connection:
        query = select(ROWS.c.amount).where(ROWS.c.name == "a")
        found = (await connection.execute(query.with_for_update() if lock else query)).scalar_one()
        await asyncio.sleep(thinking)
        await connection.execute(update(ROWS).where(ROWS.c.name == "a").values(amount=found + 1))


async def both(*jobs: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(*jobs)


# --- time


def test_an_hour_takes_no_time_and_is_an_hour() -> None:
    async def sleep() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert virtual.run(sleep()) == 3600


def test_whoever_waits_for_nobody_is_told_so() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(virtual.Idle, match="nobody has anything to do"):
        virtual.run(wait())


def test_whoever_spins_is_stopped() -> None:
    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(virtual.Spinning, match="turns at 0"):
        virtual.run(spin())


# --- the database server


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("SELECT a FROM rows", Kind(False, None, "none", None)),
        ("SELECT a FROM rows /*wait rows*/", Kind(False, None, "wait", "rows")),
        ("UPDATE rows SET a=1", Kind(True, "rows", "none", None)),
        ("UPDATE rows SET a=1 WHERE b IN (SELECT b FROM rows /*skip rows*/)", Kind(True, "rows", "skip", "rows")),
        ("DELETE FROM rows WHERE a=1", Kind(True, "rows", "none", None)),
        ("INSERT INTO rows VALUES (1)", Kind(True, None, "none", None)),
    ],
)
def test_a_statement_says_what_it_does(sql: str, kind: Kind) -> None:
    assert kind_of(sql) == kind


def test_two_who_lock_what_they_read_lose_nothing(server: Server, database: Database) -> None:
    virtual.run(both(add(database, lock=True, thinking=1), add(database, lock=True)))
    assert amount(server) == 3


def test_two_who_lock_nothing_lose_a_change(server: Server, database: Database) -> None:
    virtual.run(both(add(database, lock=False, thinking=1), add(database, lock=False)))
    assert amount(server) == 2


def test_a_server_that_holds_no_locks_loses_a_change_too(server: Server, database: Database) -> None:
    server.restore(locks=False)
    virtual.run(both(add(database, lock=True, thinking=1), add(database, lock=True)))
    assert amount(server) == 2


def test_what_is_not_committed_is_not_there(server: Server, database: Database) -> None:
    async def fail() -> None:
        async with database.transaction() as connection:
            await connection.execute(insert(ROWS), [{"name": "b", "amount": 2}])
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        virtual.run(fail())
    assert server.ask("SELECT count(*) FROM rows") == [(1,)]


def test_nobody_waits_for_a_lock_for_ever(database: Database) -> None:
    with pytest.raises(DatabaseOutOfReach, match="lock timeout"):
        virtual.run(both(add(database, lock=True, thinking=LOCK_TIMEOUT + 1), add(database, lock=True)))


def test_whoever_sleeps_in_a_transaction_is_rolled_back(server: Server, database: Database) -> None:
    sleeper = Steady()

    async def fall_asleep() -> None:
        CURRENT.set(sleeper)
        sleeper.sleeps["commit"] = IDLE_TIMEOUT + 5
        await add(database, lock=True)

    async def notice() -> None:
        await asyncio.sleep(1)
        assert server.freeze(sleeper, IDLE_TIMEOUT + 4) == 1

    with pytest.raises(DatabaseOutOfReach, match="closed the connection"):
        virtual.run(both(fall_asleep(), notice()))
    assert amount(server) == 1


def test_a_server_that_is_away_takes_no_statement(server: Server, database: Database) -> None:
    server.is_up = False
    with pytest.raises(DatabaseOutOfReach, match="does not answer"):
        virtual.run(add(database, lock=True))


def test_a_restored_server_is_as_new(server: Server, database: Database) -> None:
    virtual.run(add(database, lock=True))
    server.restore()
    assert amount(server) == 1


# --- the broker


def harmless() -> tuple[Fate, Witness]:
    """Nothing goes wrong, and nobody looks."""
    fate = Fate(0, lambda: 0.0)
    fate.is_active = False
    return fate, Witness({}, holds_locks=True)


class Ears:
    """What is heard on a line."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.ends: list[tuple[int, bool]] = []

    def hear(self, message: Message) -> None:
        self.messages.append(message.subject)

    def hear_end(self, request: int, *, in_time: bool) -> None:
        self.ends.append((request, in_time))


async def a_broker() -> SimulatedBroker:
    broker = SimulatedBroker(*harmless())
    await Topology(command_inlet("order")).ensure(as_jetstream(broker))
    return broker


def as_jetstream(broker: SimulatedBroker) -> JetStreamContext:
    stream: Any = JetStream(broker, at_ease)
    found: JetStreamContext = stream
    return found


async def a_source(broker: SimulatedBroker) -> Intake:
    courier = SimulatedCourier("order-0", "order", broker, broker.fate, at_ease, Habits(64, 16, expires=10.0))
    source = courier.source(command_inlet("order"))
    await source.start()
    return source


async def taken(source: Intake, within: float = 100.0) -> list[str]:
    """What comes, and is acknowledged."""
    try:
        deliveries = await asyncio.wait_for(source.take(), within)
    except TimeoutError:
        return []
    for delivery in deliveries:
        await delivery.message.ack()
    return [delivery.subject for delivery in deliveries]


def test_the_real_topology_makes_streams_and_consumers() -> None:
    broker = virtual.run(a_broker())
    assert list(broker.streams) == [COMMANDS, REPLIES, EVENTS]
    assert list(broker.streams[COMMANDS].consumers) == ["order"]


def test_a_known_message_id_is_dropped() -> None:
    async def publish_twice() -> list[str]:
        broker = await a_broker()
        source = await a_source(broker)
        assert broker.store(PACKET)
        assert broker.store(PACKET)
        return await taken(source) + await taken(source)

    assert virtual.run(publish_twice()) == [PACKET.subject]


def test_what_is_not_acknowledged_comes_again() -> None:
    async def ignore() -> list[int]:
        broker = await a_broker()
        source = await a_source(broker)
        broker.store(PACKET)
        return [(await source.take())[0].deliveries for _ in range(3)]

    assert virtual.run(ignore()) == [1, 2, 3]


def test_a_consumer_that_is_made_again_begins_with_the_oldest_message() -> None:
    async def lose() -> list[str]:
        broker = await a_broker()
        source = await a_source(broker)
        broker.store(PACKET)
        first = await taken(source)
        broker.lose_consumer("order")
        await Topology(command_inlet("order")).ensure(as_jetstream(broker))
        return first + await taken(source)

    assert virtual.run(lose()) == [PACKET.subject] * 2


def test_a_broker_that_is_rolled_back_delivers_what_it_had_then() -> None:
    async def roll_back() -> list[str]:
        broker = await a_broker()
        broker.store(PACKET)
        copy = broker.copy()
        source = await a_source(broker)
        first = await taken(source)
        broker.roll_back(copy)
        return first + await taken(source)

    assert virtual.run(roll_back()) == [PACKET.subject] * 2


def test_a_lost_stream_takes_nothing_until_it_is_made_again() -> None:
    async def lose() -> list[bool]:
        broker = await a_broker()
        broker.lose([COMMANDS])
        before = broker.store(PACKET)
        with pytest.raises(NotFoundError):
            await JetStream(broker, at_ease).add_consumer(COMMANDS, ConsumerConfig(durable_name="order"))
        await Topology(command_inlet("order")).ensure(as_jetstream(broker))
        return [before, broker.store(PACKET)]

    assert virtual.run(lose()) == [False, True]


def test_the_broker_sends_no_more_than_it_is_asked_for_and_keeps_the_rest() -> None:
    async def ask() -> tuple[list[str], list[str]]:
        broker, heard = await a_broker(), Ears()
        for number in range(5):
            broker.store(replace(PACKET, message_id=f"m-{number}"))
        line = Line("order", at_ease, heard)
        broker.ask(line, COMMANDS, 1, 2, expires=5.0)
        await asyncio.sleep(1.0)
        first = list(heard.messages)
        broker.ask(line, COMMANDS, 2, 9, expires=5.0)
        await asyncio.sleep(10.0)
        return first, heard.messages

    first, after = virtual.run(ask())
    assert (len(first), len(after)) == (2, 5)


def test_a_request_ends_at_its_time_or_at_once_where_nobody_can_serve_it() -> None:
    async def ask() -> list[tuple[int, bool]]:
        broker, heard = await a_broker(), Ears()
        line = Line("order", at_ease, heard)
        broker.ask(line, COMMANDS, 1, 1, expires=5.0)
        await asyncio.sleep(4.9)
        assert heard.ends == []
        await asyncio.sleep(1.0)
        broker.ask(line, COMMANDS, 2, 1, expires=5.0)
        broker.lose_consumer("order")
        await asyncio.sleep(0.1)
        broker.ask(line, COMMANDS, 3, 1, expires=5.0)
        await asyncio.sleep(0.1)
        return heard.ends

    assert virtual.run(ask()) == [(1, True), (2, False), (3, False)]


def test_whoever_has_gone_is_sent_nothing() -> None:
    async def go() -> list[str]:
        broker, heard = await a_broker(), Ears()
        line = Line("order", at_ease, heard)
        broker.ask(line, COMMANDS, 1, 1, expires=5.0)
        broker.forget(line)
        broker.store(PACKET)
        await asyncio.sleep(10.0)
        return heard.messages

    assert virtual.run(go()) == []


# --- the report


def test_a_run_without_a_fault_or_without_a_completed_saga_proves_nothing() -> None:
    report = Report(1)
    report.add(Outcome(1, sagas=1, ends={"completed": 1}))
    assert report.nothing_shown == "no fault fired"
    report = Report(1)
    report.add(Outcome(1, sagas=1, ends={"compensated": 1}, faults={"process-killed": 1}))
    assert report.nothing_shown == "no saga completed"
    report.add(Outcome(2, sagas=1, ends={"completed": 1}))
    assert report.nothing_shown is None


def test_a_violation_names_the_command_that_plays_its_schedule_alone() -> None:
    report = Report(40)
    report.add(Outcome(42, violations=[Violation("every-saga-ends", "saga x is still running")]))
    [found] = report.to_json()["violations"]
    assert found["reproduce"] == "saga simulate --seed 42 --schedules 1 --trace"
    assert (found["seed"], found["check"]) == (42, "every-saga-ends")
