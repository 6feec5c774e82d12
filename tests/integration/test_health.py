"""What a role says of itself: ready, or what it lacks; alive, or what only a new process can cure."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import insert, text

from outbox import service as service_module
from outbox.courier import NatsCourier
from outbox.database import Database
from outbox.health import OVERDUE, readiness
from outbox.moments import moment
from outbox.outages import Outages, Resource
from outbox.service import Service
from tests.support.messaging import messaging, opened, outbox_on
from tests.support.servers import DatabaseUrls

TABLE = messaging("order").outbox


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
    assert told.endswith("does not hold the tables of this release: run `saga db upgrade`")
    nowhere = Database("postgresql://nobody@127.0.0.1:1/order")
    [told] = await problems(nowhere)
    assert "is out of reach" in told
    await nowhere.close()


async def test_only_what_a_new_process_cures_is_an_ailment(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service("order", courier=NatsCourier("", "order"), inlets={}, outbox=outbox_on(database, "order"))
    assert service.ailments == []
    service.outages.begins(Resource.NATS, "the connection", "no answer")
    assert service.ailments == []
    ended = asyncio.create_task(asyncio.sleep(0))
    await ended
    service._tasks = [ended]
    assert service.ailments == ["one of its loops has ended"]
    monkeypatch.setattr(service_module, "LONGEST_BATCH", 0.0)
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
