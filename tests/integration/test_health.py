"""What a role says of itself: ready, or what it lacks; alive, or what only a new process can cure."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from random import Random
from typing import Any
from urllib.error import HTTPError

import pytest
from sqlalchemy import insert, text

from chaos.wire import Wire
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.health import serving_health
from outbox.courier import NatsCourier
from outbox.database import Database
from outbox.errors import DatabaseBusy
from outbox.health import OVERDUE, readiness
from outbox.intake import Intake
from outbox.moments import moment
from outbox.outages import Outages, Resource
from outbox.pull import NatsPullSubscription
from outbox.pump import Processor, Received
from outbox.service import LONGEST_HANG, Service
from outbox.topology import Inlet, command_inlet
from outbox.unit_of_work import UnitOfWork
from tests.support.messaging import courier, envelope, messaging, opened, outbox_on, send, serving, unsettled
from tests.support.servers import DatabaseUrls
from tests.support.waiting import eventually

TABLE = messaging("order").outbox
INLET = command_inlet("order")
MUZZLED = "our NATS user may not publish on saga.event.order.opened: give it the permission"


@pytest.fixture
async def database(database_urls: DatabaseUrls) -> AsyncIterator[Database]:
    async with opened(database_urls) as open_one:
        yield await open_one("order")


async def problems(database: Database, outages: Outages | None = None, *, has_started: bool = True) -> list[str]:
    told = await readiness("order", outbox_on(database, "order"), outages or Outages(), has_started=has_started)
    assert told.is_ready == (not told.problems)
    return told.problems


async def test_a_role_that_works_lacks_nothing_and_one_that_starts_says_so(database: Database) -> None:
    assert await problems(database) == []
    assert await problems(database, has_started=False) == ["it is starting"]


async def test_what_the_loops_have_noticed_is_told_with_its_time(database: Database) -> None:
    outages = Outages()
    outages.begins(Resource.NATS, "the connection", "no answer")
    [told] = await problems(database, outages)
    assert told == f"NATS is out of reach since {moment(outages.current[Resource.NATS].since)}: no answer"
    outages.ends("the connection")
    assert await problems(database, outages) == []
    outages.notice(DatabaseBusy("lock timeout"), "the pump")
    [told] = await problems(database, outages)
    assert told.startswith("the tables of the database are locked by somebody since ")


async def test_messages_that_no_sweep_has_taken_are_told(database: Database) -> None:
    outbox = outbox_on(database, "order")
    late = outbox.clock.now() - timedelta(seconds=OVERDUE + 60)
    rows = [{"message_id": f"{n}", "subject": "saga.event.x", "body": "{}", "due_at": late} for n in range(3)]
    async with database.transaction() as connection:
        await connection.execute(insert(TABLE), rows)
    [told] = await problems(database)
    assert told.startswith("3 messages wait in the outbox, the oldest for 9")


async def test_a_database_without_our_tables_or_out_of_reach_is_told(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("DROP TABLE outbox"))
    [told] = await problems(database)
    assert "does not hold the tables of this release: run `saga db upgrade`" in told
    nowhere = Database("postgresql://nobody@127.0.0.1:1/order")
    [told] = await problems(nowhere)
    assert "is out of reach" in told
    await nowhere.close()


async def test_only_what_a_new_process_cures_is_an_ailment(database: Database) -> None:
    service = Service("order", courier=NatsCourier("", "order"), inlets={}, outbox=outbox_on(database, "order"))
    assert service.ailments == []
    service.outages.begins(Resource.NATS, "the connection", "no answer")
    assert service.ailments == []
    ended = asyncio.create_task(asyncio.sleep(0))
    await ended
    service._tasks = [ended]
    assert service.ailments == ["one of its loops has ended"]
    service.stop()
    assert service.ailments == []


def test_an_outage_is_over_when_all_who_noticed_it_work_again(capsys: pytest.CaptureFixture[str]) -> None:
    outages = Outages()
    for loop in ("sweep", "publish", "sweep"):
        outages.begins(Resource.DATABASE, loop, f"{loop} failed")
    outages.ends("sweep")
    assert outages.current[Resource.DATABASE].reason == "sweep failed"
    outages.ends("timers")
    outages.ends("publish")
    assert outages.current == {}
    begin, end = capsys.readouterr().out.splitlines()
    assert "the database is out of reach; trying again until it is back" in begin
    assert "the database is back" in end


# --- a batch that never ends -----------------------------------------------------------------------------------------


class Hands:
    """Of a clock that a test moves."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Hangs:
    """Never comes back from a batch, until it is let go."""

    def __init__(self) -> None:
        self.entered, self.let_go = asyncio.Event(), asyncio.Event()

    async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        self.entered.set()
        await self.let_go.wait()


class OneByOne:
    """Can do one event at a time, and takes nearly as long for each as a batch may hang."""

    def __init__(self, hands: Hands) -> None:
        self.hands, self.done = hands, 0
        self.service: Service | None = None
        self.ailments: list[str] = []

    async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        assert self.service is not None
        self.hands.seconds += LONGEST_HANG
        self.ailments += self.service.ailments
        if len(batch) > 1:
            raise ValueError("one at a time, please")
        self.done += 1


