"""What is there before the measurement: sagas that have ended, and sagas that wait for a signal.

A few are real: they run through every service. Then their rows are copied, in all four databases, under ids of their
own: sagas with their logs, inboxes, orders, reservations, holds and postings. Shelves and accounts are brought to what
the copies say, so that the books balance. Copies are written while nothing else runs, and the databases are analysed
afterwards, as they would have been in the time that such a history takes.

`saga verify` replays what is real and what was measured; that the books balance it checks over everything.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
from sqlalchemy import BigInteger, func, select, text, type_coerce, update

from benchmarks.copier import ID, ORIGINALS, Copier, Original
from benchmarks.load import open_load
from benchmarks.options import Options
from benchmarks.orders import PLENTY, inputs, waiting_inputs
from benchmarks.parts import Servers
from benchmarks.stages import Advance
from orchestrator.composition import Client, open_database
from orchestrator.settings import ROLES
from orchestrator.tables import sagas
from outbox.database import Database, Money
from participants.inventory.models import Stock
from participants.order.models import Order
from participants.payment.models import Account

AT_ONCE: Final = 5000
ENDED: Final = "01H1ST0RY0"
WAITING: Final = "01HWA1T1NG"
"""What the ids of copies begin with: like those of sagas that began years ago, before any that is real."""

AFTER_COPIES: Final = "01HZ"
"""Comes after the ids of all copies, and before those of real sagas."""

AWAITED: Final = "waiting-order"
AGE: Final = timedelta(days=30)
"""How far the history goes back."""


@dataclass(frozen=True, slots=True)
class Plan:
    """So many originals, and so many copies of each."""

    originals: int
    copies: int

    @classmethod
    def of(cls, wanted: int) -> "Plan":
        """At least so many sagas together, and as few more as possible."""
        originals = min(wanted, ORIGINALS)
        return cls(originals, -(-wanted // originals) - 1 if originals else 0)

    @property
    def sagas(self) -> int:
        """All of them together."""
        return self.originals * (self.copies + 1)

    def chunks(self) -> Iterator[tuple[int, int]]:
        """The numbers of the copies that are made in one transaction, first and last."""
        size = max(1, AT_ONCE // max(1, self.originals))
        for first in range(1, self.copies + 1, size):
            yield first, min(first + size - 1, self.copies)


@dataclass(frozen=True, slots=True)
class Before:
    """What is there before the measurement."""

    ended: Plan
    waiting: Plan

    @classmethod
    def of(cls, options: Options) -> "Before":
        """What a run wants."""
        return cls(Plan.of(options.history), Plan.of(options.waiting))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be there."""
        return not self.ended.sagas and not self.waiting.sagas

    @property
    def copies(self) -> int:
        """How many sagas are copies."""
        return sum(plan.originals * plan.copies for plan in (self.ended, self.waiting))


async def run_ended(options: Options, servers: Servers, client: Client, count: int) -> list[Original]:
    """Run real sagas of the kind that is measured to their ends; none of them is refused."""
    happy = replace(options, refused=0.0)
    async with open_load(client, servers.settings.nats_url, options.definition, lambda _: None) as load:
        await load.closed(inputs(happy, "history", count), options.in_flight)
    return await _originals(servers, "history")


async def start_waiting(servers: Servers, client: Client, count: int) -> list[Original]:
    """Start real sagas that wait for a signal, and see them come to where they wait."""
    if not count:
        return []
    requests = [client.engine.request(AWAITED, one) for one in waiting_inputs(count)]
    await client.engine.start(requests)
    await client.relay.flush()
    there = select(func.count()).select_from(sagas).where(sagas.c.definition == AWAITED, sagas.c.revision > 1)
    while True:
        async with client.database.reading() as connection:
            if (await connection.execute(there)).scalar_one() == count:
                return await _originals(servers, "waiting")
        await asyncio.sleep(0.1)


async def _originals(servers: Servers, prefix: str) -> list[Original]:
    orders = Order.table
    query = select(orders.c.placement_id, orders.c.order_id).where(
        orders.c.order_id.startswith(f"{prefix}-"), func.length(orders.c.placement_id) == ID
    )
    async with _open(servers, "order") as database, database.reading() as connection:
        return [Original(*row) for row in await connection.execute(query.order_by(orders.c.placement_id))]


async def copy(servers: Servers, prefix: str, plan: Plan, originals: Sequence[Original], advance: Advance) -> None:
    """Copy the originals in every database, under ids that begin with `prefix`. Nothing else may run."""
    if not plan.copies:
        return
    async with AsyncExitStack() as stack:
        databases = {role: await stack.enter_async_context(_open(servers, role)) for role in ROLES}
        copiers = [Copier(database, role, prefix, originals) for role, database in databases.items()]
        await asyncio.gather(*(copier.lay_out() for copier in copiers))
        for first, last in plan.chunks():
            moment = datetime.now(UTC) - AGE * (1 - last / (plan.copies + 1))
            await asyncio.gather(*(copier.copy(first, last, moment) for copier in copiers))
            advance((last - first + 1) * plan.originals)
        await asyncio.gather(*(copier.clear_away() for copier in copiers))


@asynccontextmanager
async def _open(servers: Servers, role: str) -> AsyncIterator[Database]:
    database = open_database(servers.settings, role)
    try:
        yield database
    finally:
        await database.close()


async def bring_up_books(servers: Servers, plan: Plan) -> None:
    """Let shelves and accounts be what they are when every order there is has been given so many times more."""
    stock, accounts, times = Stock.table, Account.table, plan.copies + 1
    shelves = update(stock).values(
        reserved=stock.c.reserved * times,
        sold=stock.c.sold * times,
        seeded=stock.c.available + (stock.c.reserved + stock.c.sold) * times,
    )
    balance, held = (type_coerce(column, BigInteger) for column in (accounts.c.balance, accounts.c.held))
    given = PLENTY * 10**Money.places
    money = update(accounts).where(accounts.c.customer_id.startswith("customer-"))
    money = money.values(
        balance=type_coerce(given - (given - balance) * times, Money), held=type_coerce(held * times, Money)
    )
    for role, statement in (("inventory", shelves), ("payment", money)):
        async with _open(servers, role) as database, database.transaction() as connection:
            await connection.execute(statement)


async def analyse(servers: Servers) -> None:
    """Let the planners know what is there, and do now what the servers would otherwise do during the measurement."""
    for role in ROLES:
        if servers.postgres is not None:
            await _vacuum(servers.postgres.dsn(role))
            continue
        async with _open(servers, role) as database, database.transaction() as connection:
            await connection.execute(text("ANALYZE"))


async def _vacuum(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
