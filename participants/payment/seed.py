"""Open and fund customers' accounts."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.database import Database
from participants.payment.models import Account, Posting, transfer
from participants.runtime import Key
from participants.runtime.rows import Rows


class AccountConflict(Exception):
    """A balance that an account cannot have."""


async def seed_accounts(database: Database, balances: Mapping[str, Decimal], currency: str) -> None:
    """Let each customer have been given so much in all. Doing it twice changes nothing."""
    async with database.transaction() as connection:
        rows = Rows(database, connection)
        await rows.read(Key(Account, customer) for customer in balances)
        funded = await _funded(database, connection, balances)
        work = rows.open_work()
        for customer, balance in balances.items():
            account = work.get(Account, customer) or Account(customer, currency, Decimal(0), Decimal(0))
            before, count = funded.get(customer, (Decimal(0), 0))
            change = balance - before
            if account.currency != currency:
                raise AccountConflict(f"account {customer} is in {account.currency}, not in {currency}")
            if account.balance + change < 0:
                raise AccountConflict(f"account {customer} has already spent more than {balance}")
            work.put(replace(account, balance=account.balance + change))
            if change:
                for posting in transfer(
                    f"funding-{customer}/{count + 1}",
                    source="funding",
                    target=f"customer/{customer}",
                    amount=change,
                    currency=currency,
                ):
                    work.add(posting)
        rows.take(work)
        await rows.write()


async def _funded(
    database: Database, connection: AsyncConnection, customers: Mapping[str, Decimal]
) -> dict[str, tuple[Decimal, int]]:
    """customer -> what the ledger says that they were given, and in how many entries."""
    table = Posting.table
    query = (
        select(table.c.account, func.sum(table.c.amount).label("amount"), func.count().label("entries"))
        .where(database.any_of(table.c.account, [f"customer/{customer}" for customer in customers]))
        .where(table.c.entry_id.startswith("funding-"))
        .group_by(table.c.account)
    )
    return {row.account.partition("/")[2]: (row.amount, row.entries) for row in await connection.execute(query)}