def service_of(url: str, database_url: str, processor: Processor, hands: Hands) -> Service:
    own = Database(database_url)  # the service closes it
    inlets = {INLET: processor}
    return Service(
        "order", courier=NatsCourier(url, "order"), inlets=inlets, outbox=outbox_on(own, "order"), monotonic=hands
    )


def ask(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.usefixtures("database")
async def test_a_batch_of_which_nothing_comes_is_an_ailment(nats: EmbeddedNats, database_urls: DatabaseUrls) -> None:
    hangs, hands = Hangs(), Hands()
    service = service_of(nats.url, database_urls("order"), hangs, hands)
    async with courier(nats.url) as broker, serving(service), serving_health("127.0.0.1:0", [service]) as url:

        async def told() -> tuple[int, Any]:
            return await asyncio.to_thread(ask, f"{url}/healthz")

        await send(broker.jetstream, "saga.cmd.order.note", envelope("x"))
        await asyncio.wait_for(hangs.entered.wait(), 30)
        hands.seconds += LONGEST_HANG
        assert await told() == (200, {"alive": True, "problems": []})
        hands.seconds += 1
        problem = "order: nothing has come of the batch in hand for 121 s"
        assert await told() == (503, {"alive": False, "problems": [problem]})
        service.outages.begins(Resource.DATABASE, "a test", "it restarts")
        assert await told() == (200, {"alive": True, "problems": []}), "a database that is away is waited for"
        service.outages.ends("a test")
        assert (await told())[0] == 503
        hangs.let_go.set()

        async def is_well() -> bool:
            return service.ailments == []

        await eventually(is_well, "the batch has ended")


@pytest.mark.usefixtures("database")
async def test_a_batch_that_takes_long_and_gets_on_is_none(nats: EmbeddedNats, database_urls: DatabaseUrls) -> None:
    """Five events, of which each takes as long as nothing may come of a batch."""
    hands = Hands()
    one_by_one = OneByOne(hands)
    one_by_one.service = service_of(nats.url, database_urls("order"), one_by_one, hands)
    async with courier(nats.url) as broker, serving(one_by_one.service):
        await send(broker.jetstream, "saga.cmd.order.note", *(envelope(f"{number}") for number in range(5)))

        async def is_settled() -> bool:
            return await unsettled(broker.jetstream, INLET) == 0

        await eventually(is_settled, "all are handled")
    assert (one_by_one.done, one_by_one.ailments) == (5, [])
    assert hands.seconds == 6 * LONGEST_HANG


# --- what a person has to change -------------------------------------------------------------------------------------


class Muzzled(NatsCourier):
    """Its NATS user may not publish everything."""

    @property
    def problems(self) -> list[str]:
        return [MUZZLED]


@pytest.mark.usefixtures("database")
async def test_what_the_broker_does_not_take_from_us_is_told(nats: EmbeddedNats, database_urls: DatabaseUrls) -> None:
    outbox = outbox_on(Database(database_urls("order")), "order")
    service = Service("order", courier=Muzzled(nats.url, "order"), inlets={}, outbox=outbox)
    assert (await service.readiness()).problems == [MUZZLED]
    await outbox.database.close()


# --- half of the connections -----------------------------------------------------------------------------------------


class OverAWire(NatsCourier):
    """What comes, comes over a wire that can be cut; what goes, goes straight."""

    def __init__(self, url: str, wire: Wire) -> None:
        super().__init__(url, "order")
        self._wire = wire

    def source(self, inlet: Inlet) -> Intake:
        url = f"nats://me:secret@127.0.0.1:{self._wire.port}"
        return Intake(NatsPullSubscription(url, inlet, name="over-a-wire"))


@pytest.mark.usefixtures("database")
async def test_a_connection_that_only_the_intake_has_lost_is_told_once_and_missed(
    nats: EmbeddedNats, database_urls: DatabaseUrls, capsys: pytest.CaptureFixture[str]
) -> None:
    wire = Wire("order>nats", int(nats.url.rpartition(":")[2]), Random(1))
    await wire.open()
    parts = {"courier": OverAWire(nats.url, wire), "inlets": {INLET: OneByOne(Hands())}}
    service = Service("order", **parts, outbox=outbox_on(Database(database_urls("order")), "order"))  # type: ignore[arg-type]

    async def is_ready() -> bool:
        return (await service.readiness()).is_ready

    async def is_not_ready() -> bool:
        return not await is_ready()

    async with serving(service):
        await eventually(is_ready, "it is ready")
        await wire.close()
        await eventually(is_not_ready, "it misses the connection")
        [told] = (await service.readiness()).problems
        assert told.startswith("NATS is out of reach since 20")
        where = f"nats://127.0.0.1:{wire.port}"
        assert told.endswith(f" UTC: the connection to {where} is lost, over which messages come")
        await wire.open()
        await eventually(is_ready, "it has found it again")
    await wire.close()
    said = capsys.readouterr().out
    assert [said.count(f"NATS is {words}") for words in ("out of reach", "back")] == [1, 1], said
    assert "secret" not in said
