"""The pump: one batch, one transaction, and the acknowledgement after it. One event that fails holds nobody back."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from sqlalchemy import insert
from structlog.testing import capture_logs

from migrations.runner import upgrade
from orchestrator.composition import PARTICIPANTS
from orchestrator.embedded.nats_server import EmbeddedNats
from outbox import database as database_module
from outbox import pump as pump_module
from outbox.broker import Broker
from outbox.database import Database
from outbox.delivery import Delivery
from outbox.envelope import Envelope
from outbox.errors import DatabaseOutOfReach
from outbox.intake import AT_ONCE, EXPIRES, QUEUE_BYTES, QUEUE_MESSAGES, SLACK, Intake
from outbox.outages import Outages, report_to
from outbox.pull import NatsPullSubscription
from outbox.pump import Processor, Pump, Received
from outbox.suspects import DEADLY_AFTER, GIVE_UP_AFTER, SUSPECT_AFTER, Suspects
from outbox.topology import command_inlet
from outbox.unit_of_work import Outbox, UnitOfWork
from participants.inventory.contracts import ReserveStock, StockLine
from participants.inventory.models import Reservation
from participants.inventory.seed import seed_stock
from participants.runtime.processor import CommandProcessor
from tests.support.messaging import (
    DAWN,
    Journal,
    Killed,
    asks,
    courier,
    envelope,
    messaging,
    opened,
    outbox_on,
    rows_of,
    send,
    send_raw,
    unsettled,
)
from tests.support.outages import Breakable, breakable_database, failed_over, locked
from tests.support.servers import DatabaseUrls, Postgres, PostgresDatabases
from tests.support.waiting import eventually

INLET = command_inlet("inventory", timedelta(minutes=10))
SUBJECT = "saga.cmd.inventory.note"
TABLES = messaging("inventory")


@pytest.fixture
async def database(database_urls: DatabaseUrls) -> AsyncIterator[Database]:
    async with opened(database_urls) as open_one:
        yield await open_one("inventory")


@pytest.fixture
async def broker(nats: EmbeddedNats) -> AsyncIterator[Broker]:
    async with courier(nats.url, INLET) as connected:
        yield connected


@pytest.fixture
def stream(broker: Broker) -> JetStreamContext:
    return broker.jetstream


class Notes:
    """Writes a row for every event, and raises for those that are to fail (as long as they are)."""

    def __init__(self, *failing: str) -> None:
        self.failing = {*failing}
        self.tries: list[str] = []

    async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        ids = [received.envelope.id for received in batch]
        self.tries += ids
        rows = [{"message_id": id, "answer": "", "received_at": DAWN} for id in ids]
        if rows:
            await unit.connection.execute(insert(TABLES.inbox), rows)
        if bad := self.failing.intersection(ids):
            raise ValueError(f"cannot stand {min(bad)}")


class Watched(Delivery):
    """Notes what is said to the broker, and says it."""

    journal: Journal

    async def ack(self) -> None:
        self.journal.entries.append("ack")
        await super().ack()

    async def still_working(self) -> None:
        self.journal.entries.append("working")
        await super().still_working()

    async def put_back(self, delay: float) -> None:
        self.journal.entries.append(f"back in {delay:g} s")
        await super().put_back(delay)


def intake_on(url: str) -> Intake:
    """What the tests' pumps take from."""
    return Intake(NatsPullSubscription(url, INLET, name="test-intake"))


class Post:
    """Hands deliveries to a pump one batch at a time."""

    def __init__(self, broker: Broker, outbox: Outbox, processor: Processor, journal: Journal | None = None) -> None:
        self.stream = broker.jetstream
        self.journal = journal or Journal()
        self.pump = Pump(intake_on(broker.url), outbox, processor)

    async def fetch(self, count: int) -> list[Delivery]:
        """So many messages, once they are there."""
        subscription = await self.stream.pull_subscribe_bind(INLET.durable, INLET.stream)
        messages: list[Msg] = []
        while len(messages) < count:
            messages += await subscription.fetch(count - len(messages), timeout=20)
        await subscription.unsubscribe()
        deliveries: list[Delivery] = []
        for message in messages:
            delivery = Watched(message)
            delivery.journal = self.journal
            deliveries.append(delivery)
        return deliveries

    async def handle(self, count: int) -> None:
        await self.pump.handle(await self.fetch(count))

    async def until_settled(self, left: int = 0) -> None:
        async def is_settled() -> bool:
            return await unsettled(self.stream, INLET) == left

        await eventually(is_settled, f"{left} messages are not settled")


async def noted(database: Database) -> list[str]:
    return [row.message_id for row in await rows_of(database, TABLES.inbox)]


