"""The rows of the payer's bank."""

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from sqlalchemy import Column, String, Table

from outbox.database import Money
from outbox.tables import new_metadata
from participants.runtime import Participant

metadata = new_metadata()
participant = Participant("payer-bank", metadata)


@dataclass(frozen=True, slots=True)
class Account:
    """An account that was `opened` with some money: `balance` can be spent, `held` is promised."""

    table: ClassVar[Table] = Table(
        "accounts",
        metadata,
        Column("account", String(60), primary_key=True),
        Column("opened", Money, nullable=False),
        Column("balance", Money, nullable=False),
        Column("held", Money, nullable=False),
    )
    account: str
    opened: Decimal
    balance: Decimal
    held: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Hold:
    """Money set aside for a transfer, under the id that the saga minted."""

    table: ClassVar[Table] = Table(
        "holds",
        metadata,
        Column("transfer_id", String(64), primary_key=True),
        Column("account", String(60), nullable=False),
        Column("amount", Money, nullable=False),
        Column("status", String(16), nullable=False),
    )
    transfer_id: str
    account: str
    amount: Decimal
    status: str
    """`held`, `released` or `paid-out`."""
