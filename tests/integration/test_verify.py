"""`saga verify` on both databases: silent where all is well, and each broken promise is named with its saga and rows.

The violations are planted by SQL into a world in which real sagas have ended, one at a time.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Delete, Insert, Update, delete, insert, select, update

from orchestrator import verify
from orchestrator.composition import messaging_of
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.tables import saga_log, sagas
from participants.inventory.models import Reservation, Stock
from participants.order.models import Order
from participants.payment.models import Account, Hold, Posting
from tests.support.servers import DatabaseUrls, PostgresDatabases, Role, SqliteDatabases
from tests.support.world import DAWN, ROLES, World, an_order

orders, stock, reservations = Order.table, Stock.table, Reservation.table
accounts, holds, postings = Account.table, Hold.table, Posting.table

Statement = Update | Delete | Insert
Found = tuple[str, str | None, tuple[str, ...]]
"""A finding's check, saga and rows."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A world that has come to rest: one saga completed, one that was compensated for lack of money."""

    urls: DatabaseUrls
    nats_url: str
    completed: str
    compensated: str

    @classmethod
    async def make(cls, urls: DatabaseUrls, nats_url: str) -> "Ended":
        """Run both, for real."""
        async with World(urls, nats_url) as world:
            await world.start(*ROLES)
            completed, compensated = await world.place(an_order(), an_order(customer="bob"))
            assert await world.until_ended([completed, compensated]) == ["completed", "compensated"]
        return cls(urls, nats_url, completed, compensated)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    """Made once for each kind of database; whoever plants a violation takes it out again."""
    folder: Path = tmp_path_factory.mktemp("verify")
    urls: DatabaseUrls = SqliteDatabases(folder)
    if request.param == "postgresql":
        urls = PostgresDatabases(request.getfixturevalue("postgres"))
    with EmbeddedNats(folder / "nats") as nats, ThreadPoolExecutor(1) as thread:
        made = thread.submit(asyncio.run, Ended.make(urls, nats.url)).result()
    yield made
    if isinstance(urls, PostgresDatabases):
        urls.drop()


@pytest.fixture
async def world(ended: Ended) -> AsyncIterator[World]:
    """The same databases, and nothing that runs."""
    async with World(ended.urls, ended.nats_url) as world:
        yield world


@asynccontextmanager
async def planted(world: World, role: Role, *statements: Statement) -> AsyncIterator[None]:
    """Change a database behind everybody's back, and put its tables back as they were."""
    tables = list(dict.fromkeys(statement.table for statement in statements))
    before = [(table, [dict(row._mapping) for row in await world.rows(role, select(table))]) for table in tables]
    try:
        await world.execute(role, *statements)
        yield
    finally:
        for table, rows in before:
            await world.execute(role, delete(table), *([insert(table).values(rows)] if rows else []))


async def findings(world: World) -> list[Found]:
    """What is found, without the sentences."""
    return sorted(
        ((one.check, one.saga_id, one.rows) for one in await world.findings()), key=lambda found: (found[0], found[2])
    )


# --- nothing to find ---------------------------------------------------------------------------------------------


async def test_a_clean_world_has_no_findings(world: World) -> None:
    assert await findings(world) == []