async def buried(database: Database) -> list[tuple[str | None, str]]:
    return [(row.message_id, row.reason) for row in await rows_of(database, TABLES.dead_letters)]


# --- poison ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def post(database: Database, broker: Broker) -> Post:
    """The inventory, with plenty of tea."""
    await seed_stock(database, {"tea": 1000})
    return Post(broker, outbox_on(database, "inventory"), CommandProcessor(PARTICIPANTS["inventory"], database))


def reserve(name: str) -> Envelope:
    return asks(ReserveStock(reservation_id=name, lines=(StockLine(sku="tea", quantity=1),)), f"{name}/do")


GOOD = reserve("good")
POISON = {
    "not JSON": (b"{", "it is not JSON: "),
    "nothing": (b"", "it is not JSON: "),
    "not UTF-8": (b'{"id": "\xff"}', "it is not JSON: "),
    "not a CloudEvent": (b'{"id": "x"}', "it is not a CloudEvent: source: Field required"),
    "not an object": (b"7", "it is not a CloudEvent: the event: "),
    "no id": (GOOD.encode().replace('"good/do"', '""').encode(), "it is not a CloudEvent: id: "),
    "a NUL": (GOOD.encode().replace("tea", "\\u0000").encode(), "it has the character U+0000 in it"),
    "an unknown command": (
        envelope("x", type="inventory.burn-stock").encode().encode(),
        "inventory has no handler for inventory.burn-stock",
    ),
    "a bad payload": (
        GOOD.encode().replace('"quantity":1', '"quantity":-1').encode(),
        "inventory.reserve-stock cannot be read: lines.0.quantity: Input should be greater than 0",
    ),
    "nowhere to answer": (
        GOOD.model_copy(update={"replyto": None}).encode().encode(),
        "no stream takes an answer to replyto None",
    ),
}


@pytest.mark.parametrize("what", POISON)
async def test_poison_is_buried_with_its_reason_and_its_neighbours_are_applied(
    post: Post, database: Database, what: str
) -> None:
    body, reason = POISON[what]
    await send(post.stream, SUBJECT, reserve("before"))
    await send_raw(post.stream, SUBJECT, body)
    await send(post.stream, SUBJECT, reserve("after"))
    await post.handle(3)
    await post.until_settled()
    [letter] = await rows_of(database, TABLES.dead_letters)
    assert letter.reason.startswith(reason)
    assert (letter.subject, letter.deliveries) == (SUBJECT, 1)
    assert await noted(database) == ["after/do", "before/do"]
    assert len(await rows_of(database, Reservation.table)) == 2
    assert post.journal.entries == ["ack"] * 3


async def test_poison_inside_of_a_batch_message_is_buried_without_its_neighbours(
    post: Post, database: Database
) -> None:
    bad = [body for body, _ in POISON.values() if body.startswith(b"{") and body.endswith(b"}") and b"\xff" not in body]
    events = [reserve("before").encode().encode(), *bad, reserve("after").encode().encode()]
    await send_raw(post.stream, SUBJECT, b"[" + b",".join(events) + b"]")
    await post.handle(1)
    await post.until_settled()
    assert len(await buried(database)) == len(bad) == 6
    assert await noted(database) == ["after/do", "before/do"]


@pytest.mark.parametrize("subject", ["saga.cmd.inventory." + "x" * 1000, "saga.cmd.inventory.a\0b"])
async def test_poison_under_a_subject_that_no_column_takes_is_buried(
    post: Post, database: Database, subject: str
) -> None:
    await send_raw(post.stream, subject, b"poison")
    await send(post.stream, SUBJECT, reserve("after"))
    await post.handle(2)
    await post.until_settled()
    [letter] = await rows_of(database, TABLES.dead_letters)
    assert subject.replace("\0", "\\x00").startswith(letter.subject)
    assert await noted(database) == ["after/do"]


async def test_a_command_whose_values_fit_in_no_column_leaves_its_neighbours_alone(
    post: Post, database: Database
) -> None:
    """PostgreSQL would refuse the whole batch for a key that is too long: the contract does it first."""
    too_long = reserve("x")
    too_long = too_long.model_copy(update={"data": too_long.data | {"reservation_id": "x" * 200}})
    await send(post.stream, SUBJECT, reserve("before"), too_long, reserve("after"))
    await post.handle(1)
    assert await noted(database) == ["after/do", "before/do"]
    [(_, reason)] = await buried(database)
    assert "reservation_id: String should have at most 64 characters" in reason


async def test_a_message_that_comes_again_is_buried_once(post: Post, database: Database) -> None:
    await send_raw(post.stream, SUBJECT, b"rubbish")
    [delivery] = await post.fetch(1)
    for _ in range(2):  # killed between the commit and the acknowledgement
        await post.pump.handle([delivery])
    assert len(await buried(database)) == 1


