"""The rows of the inventory service."""

from dataclasses import dataclass
from typing import Any, ClassVar

from sqlalchemy import Column, Integer, String, Table

from outbox.database import Document
from outbox.tables import new_metadata
from participants.runtime import Participant

metadata = new_metadata()
participant = Participant("inventory", metadata)


@dataclass(frozen=True, slots=True)
class Stock:
    """One article. `available + reserved + sold == seeded`, always."""

    table: ClassVar[Table] = Table(
        "stock",
        metadata,
        Column("sku", String(100), primary_key=True),
        Column("seeded", Integer, nullable=False),
        Column("available", Integer, nullable=False),
        Column("reserved", Integer, nullable=False),
        Column("sold", Integer, nullable=False),
    )
    sku: str
    seeded: int
    available: int
    reserved: int
    sold: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is set aside, under the id that the saga minted."""

    table: ClassVar[Table] = Table(
        "reservations",
        metadata,
        Column("reservation_id", String(64), primary_key=True),
        Column("lines", Document, nullable=False),
        Column("status", String(16), nullable=False),
    )
    reservation_id: str
    lines: dict[str, Any]
    """sku -> quantity"""

    status: str
    """`held`, `released` or `sold`."""