async def test_every_saga_is_looked_at(world: World, ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when they do not fit into one batch."""
    monkeypatch.setattr(verify, "BATCH", 1)
    wrong = update(sagas).values(due_at=DAWN)
    async with planted(world, "orchestrator", wrong):
        assert {saga_id for _, saga_id, _ in await findings(world)} == {ended.completed, ended.compensated}


# --- the log ---------------------------------------------------------------------------------------------------------


def change(ended: Ended, **values: Any) -> Statement:
    """Tamper with the row of the saga that completed."""
    return update(sagas).where(sagas.c.id == ended.completed).values(**values)


LOG_VIOLATIONS: dict[str, tuple[Callable[[Ended, str], Statement], str]] = {
    "a state that no log tells of": (
        lambda ended, state: change(ended, state=state.replace("{", '{"failure": "tampered", ', 1)),
        "replays to another state",
    ),
    "a state that is none": (lambda ended, _: change(ended, state="{}"), "replays to another state"),
    "another status": (lambda ended, _: change(ended, status="compensated"), "its row says compensated"),
    "an end without its time": (lambda ended, _: change(ended, ended_at=None), "no time of its end"),
    "a timer after the end": (lambda ended, _: change(ended, due_at=DAWN), "its timer stands at 2026-01-01"),
    "another revision": (lambda ended, _: change(ended, revision=1), "its row is at 1"),
    "a log row that is missing": (
        lambda ended, _: delete(saga_log).where(saga_log.c.saga_id == ended.completed, saga_log.c.revision == 2),
        "its log has the revisions [1, 3",
    ),
    "a log entry that cannot happen": (
        lambda ended, _: (
            update(saga_log)
            .where(saga_log.c.saga_id == ended.completed, saga_log.c.revision == 2)
            .values(entries='[{"kind": "undone", "step": "sell-stock"}]')
        ),
        "cannot be replayed",
    ),
    "a log entry that is none": (
        lambda ended, _: (
            update(saga_log)
            .where(saga_log.c.saga_id == ended.completed, saga_log.c.revision == 2)
            .values(entries="nonsense")
        ),
        "cannot be replayed",
    ),
}


@pytest.mark.parametrize("violation", LOG_VIOLATIONS)
async def test_a_log_that_does_not_tell_the_state_is_found(world: World, ended: Ended, violation: str) -> None:
    plant, sentence = LOG_VIOLATIONS[violation]
    [row] = await world.rows("orchestrator", select(sagas.c.state).where(sagas.c.id == ended.completed))
    async with planted(world, "orchestrator", plant(ended, row.state)):
        positions = await world.rows(
            "orchestrator",
            select(saga_log.c.position).where(saga_log.c.saga_id == ended.completed).order_by(saga_log.c.revision),
        )
        rows = (f"sagas/{ended.completed}", *(f"saga_log/{one.position}" for one in positions))
        found = await world.findings()

    assert [(one.check, one.saga_id, one.rows) for one in found] == [("log-replays-to-state", ended.completed, rows)]
    assert sentence in found[0].message
    assert ended.completed in found[0].message


async def test_a_wrong_timer_of_a_saga_under_way_is_found(world: World) -> None:
    saga_id = (await world.desk().start(an_order())).saga_id
    try:
        assert await findings(world) == []
        async with planted(world, "orchestrator", update(sagas).where(sagas.c.id == saga_id).values(due_at=None)):
            assert [(check, found) for check, found, _ in await findings(world)] == [("log-replays-to-state", saga_id)]
    finally:
        await forget(world, saga_id)


# --- the services ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Violation:
    """What is done to one service's database, and exactly what is then found."""

    role: Role
    plant: Callable[[Ended], Statement]
    found: Callable[[Ended], Sequence[Found]]


def effect(saga_id: str) -> Found:
    """The finding that a saga's effects are not what its outcome says."""
    return "effects-match-outcome", saga_id, (f"sagas/{saga_id}",)


def book(check: str, *rows: str, saga_id: str | None = None) -> Found:
    """A finding in the books of one service."""
    return check, saga_id, rows


VIOLATIONS = {
    "completed, and its hold is voided": Violation(
        "payment",
        lambda ended: update(holds).where(holds.c.hold_id == ended.completed).values(status="voided"),
        lambda ended: [book("captured-is-the-merchants", "postings/merchant"), effect(ended.completed)],
    ),
    "completed, and its hold is gone": Violation(
        "payment",
        lambda ended: delete(holds).where(holds.c.hold_id == ended.completed),
        lambda ended: [book("captured-is-the-merchants", "postings/merchant"), effect(ended.completed)],
    ),
    "completed, and its money is only held": Violation(
        "payment",
        lambda ended: update(holds).where(holds.c.hold_id == ended.completed).values(status="held"),
        lambda ended: [
            book("captured-is-the-merchants", "postings/merchant"),
            effect(ended.completed),
            book("held-matches-holds", "accounts/ada"),
        ],
    ),
    "completed, and its reservation is released": Violation(
        "inventory",
        lambda ended: (
            update(reservations).where(reservations.c.reservation_id == ended.completed).values(status="released")
        ),
        lambda ended: [effect(ended.completed), book("stock-matches-reservations", "stock/lamp")],
    ),
    "completed, and its order is rejected": Violation(
        "order",
        lambda ended: update(orders).where(orders.c.placement_id == ended.completed).values(status="rejected"),
        lambda ended: [effect(ended.completed)],
    ),
    "compensated, and its reservation is held": Violation(
        "inventory",
        lambda ended: (
            update(reservations).where(reservations.c.reservation_id == ended.compensated).values(status="held")
        ),
        lambda ended: [effect(ended.compensated), book("stock-matches-reservations", "stock/lamp")],
    ),
    "compensated, and its order is confirmed": Violation(
        "order",
        lambda ended: update(orders).where(orders.c.placement_id == ended.compensated).values(status="confirmed"),
        lambda ended: [effect(ended.compensated)],
    ),
    "compensated, and money is held for it": Violation(
        "payment",
        lambda ended: insert(holds).values(
            hold_id=ended.compensated, customer_id="bob", amount=Decimal(1), currency="EUR", status="held"
        ),
        lambda ended: [effect(ended.compensated), book("held-matches-holds", "accounts/bob")],
    ),
    "an order of a status that there is not": Violation(
        "order",
        lambda _: insert(orders).values(
            order_id="odd", placement_id="", customer_id="", lines=[], currency="", total=Decimal(0), status="odd"
        ),
        lambda _: [book("order-status", "orders/odd")],
    ),
    "an order that no saga has placed": Violation(
        "order",
        lambda _: insert(orders).values(
            order_id="x",
            placement_id="NOBODY",
            customer_id="",
            lines=[],
            currency="",
            total=Decimal(0),
            status="pending",
        ),
        lambda _: [book("effects-have-a-saga", "order/NOBODY", saga_id="NOBODY")],
    ),
    "a log without a saga": Violation(
        "orchestrator",
        lambda _: insert(saga_log).values(saga_id="NOBODY", revision=1, at=DAWN, entries="[]"),
        lambda _: [book("log-has-a-saga", "saga_log/NOBODY", saga_id="NOBODY")],
    ),
    "one article too many": Violation(
        "inventory",
        lambda _: update(stock).where(stock.c.sku == "lamp").values(available=stock.c.available + 1),
        lambda _: [book("stock-is-constant", "stock/lamp")],
    ),
    "less than nothing in stock": Violation(
        "inventory",
        lambda _: update(stock).where(stock.c.sku == "sold-out").values(seeded=-1, available=-1),
        lambda _: [book("stock-is-constant", "stock/sold-out")],
    ),
    "an article reserved by nobody": Violation(
        "inventory",
        lambda _: (
            update(stock)
            .where(stock.c.sku == "lamp")
            .values(available=stock.c.available - 1, reserved=stock.c.reserved + 1)
        ),
        lambda _: [book("stock-matches-reservations", "stock/lamp")],
    ),
    "a posting without its other side": Violation(
        "payment",
        lambda ended: delete(postings).where(postings.c.posting_id == f"{ended.completed}/authorise/from"),
        lambda ended: [
            book("accounts-match-ledger", "accounts/ada"),
            book("ledger-balances", f"postings/{ended.completed}/authorise", saga_id=ended.completed),
        ],
    ),
    "money that the ledger does not know": Violation(
        "payment",
        lambda _: update(accounts).where(accounts.c.customer_id == "ada").values(balance=Decimal(1)),
        lambda _: [book("accounts-match-ledger", "accounts/ada")],
    ),
    "an account that is overdrawn": Violation(
        "payment",
        lambda _: update(accounts).where(accounts.c.customer_id == "ada").values(balance=Decimal(-1)),
        lambda _: [book("accounts-match-ledger", "accounts/ada"), book("no-debts", "accounts/ada")],
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_a_violation_is_found_and_nothing_else(world: World, ended: Ended, name: str) -> None:
    violation = VIOLATIONS[name]
    async with planted(world, violation.role, violation.plant(ended)):
        found = await findings(world)
    assert found == violation.found(ended)
    assert found, "this test can fail"


# --- what is left over -----------------------------------------------------------------------------------------------


async def test_a_message_left_in_an_outbox_is_found_when_all_is_quiet(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "QUIET_PATIENCE", 0.2)
    async with planted(world, "order", leftover("order", "m-1")):
        assert await findings(world) == [book("outbox-is-empty", "order.outbox/m-1")]


async def test_a_message_that_leaves_while_we_wait_is_no_finding(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "QUIET_PATIENCE", 60.0)
    async with planted(world, "order", leftover("order", "m-1")):
        looking = asyncio.create_task(world.findings())
        await asyncio.sleep(0.3)
        assert not looking.done()
        await world.execute("order", delete(messaging_of("order").outbox))
        assert await looking == []


async def test_messages_wait_in_the_outbox_while_a_saga_is_under_way(world: World) -> None:
    saga_id = (await world.desk().start(an_order())).saga_id
    try:
        async with planted(world, "order", leftover("order", "m-1")):
            assert await world.outgoing("orchestrator")
            assert await findings(world) == []
    finally:
        await forget(world, saga_id)


def leftover(role: str, message_id: str) -> Statement:
    """A message that nobody publishes."""
    return insert(messaging_of(role).outbox).values(message_id=message_id, subject="saga.x", body="{}", due_at=DAWN)


async def forget(world: World, saga_id: str) -> None:
    """Take out of the orchestrator's database what a test has started."""
    await world.execute(
        "orchestrator",
        delete(sagas).where(sagas.c.id == saga_id),
        delete(saga_log).where(saga_log.c.saga_id == saga_id),
        delete(messaging_of("orchestrator").outbox),
    )