async def test_a_handler_that_times_out_is_no_outage_of_the_database(database: Database, broker: Broker) -> None:
    class Late(Notes):
        async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
            if any(event.envelope.id == "late" for event in batch):
                raise TimeoutError
            await super().process(unit, batch)

    post = Post(broker, outbox_on(database, "inventory"), Late())
    await send(post.stream, SUBJECT, envelope("before"))
    await send(post.stream, SUBJECT, envelope("late"))
    await post.handle(2)
    assert await noted(database) == ["before"]
    assert post.journal.entries == ["ack", "back in 1 s"]


# --- failing handlers --------------------------------------------------------------------------------------------


async def test_a_handler_that_raises_puts_only_its_own_message_back(database: Database, broker: Broker) -> None:
    notes = Notes("bad")
    post = Post(broker, outbox_on(database, "inventory"), notes)
    for id in ("before", "bad", "after"):
        await send(post.stream, SUBJECT, envelope(id))
    await post.handle(3)
    await post.until_settled(1)
    assert await noted(database) == ["after", "before"]
    assert post.journal.entries == ["ack", "back in 1 s", "ack"]

    notes.failing.clear()
    [again] = await post.fetch(1)
    assert (again.deliveries, [event.id for event in again.events if isinstance(event, Envelope)]) == (2, ["bad"])
    await post.pump.handle([again])
    await post.until_settled()
    assert await noted(database) == ["after", "bad", "before"]
    assert await buried(database) == []


async def test_the_good_events_of_a_message_that_comes_again_are_not_lost(database: Database, broker: Broker) -> None:
    post = Post(broker, outbox_on(database, "inventory"), Notes("bad"))
    await send(post.stream, SUBJECT, envelope("before"), envelope("bad"), envelope("after"))
    await post.handle(1)
    await post.until_settled(1)
    assert await noted(database) == ["after", "before"]
    assert post.journal.entries == ["back in 1 s"]


async def test_the_delays_grow_and_have_an_end(
    database: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "LONGEST_DELAY", 3.0)
    post = Post(broker, outbox_on(database, "inventory"), Notes("bad"))
    await send(post.stream, SUBJECT, envelope("bad"))
    for _ in range(3):
        await post.handle(1)
    assert post.journal.entries == ["back in 1 s", "back in 2 s", "back in 3 s"]


async def test_what_fails_again_and_again_is_given_up_and_buried(
    database: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "LONGEST_DELAY", 0.01)
    post = Post(broker, outbox_on(database, "inventory"), Notes("bad"))
    await send(post.stream, SUBJECT, envelope("bad"))
    for _ in range(GIVE_UP_AFTER):
        assert await buried(database) == []
        await post.handle(1)
    await post.until_settled()
    assert await buried(database) == [("bad", "handling failed: ValueError: cannot stand bad")]
    assert post.journal.entries == ["back in 0.01 s"] * (GIVE_UP_AFTER - 1) + ["ack"]
    [letter] = await rows_of(database, TABLES.dead_letters)
    assert (letter.deliveries, letter.body) == (GIVE_UP_AFTER, envelope("bad").encode())


# --- what comes again and again ------------------------------------------------------------------------------------


class Deadly(Notes):
    """Kills its process when it handles certain events, defers others, and notes what is left, once."""

    def __init__(self, *deadly: str, deferred: Sequence[str] = ()) -> None:
        super().__init__()
        self.deadly = {*deadly}
        self.deferred = {*deferred}
        self.batches: list[list[str]] = []

    async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        self.batches.append([received.envelope.id for received in batch])
        if self.deadly.intersection(self.batches[-1]):
            raise Killed
        for received in batch:
            if received.envelope.id in self.deferred:
                unit.defer(received.envelope)
        ids = [id for id in self.batches[-1] if id not in self.deferred]
        rows = [{"message_id": id, "answer": "", "received_at": DAWN} for id in ids]
        unit.writes.insert(TABLES.inbox, rows, known=True)


class Replicas:
    """One process after the other, each with a pump of its own, for as long as they live."""

    def __init__(self, broker: Broker, database: Database, processor: Processor) -> None:
        self.posts = (Post(broker, outbox_on(database, "inventory"), processor) for _ in range(100))
        self.post = next(self.posts)

    async def come_again(self, count: int, times: int) -> None:
        """So many messages are delivered so often, and put back each time: whoever had them was killed."""
        for _ in range(times):
            for delivery in await self.post.fetch(count):
                await delivery.put_back(0)

    async def handle(self, count: int) -> bool:
        """Returns whether the process has lived."""
        deliveries = await self.post.fetch(count)
        try:
            await self.post.pump.handle(deliveries)
        except Killed:
            for delivery in deliveries:
                await delivery.put_back(0)  # what is settled takes no notice
            self.post = next(self.posts)
            return False
        return True


