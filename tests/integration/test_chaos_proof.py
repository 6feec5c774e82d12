"""What a run is judged by: each claim is found broken when it is, and a run that has shown nothing has failed."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from chaos import orders
from chaos.garbage import MARK
from chaos.load import Load
from chaos.proof import Proof, prove
from chaos.record import Fault, Invariant, Record
from chaos.run import Outcome
from chaos.settle import Left, settle
from orchestrator.cli.chaos import _judge
from orchestrator.cli.schema import upgrade_all
from orchestrator.composition import Client, messaging_of, open_client, seed_accounts, seed_stock
from orchestrator.settings import Settings, load_settings
from orchestrator.tables import saga_log, sagas
from outbox.unit_of_work import DeadLetter

SEED = 5
NOTHING = Left()


@pytest.fixture
async def settings(tmp_path: Path) -> Settings:
    """Four databases on SQLite, with shelves and accounts."""
    settings = load_settings(data_dir=tmp_path, nats_url="nats://127.0.0.1:1")
    await upgrade_all(settings)
    await seed_stock(settings, orders.stock())
    await seed_accounts(settings, orders.accounts(), orders.CURRENCY)
    return settings


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    """Starts sagas that nobody will carry out."""
    async with open_client(settings) as client:
        yield client


@pytest.fixture
async def load(client: Client) -> Load:
    """Ten orders, of which numbers 3 and 7 have to be refused."""
    load = Load(client, SEED, rate=1000, most=10)
    running = asyncio.create_task(load.run())
    while len(load.started) < 10:
        await asyncio.sleep(0.01)
    load.stop()
    await running
    return load


async def broken(settings: Settings, load: Load, *surprises: str, left: Left = NOTHING) -> dict[str, int]:
    """Which claims were found broken, and how often. What the sagas have not done is left out."""
    found = (await _prove(settings, load, surprises, left)).violations
    names = [one.invariant for one in found if one.invariant not in ("effects-match-outcome", "log-replays-to-state")]
    return {name: names.count(name) for name in names}


async def _prove(settings: Settings, load: Load, surprises: tuple[str, ...], left: Left = NOTHING) -> Proof:
    return await prove(settings, load, surprises, left, lambda _: None)


async def test_orders_that_were_taken_have_one_saga_each_however_often_they_are_sent(
    settings: Settings, client: Client, load: Load
) -> None:
    again = Load(client, SEED, rate=1000, most=10)
    running = asyncio.create_task(again.run())
    while len(again.started) < 10:
        await asyncio.sleep(0.01)
    again.stop()
    await running
    assert (again.started, again.conflicts) == (load.started, [])
    assert await broken(settings, load) == {}


async def test_an_order_whose_saga_is_gone_is_found(settings: Settings, client: Client, load: Load) -> None:
    async with client.database.transaction() as connection:
        await connection.execute(delete(sagas).where(sagas.c.id == load.started[4]))
        await connection.execute(delete(saga_log).where(saga_log.c.saga_id == load.started[4]))
    assert await broken(settings, load) == {"one-saga-an-order": 1}


async def test_a_saga_that_nobody_was_told_of_is_found(settings: Settings, client: Client, load: Load) -> None:
    load.started[2] = load.started[4]
    assert await broken(settings, load) == {"one-saga-an-order": 1}


@pytest.mark.parametrize(("number", "status"), [(3, "completed"), (7, "completed"), (4, "compensated")])
async def test_an_order_with_the_wrong_end_is_found(
    settings: Settings, client: Client, load: Load, number: int, status: str
) -> None:
    async with client.database.transaction() as connection:
        await connection.execute(update(sagas).where(sagas.c.id == load.started[number]).values(status=status))
    assert await broken(settings, load) == {"ends-as-ordered": 1}


async def test_sagas_without_an_end_and_processes_that_end_by_themselves_are_found(
    settings: Settings, load: Load
) -> None:
    found = await broken(settings, load, "order-1 has ended by itself with 1", left=Left((load.started[0],)))
    assert found == {"processes-stay-up": 1, "every-saga-ends": 1}


async def test_a_run_has_settled_when_nothing_is_left(settings: Settings) -> None:
    left = await settle(settings, 60.0, lambda _: None)
    assert (left, left.has_settled, list(left.violations)) == (NOTHING, True, [])


async def test_sagas_that_go_on_are_left(settings: Settings, load: Load) -> None:
    left = await settle(settings, 0.1, lambda _: None)
    assert not left.has_settled
    assert set(left.sagas) == set(load.started.values())
    assert {one.saga_id for one in left.violations if one.saga_id} == set(left.sagas)


async def test_a_message_in_an_outbox_is_left_when_all_sagas_have_ended(
    settings: Settings, client: Client, load: Load
) -> None:
    async with client.database.transaction() as connection:
        await connection.execute(update(sagas).values(ended_at=datetime.now(UTC)))
    left = await settle(settings, 0.1, lambda _: None)
    assert (left, left.has_settled) == (Left(mail=("orchestrator",)), False)
    assert await broken(settings, load, left=left) == {"every-saga-ends": 1}


async def test_what_nobody_could_see_has_not_ended(settings: Settings, load: Load) -> None:
    away = settings.model_copy(update={"order_database_url": "postgresql://127.0.0.1:1/order"})
    for patience in (0.0, 0.1):
        left = await settle(away, patience, lambda _: None)
        assert not left.has_settled
        assert await broken(settings, load, left=left) == {"every-saga-ends": 1}


async def test_a_dead_letter_must_have_been_garbage(settings: Settings, client: Client, load: Load) -> None:
    outbox = client.engine.outbox
    async with outbox.unit_of_work() as unit:
        unit.bury(DeadLetter("saga.reply.order", None, "no JSON", f"{MARK} 1", 1))
    assert await broken(settings, load) == {}
    async with outbox.unit_of_work() as unit:
        unit.bury(DeadLetter("saga.reply.order", "a/b/do/reply", "delivered too often", "{}", 41))
    assert await broken(settings, load) == {"dead-letters-are-garbage": 1}
    assert messaging_of("orchestrator").dead_letters is outbox.tables.dead_letters


def record(proof: Proof, *faults: Fault, settled_after: float | None = 1.0) -> Record:
    return Record(
        scenario="mix", seed=1, reproduce="saga chaos run mix --seed 1", began=datetime.now(UTC), duration=1.0,
        settled_after=settled_after, database="postgresql", brokers=1, processes={}, samples=(), faults=faults,
        sagas=proof.statuses, invariants=proof.invariants, violations=proof.violations,
    )  # fmt: skip


KILL = Fault(kind="kill", target="order-1", at=0.5, until=0.5)


async def test_a_violation_is_told_with_the_command_that_makes_the_run_again(
    settings: Settings, load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    proof = await _prove(settings, load, ("order-1 has ended by itself with 1",))
    assert _judge(Outcome(record(proof, KILL), {}, None)) == 8
    said = capsys.readouterr().out
    assert "violation: processes-stay-up: order-1 has ended by itself with 1" in said
    assert "  saga chaos run mix --seed 1\n" in said


@pytest.mark.parametrize(
    ("statuses", "faults", "sentence"),
    [
        ({"completed": 3}, (), "no fault has fired, so nothing was shown"),
        ({"compensated": 3}, (KILL,), "no saga has completed, so nothing was shown"),
        ({"completed": 3}, (KILL,), "no invariant was held against anything, so nothing was proved"),
    ],
)
def test_a_run_that_has_shown_nothing_is_a_failed_run(
    statuses: dict[str, int], faults: tuple[Fault, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _judge(Outcome(record(Proof(statuses, (), ()), *faults), {"cut: nobody is there": 2}, None)) == 1
    said = capsys.readouterr()
    assert sentence in said.out.lower()
    assert "passed over, 2: cut: nobody is there" in said.err


HELD = Proof({"completed": 3}, (Invariant(name="effects", sentence="they match", checked=3),), ())


def test_a_run_whose_sagas_were_not_all_seen_to_end_is_a_failed_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert _judge(Outcome(record(HELD, KILL, settled_after=None), {}, None)) == 1
    assert "Not every saga was seen to end, so nothing was proved" in capsys.readouterr().out


def test_a_run_in_which_faults_fired_sagas_completed_and_invariants_were_held_has_passed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _judge(Outcome(record(HELD, KILL), {}, None)) == 0
    assert "No violations" in capsys.readouterr().out
