"""The rows of the clearing house."""

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from sqlalchemy import Column, String, Table

from outbox.database import Money
from outbox.tables import new_metadata
from participants.runtime import Participant

metadata = new_metadata()
participant = Participant("clearing", metadata)


@dataclass(frozen=True, slots=True)
class Booking:
    """What the payer's bank owes the payee's bank for one transfer, under the id that the saga minted."""

    table: ClassVar[Table] = Table(
        "bookings",
        metadata,
        Column("transfer_id", String(64), primary_key=True),
        Column("amount", Money, nullable=False),
        Column("status", String(16), nullable=False),
    )
    transfer_id: str
    amount: Decimal
    status: str
    """`booked`, or `struck`: it will never be booked."""