async def suspects(database: Database) -> list[tuple[int, int]]:
    return [(row.failed, row.opened) for row in await rows_of(database, TABLES.suspects)]


async def test_what_kills_its_process_again_and_again_is_buried_and_its_neighbours_are_applied(
    database: Database, broker: Broker
) -> None:
    deadly = Deadly("deadly")
    replicas = Replicas(broker, database, deadly)
    for id in ("before", "deadly", "after"):
        await send(replicas.post.stream, SUBJECT, envelope(id))
    deaths = 0
    while not await replicas.handle(3):
        deaths += 1
    await replicas.post.until_settled()
    assert deaths == SUSPECT_AFTER + DEADLY_AFTER
    reason = f"{DEADLY_AFTER} processes died with it in hand, and lately with nothing else"
    assert await buried(database) == [("deadly", reason)]
    assert await noted(database) == ["after", "before"]
    assert [len(batch) for batch in deadly.batches if "deadly" in batch] == [3] * (SUSPECT_AFTER + 1) + [1] * (
        DEADLY_AFTER - 1
    )
    assert await suspects(database) == []


async def test_one_event_of_a_packet_that_kills_is_buried_without_the_others(
    database: Database, broker: Broker
) -> None:
    replicas = Replicas(broker, database, Deadly("deadly"))
    await send(replicas.post.stream, SUBJECT, *(envelope(id) for id in ("before", "deadly", "after")))
    while not await replicas.handle(1):
        pass
    assert [id for id, _ in await buried(database)] == ["deadly"]
    assert await noted(database) == ["after", "before"]


async def test_what_is_delivered_very_often_and_does_no_harm_is_applied(database: Database, broker: Broker) -> None:
    """Its processes were killed again and again, as a chaos run does, and nothing is wrong with it."""
    notes = Deadly()
    replicas = Replicas(broker, database, notes)
    for number in range(3):
        await send(replicas.post.stream, SUBJECT, envelope(f"{number}"))
    await replicas.come_again(3, 60)
    assert await replicas.handle(3)
    await replicas.post.until_settled()
    assert (await noted(database), await buried(database)) == (["0", "1", "2"], [])
    assert [sorted(batch) for batch in notes.batches] == [["0", "1", "2"]], "they are handled together"
    assert await suspects(database) == []


async def test_a_harmless_message_that_was_in_hand_at_a_few_deaths_is_applied(
    database: Database, broker: Broker
) -> None:
    replicas = Replicas(broker, database, processor := Deadly("harmless"))
    await send(replicas.post.stream, SUBJECT, envelope("harmless"))
    await replicas.come_again(1, SUSPECT_AFTER)
    for _ in range(DEADLY_AFTER - 1):  # somebody else killed it, each time
        assert not await replicas.handle(1)
    processor.deadly.clear()
    assert await replicas.handle(1)
    assert (await noted(database), await buried(database), await suspects(database)) == (["harmless"], [], [])


async def test_what_is_deferred_for_long_is_never_buried_and_costs_its_neighbours_nothing(
    database: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "LONGEST_DEFERRAL", 0.0)
    replicas = Replicas(broker, database, processor := Deadly(deferred=["early"]))
    await send(replicas.post.stream, SUBJECT, envelope("early"))
    for _ in range(60):
        assert await replicas.handle(1)
    assert (await buried(database), await suspects(database)) == ([], [(0, 0)])
    processor.deferred.clear()
    assert await replicas.handle(1)
    assert (await noted(database), await buried(database), await suspects(database)) == (["early"], [], [])


@pytest.mark.parametrize(
    ("processor", "back"),
    [(Deadly(deferred=["early"]), [2, 16, 32, 64, 256, 300, 300]), (Notes("early"), [2, 16, *[30] * 5])],
    ids=["deferred", "failing"],
)
async def test_what_no_replica_takes_comes_again_ever_more_rarely(
    database: Database, broker: Broker, processor: Processor, back: list[int]
) -> None:
    replicas = Replicas(broker, database, processor)
    await send(replicas.post.stream, SUBJECT, envelope("early"))
    [delivery] = await replicas.post.fetch(1)
    for deliveries in (2, 5, 6, 7, 9, 10, 500):
        delivery.deliveries = deliveries
        await replicas.post.pump.handle([delivery])
    assert replicas.post.journal.entries == [f"back in {seconds} s" for seconds in back]


