"""The rows of the payment service."""

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from sqlalchemy import Column, String, Table

from outbox.database import Money
from outbox.tables import new_metadata
from participants.runtime import Participant

metadata = new_metadata()
participant = Participant("payment", metadata)


@dataclass(frozen=True, slots=True)
class Account:
    """A customer's money: `balance` to spend, `held` for authorised payments."""

    table: ClassVar[Table] = Table(
        "accounts",
        metadata,
        Column("customer_id", String(100), primary_key=True),
        Column("currency", String(3), nullable=False),
        Column("balance", Money, nullable=False),
        Column("held", Money, nullable=False),
    )
    customer_id: str
    currency: str
    balance: Decimal
    held: Decimal


@dataclass(frozen=True, slots=True)
class Hold:
    """An authorised payment, under the id that the saga minted."""

    table: ClassVar[Table] = Table(
        "holds",
        metadata,
        Column("hold_id", String(64), primary_key=True),
        Column("customer_id", String(100), nullable=False),
        Column("amount", Money, nullable=False),
        Column("currency", String(3), nullable=False),
        Column("status", String(16), nullable=False),
    )
    hold_id: str
    customer_id: str
    amount: Decimal
    currency: str
    status: str
    """`held`, `voided` or `captured`."""


@dataclass(frozen=True, slots=True)
class Posting:
    """One side of a ledger entry. The postings of an entry sum to zero; nothing here is ever changed.

    Ledger accounts: `customer/<id>`, `held/<id>`, `merchant`, `funding`.
    """

    table: ClassVar[Table] = Table(
        "postings",
        metadata,
        Column("posting_id", String(150), primary_key=True),
        Column("entry_id", String(140), nullable=False, index=True),
        Column("account", String(120), nullable=False, index=True),
        Column("currency", String(3), nullable=False),
        Column("amount", Money, nullable=False),
    )
    posting_id: str
    entry_id: str
    account: str
    currency: str
    amount: Decimal


def transfer(entry_id: str, *, source: str, target: str, amount: Decimal, currency: str) -> tuple[Posting, Posting]:
    """A double entry: what leaves `source` arrives at `target`."""
    return (
        Posting(f"{entry_id}/from", entry_id, source, currency, -amount),
        Posting(f"{entry_id}/to", entry_id, target, currency, amount),
    )
