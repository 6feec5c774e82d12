"""The rows of the cards service."""

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from sqlalchemy import Column, String, Table

from outbox.database import Money
from outbox.tables import new_metadata
from participants.runtime import Participant

metadata = new_metadata()
participant = Participant("cards", metadata)


@dataclass(frozen=True, slots=True)
class Card:
    """A card. `limit` less its charges is `left`."""

    table: ClassVar[Table] = Table(
        "cards",
        metadata,
        Column("number", String(60), primary_key=True),
        Column("limit", Money, nullable=False),
        Column("left", Money, nullable=False),
    )
    number: str
    limit: Decimal
    left: Decimal


@dataclass(frozen=True, slots=True)
class Charge:
    """Money taken for a trip, under the id that the saga minted. Nothing here is ever changed."""

    table: ClassVar[Table] = Table(
        "charges",
        metadata,
        Column("trip_id", String(64), primary_key=True),
        Column("card", String(60), nullable=False),
        Column("amount", Money, nullable=False),
    )
    trip_id: str
    card: str
    amount: Decimal