async def test_what_no_replica_takes_is_buried_before_the_broker_forgets_it(
    database: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "LONGEST_DEFERRAL", 0.0)
    monkeypatch.setattr(pump_module, "DEFERRED_AT_MOST", 10)
    replicas = Replicas(broker, database, Deadly(deferred=["early"]))
    await send(replicas.post.stream, SUBJECT, envelope("early"))
    for _ in range(11):
        assert await replicas.handle(1)
    await replicas.post.until_settled()
    assert await buried(database) == [("early", "no replica took it, in 11 deliveries")]
    assert await suspects(database) == []


async def test_errors_are_counted_and_not_deliveries(
    database: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "LONGEST_DELAY", 0.0)
    notes = Notes("bad")
    replicas = Replicas(broker, database, notes)
    await send(replicas.post.stream, SUBJECT, envelope("bad"))
    await replicas.come_again(1, 60)
    for failures in range(1, GIVE_UP_AFTER):
        assert await replicas.handle(1)
        assert (await suspects(database), await buried(database)) == ([(failures, 0)], [])
    notes.failing.clear()
    assert await replicas.handle(1)
    assert (await noted(database), await suspects(database)) == (["bad"], [])


async def test_an_outage_of_the_database_is_no_death(database: Database, broker: Broker) -> None:
    """It strikes as often as it may between the opening and the closing, and its process lives through all of it."""
    outages = DEADLY_AFTER + 2

    class Unreachable(Notes):
        async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
            if batch and len(self.tries) < outages:
                self.tries += ["out of reach"]
                raise DatabaseOutOfReach
            await super().process(unit, batch)

    replicas = Replicas(broker, database, processor := Unreachable())
    await send(replicas.post.stream, SUBJECT, envelope("patient"))
    await replicas.come_again(1, SUSPECT_AFTER)
    assert await replicas.handle(1)
    assert (processor.tries[:outages], await noted(database)) == (["out of reach"] * outages, ["patient"])
    assert (await buried(database), await suspects(database)) == ([], [])


