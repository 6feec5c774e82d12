"""The proof that the payment service kept its promises."""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from decimal import Decimal

from sqlalchemy import func, select

from outbox.database import Database
from participants.payment.models import Account, Hold, Posting
from participants.runtime.audit import Effect, Finding, effects_of, ids_in_batches, saga_of

EFFECTS: Mapping[str, Effect] = {"held": "partial", "captured": "applied", "voided": "none"}


class PaymentAuditor:
    """Audits accounts, holds and the ledger."""

    participant = "payment"

    def __init__(self, database: Database) -> None:
        self._database = database

    async def books(self) -> AsyncIterator[Finding]:
        """Every entry sums to zero, accounts are what the ledger says, the merchant has what was captured."""
        postings, accounts, holds = Posting.table, Account.table, Hold.table
        total = func.sum(postings.c.amount)
        uneven = (
            select(postings.c.entry_id).group_by(postings.c.entry_id, postings.c.currency).having(total != Decimal(0))
        )
        balances = select(postings.c.account, total.label("amount")).group_by(postings.c.account)
        by_status = select(holds.c.customer_id, holds.c.status, func.sum(holds.c.amount).label("amount"))
        async with self._database.reading() as connection:
            unbalanced = (await connection.execute(uneven)).all()
            ledger = {row.account: row.amount for row in await connection.execute(balances)}
            customers = (await connection.execute(select(accounts))).all()
            held: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
            for row in await connection.execute(by_status.group_by(holds.c.customer_id, holds.c.status)):
                held[row.customer_id, row.status] = row.amount
        for row in unbalanced:
            yield Finding(
                "ledger-balances",
                f"ledger entry {row.entry_id} does not sum to zero",
                saga_id=None if row.entry_id.startswith("funding-") else saga_of(row.entry_id),
                rows=(f"postings/{row.entry_id}",),
            )
        for row in customers:
            for finding in _account_findings(Account(**row._mapping), ledger, held):
                yield finding
        captured = sum((amount for (_, status), amount in held.items() if status == "captured"), Decimal(0))
        if captured != ledger.get("merchant", 0):
            yield Finding(
                "captured-is-the-merchants",
                f"holds say that {captured} was captured, the merchant's ledger says {ledger.get('merchant', 0)}",
                rows=("postings/merchant",),
            )

    def holders(self) -> AsyncIterator[list[str]]:
        """Whoever has an effect that was not undone."""
        table = Hold.table
        return ids_in_batches(self._database, table.c.hold_id, table.c.status != "voided")

    async def effects(self, saga_ids: Sequence[str]) -> Mapping[str, Effect]:
        """By the status of the hold."""
        table = Hold.table
        return await effects_of(self._database, table.c.hold_id, table.c.status, EFFECTS, saga_ids)


def _account_findings(
    account: Account, ledger: Mapping[str, Decimal], held: Mapping[tuple[str, str], Decimal]
) -> list[Finding]:
    customer = account.customer_id
    rows = (f"accounts/{customer}",)
    findings = []
    booked = ledger.get(f"customer/{customer}", Decimal(0)), ledger.get(f"held/{customer}", Decimal(0))
    if (account.balance, account.held) != booked:
        findings.append(
            Finding(
                "accounts-match-ledger",
                f"account {customer} has {account.balance} and holds {account.held}, "
                f"the ledger says {booked[0]} and {booked[1]}",
                rows=rows,
            )
        )
    if account.held != held.get((customer, "held"), Decimal(0)):
        findings.append(
            Finding(
                "held-matches-holds",
                f"account {customer} holds {account.held}, its holds say otherwise",
                rows=rows,
            )
        )
    if account.balance < 0 or account.held < 0:
        findings.append(Finding("no-debts", f"account {customer} is overdrawn", rows=rows))
    return findings
