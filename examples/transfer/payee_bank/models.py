"""The rows of the payee's bank."""

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from sqlalchemy import Column, String, Table

from outbox.database import Money
from outbox.tables import new_metadata
from participants.runtime import Participant

metadata = new_metadata()
participant = Participant("payee-bank", metadata)


@dataclass(frozen=True, slots=True)
class Account:
    """An account that was `opened` with some money."""

    table: ClassVar[Table] = Table(
        "accounts",
        metadata,
        Column("account", String(60), primary_key=True),
        Column("opened", Money, nullable=False),
        Column("balance", Money, nullable=False),
    )
    account: str
    opened: Decimal
    balance: Decimal


@dataclass(frozen=True, slots=True)
class Credit:
    """Money that is expected, under the id that the saga minted."""

    table: ClassVar[Table] = Table(
        "credits",
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
    """`announced`, `withdrawn` or `credited`."""