async def test_a_batch_whose_counting_fails_is_put_back(
    database: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the whole role."""

    async def fail(*_: object) -> None:
        raise RuntimeError("nobody has foreseen this")

    replicas = Replicas(broker, database, processor := Notes())
    await send(replicas.post.stream, SUBJECT, envelope("a"))
    [delivery] = await replicas.post.fetch(1)
    delivery.deliveries = SUSPECT_AFTER + 1
    with monkeypatch.context() as broken:
        broken.setattr(Suspects, "open", fail)
        await replicas.post.pump.handle([delivery])
    assert (processor.tries, await buried(database)) == ([], [])
    assert replicas.post.journal.entries == ["back in 30 s"]
    await replicas.post.pump.handle([delivery])
    assert await noted(database) == ["a"]


async def test_an_outage_that_ends_with_an_error_has_ended(
    database: Database, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or `/readyz` would say for ever that the database is out of reach."""
    errors: list[Exception] = [
        DatabaseOutOfReach("it starts up"),
        RuntimeError("nobody has foreseen this"),
    ]

    async def fail(*_: object) -> None:
        raise errors.pop(0)

    report_to(seen := Outages())
    replicas = Replicas(broker, database, Notes())
    await send(replicas.post.stream, SUBJECT, envelope("a"))
    [delivery] = await replicas.post.fetch(1)
    delivery.deliveries = SUSPECT_AFTER + 1
    with monkeypatch.context() as broken, capture_logs() as logs:
        broken.setattr(Suspects, "open", fail)
        await replicas.post.pump.handle([delivery])
    assert [line["event"] for line in logs if "the database is" in line["event"]] == [
        "the database is out of reach; trying again until it is back",
        "the database is back",
    ]
    assert (errors, seen.current) == ([], {})


async def test_a_message_that_has_come_hundreds_of_times_can_be_put_back_once_more(
    database: Database, broker: Broker
) -> None:
    replicas = Replicas(broker, database, Deadly(deferred=["early"]))
    await send(replicas.post.stream, SUBJECT, envelope("early"))
    [delivery] = await replicas.post.fetch(1)
    delivery.deliveries = pump_module.DEFERRED_AT_MOST
    await replicas.post.pump.handle([delivery])
    assert replicas.post.journal.entries == ["back in 300 s"]


# --- commit, then acknowledge ------------------------------------------------------------------------------------


async def test_the_acknowledgement_comes_after_the_commit(database: Database, broker: Broker) -> None:
    journal = Journal()
    post = Post(broker, outbox_on(database, "inventory", faults=journal), Notes(), journal)
    await send(post.stream, SUBJECT, envelope("a"))
    await post.handle(1)
    assert journal.entries == ["received", "before-commit", "committed", "before-ack", "ack", "acked"]


@pytest.mark.parametrize(("dies_at", "left"), [("received", []), ("before-commit", []), ("committed", ["a"])])
async def test_whoever_dies_before_the_acknowledgement_is_sent_the_batch_again(
    database: Database, broker: Broker, dies_at: str, left: list[str]
) -> None:
    journal = Journal(dies_at)
    post = Post(broker, outbox_on(database, "inventory", faults=journal), Notes(), journal)
    await send(post.stream, SUBJECT, envelope("a"))
    with pytest.raises(Killed):
        await post.handle(1)
    assert await noted(database) == left
    assert "ack" not in journal.entries
    assert await unsettled(post.stream, INLET) == 1


async def test_a_commit_that_fails_for_want_of_a_database_is_done_again_and_only_then_acknowledged(
    database: Database, broker: Broker
) -> None:
    journal = Journal("before-commit", error=DatabaseOutOfReach)
    post = Post(broker, outbox_on(database, "inventory", faults=journal), Notes(), journal)
    await send(post.stream, SUBJECT, envelope("a"), envelope("b"))
    await post.handle(1)
    await post.until_settled()
    assert await noted(database) == ["a", "b"]
    once_more = ["working", "before-commit", "committed", "before-ack", "ack", "acked"]
    assert journal.entries == ["received", "before-commit", *once_more]


# --- a pump that runs --------------------------------------------------------------------------------------------


@asynccontextmanager
async def pumping(url: str, outbox: Outbox, processor: Processor) -> AsyncIterator[Pump]:
    """A pump that takes from its intake. What kills it fails the test."""
    intake = intake_on(url)
    await intake.start()
    pump = Pump(intake, outbox, processor)
    running = asyncio.create_task(pump.run())
    try:
        yield pump
    finally:
        pump.stop()
        await asyncio.wait_for(running, 30)
        await intake.stop()


async def test_an_intake_that_was_held_up_with_nothing_in_hand_goes_on(
    nats: EmbeddedNats, stream: JetStreamContext
) -> None:
    """After an outage of the database in which nothing came, nobody had asked for what came later."""
    intake = intake_on(nats.url)
    await intake.start()
    await send(stream, SUBJECT, envelope("before"))
    [before] = await intake.take()
    intake.hold()
    await asyncio.sleep(EXPIRES + 2 * SLACK)  # until the last request is over
    await send(stream, SUBJECT, envelope("after"))
    [after] = await asyncio.wait_for(intake.take(), 30)
    assert [one.events for one in (before, after)] == [[envelope("before")], [envelope("after")]]
    await intake.stop()


async def test_an_intake_holds_few_messages_when_they_are_large(nats: EmbeddedNats, stream: JetStreamContext) -> None:
    """What has waited in it for longer than `ack_wait` comes again, and was worked on twice."""
    for number in range(40):
        await send(stream, SUBJECT, envelope(f"{number:02}", text="x" * (QUEUE_BYTES // 10)))
    intake = intake_on(nats.url)
    await intake.start()

    async def is_full() -> bool:
        return not intake._room.is_set()

    await eventually(is_full, "it asks for no more")
    await asyncio.sleep(2 * EXPIRES)
    assert 10 <= (await stream.consumer_info(INLET.stream, INLET.durable)).num_ack_pending < 10 + AT_ONCE
    taken: list[str] = []
    while len(taken) < 40:
        for delivery in await asyncio.wait_for(intake.take(), 30):
            taken += [event.id for event in delivery.events if isinstance(event, Envelope)]
            await delivery.ack()
    assert taken == [f"{number:02}" for number in range(40)]
    await intake.stop()


async def test_an_intake_that_the_server_has_sent_away_comes_back(nats: EmbeddedNats, stream: JetStreamContext) -> None:
    """nats-py does not: an error like "maximum connections exceeded" closes the connection for good."""
    subscription = NatsPullSubscription(nats.url, INLET, name="test-intake")
    intake = Intake(subscription)
    await intake.start()
    await sent_away(subscription._client)
    await send(stream, SUBJECT, envelope("after"))
    [after] = await asyncio.wait_for(intake.take(), 30)
    assert after.events == [envelope("after")]
    await intake.stop()


async def test_a_connection_that_tells_late_of_its_end_leaves_no_outage_behind(
    nats: EmbeddedNats, stream: JetStreamContext
) -> None:
    """nats-py says that a connection is closed, and then waits for the peer; there may be another by then."""
    outages = Outages()
    report_to(outages)
    subscription, publisher = NatsPullSubscription(nats.url, INLET, name="test-intake"), Broker(nats.url, name="test")
    intake = Intake(subscription)
    await intake.start()
    await publisher.connect()
    for connection in (subscription, publisher):
        await connection._lost()
    assert outages.current
    await publisher.connect()

    async def is_over() -> bool:
        return not outages.current

    await eventually(is_over, "both are known to be well")
    await intake.stop()
    await publisher.close()


async def test_an_intake_may_be_stopped_twice_also_when_it_could_not_take_its_leave(
    nats: EmbeddedNats, stream: JetStreamContext
) -> None:
    """A service that fails while it leaves stops its sources once more: that must not hide why it failed."""
    gone = NatsPullSubscription(nats.url, INLET, name="test-intake")
    intake = Intake(gone)
    await intake.start()
    await sent_away(gone._client)
    for _ in range(2):
        await intake.stop()
    intake = intake_on(nats.url)
    await intake.start()
    await asyncio.to_thread(nats.kill)
    for _ in range(2):
        await intake.stop()


async def sent_away(client: Client | None) -> None:
    """Let a client hear from its server that it is not wanted."""
    assert client is not None
    await client._process_err("'maximum connections exceeded'")

    async def is_closed() -> bool:
        return client.is_closed

    await eventually(is_closed, "the client has given up")


async def test_a_publisher_that_the_server_has_sent_away_comes_back(broker: Broker) -> None:
    await sent_away(broker._client)
    assert not broker.is_connected
    await broker.connect()
    await send(broker.jetstream, SUBJECT, envelope("after"))


async def test_an_intake_that_is_started_twice_asks_once(nats: EmbeddedNats, stream: JetStreamContext) -> None:
    intake = intake_on(nats.url)
    await intake.start()
    await intake.start()

    async def asks() -> bool:
        return bool((await stream.consumer_info(INLET.stream, INLET.durable)).num_waiting)

    await eventually(asks, "it asks")
    assert (await stream.consumer_info(INLET.stream, INLET.durable)).num_waiting == 1
    await intake.stop()
    assert not [task for task in asyncio.all_tasks() if "forever" in repr(task.get_coro())]


class Slow(Notes):
    """Works on a batch until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.at_work = asyncio.Event()
        self.go_on = asyncio.Event()

    async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        self.at_work.set()
        await self.go_on.wait()
        await super().process(unit, batch)


async def test_stopping_finishes_the_batch_in_hand_and_takes_no_other(
    database: Database, broker: Broker, nats: EmbeddedNats, stream: JetStreamContext
) -> None:
    slow = Slow()
    async with AsyncExitStack() as stack:
        pump = await stack.enter_async_context(pumping(nats.url, outbox_on(database, "inventory"), slow))
        await send(stream, SUBJECT, envelope("in-hand"))
        await slow.at_work.wait()
        pump.stop()
        for number in range(100):
            await send(stream, SUBJECT, envelope(f"later-{number:02}"))

        async def is_full() -> bool:
            found = await stream.consumer_info(INLET.stream, INLET.durable)
            return (found.num_ack_pending, found.num_pending) == (1 + QUEUE_MESSAGES, 100 - QUEUE_MESSAGES)

        await eventually(is_full, "the intake has fetched what it may hold, and the broker keeps the rest")
        slow.go_on.set()
    assert await noted(database) == ["in-hand"]
    async with pumping(nats.url, outbox_on(database, "inventory"), Notes()):

        async def are_all_noted() -> bool:
            return len(await noted(database)) == 101

        await eventually(are_all_noted, "another replica has done the rest")
    assert await unsettled(stream, INLET) == 0


async def test_what_is_waiting_is_done_in_one_transaction(
    database: Database, broker: Broker, nats: EmbeddedNats, stream: JetStreamContext
) -> None:
    slow = Slow()
    journal = Journal()
    async with pumping(nats.url, outbox_on(database, "inventory", faults=journal), slow):
        await send(stream, SUBJECT, envelope("first"))
        await slow.at_work.wait()
        for number in range(30):
            await send(stream, SUBJECT, envelope(f"{number:02}"))

        async def are_all_here() -> bool:
            found = await stream.consumer_info(INLET.stream, INLET.durable)
            return bool(found.num_ack_pending == 31)

        await eventually(are_all_here, "the intake has fetched them all")
        slow.go_on.set()

        async def are_all_done() -> bool:
            return await unsettled(stream, INLET) == 0

        await eventually(are_all_done, "all are done")
    assert slow.tries == ["first", *(f"{number:02}" for number in range(30))]
    assert journal.entries.count("committed") <= 5


@pytest.fixture(params=["sqlite", "postgresql"])
def breakable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Breakable]:
    with breakable_database(request.param, tmp_path) as one:
        yield one


async def test_an_outage_of_the_database_loses_nothing_and_ends_by_itself(
    breakable: Breakable, broker: Broker, nats: EmbeddedNats, stream: JetStreamContext
) -> None:
    database = breakable.open()
    await upgrade(database, "inventory")
    async with pumping(nats.url, outbox_on(database, "inventory"), Notes()):

        async def is_done() -> bool:
            return await noted(database) == ["before"]

        await send(stream, SUBJECT, envelope("before"))
        await eventually(is_done, "the first is done")
        with capture_logs() as logs:
            async with breakable.outage():

                async def is_noticed() -> bool:
                    return any("database is out of reach" in entry["event"] for entry in logs)

                for number in range(10):
                    await send(stream, SUBJECT, envelope(f"during-{number}"))
                await eventually(is_noticed, "the pump has met the outage")
        await send(stream, SUBJECT, envelope("after"))

        async def are_all_noted() -> bool:
            return len(await noted(database)) == 12

        await eventually(are_all_noted, "everything is done")
    assert await buried(database) == []
    assert await unsettled(stream, INLET) == 0
    await database.close()


@pytest.fixture
async def on_postgresql(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """Nobody waits long for a lock there."""
    monkeypatch.setitem(database_module.SERVER_SETTINGS, "lock_timeout", "200ms")
    urls = PostgresDatabases(postgres)
    async with opened(urls) as open_one:
        yield await open_one("inventory")
    urls.drop()


class Sizes(Notes):
    """Notes how large each batch was."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        self.sizes.append(len(batch))
        await super().process(unit, batch)


async def test_a_pump_writes_again_by_itself_when_a_server_that_was_read_only_takes_writes(
    on_postgresql: Database, broker: Broker, nats: EmbeddedNats, stream: JetStreamContext
) -> None:
    """After a failover it wrote nothing for as long as it lived: its connections led to the standby."""
    report_to(seen := Outages())
    database = Database(on_postgresql.url.render_as_string(hide_password=False))
    with capture_logs() as logs:
        async with pumping(nats.url, outbox_on(database, "inventory"), sizes := Sizes()):
            async with failed_over(on_postgresql):
                await send(stream, SUBJECT, *(envelope(f"{number}") for number in range(5)))

                async def is_refused() -> bool:
                    return any("takes no writes" in outage.reason for outage in seen.current.values())

                await eventually(is_refused, "the pump has met the server that takes no writes")
                await asyncio.sleep(2)

            async def are_all_noted() -> bool:
                return await unsettled(stream, INLET) == 0

            await eventually(are_all_noted, "everything is done")
    assert await noted_by(on_postgresql) == ["0", "1", "2", "3", "4"]
    assert {*sizes.sizes} == {5}
    assert [line["event"] for line in logs] == [
        "the database is out of reach; trying again until it is back",
        "the database is back",
    ]
    assert (seen.current, await buried(on_postgresql), await suspects(on_postgresql)) == ({}, [], [])
    await database.close()


async def noted_by(database: Database) -> list[str]:
    """The same as `noted`, by a door whose connections were cut."""
    await database.close()
    return await noted(database)


async def test_whoever_locks_a_table_for_long_costs_no_message_a_try(
    on_postgresql: Database, broker: Broker, stream: JetStreamContext
) -> None:
    """While an index was made all that came was done again one by one, and buried after eight tries."""
    report_to(seen := Outages())
    database = Database(on_postgresql.url.render_as_string(hide_password=False))
    post = Post(broker, outbox_on(database, "inventory"), sizes := Sizes())
    await send(stream, SUBJECT, *(envelope(f"{number}") for number in range(5)))
    await send(stream, SUBJECT, envelope("5"))
    with capture_logs() as logs:
        async with locked(on_postgresql, "inbox"):
            handling = asyncio.create_task(post.handle(2))

            async def has_tried_often() -> bool:
                return len(sizes.sizes) >= 4

            await eventually(has_tried_often, "the pump has tried again and again")
            [reason] = [outage.reason for outage in seen.current.values()]
        await handling
    assert "somebody locks what we need of the database" in reason
    assert {*sizes.sizes} == {6}
    assert post.journal.entries == [*["working"] * 2 * (len(sizes.sizes) - 1), "ack", "ack"]
    assert [line["event"] for line in logs] == [
        "the tables of the database are locked by somebody; trying again until they are free",
        "the tables of the database are free again",
    ]
    assert await noted(on_postgresql) == ["0", "1", "2", "3", "4", "5"]
    assert (seen.current, await buried(on_postgresql), await suspects(on_postgresql)) == ({}, [], [])
    await database.close()
