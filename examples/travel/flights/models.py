"""The rows of the flights service."""

from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import Column, String, Table

from outbox.database import Document
from outbox.tables import new_metadata
from participants.runtime import Participant

metadata = new_metadata()
participant = Participant("flights", metadata)


@dataclass(frozen=True, slots=True)
class Flight:
    """A flight. Each of its seats is free, or has one reservation."""

    table: ClassVar[Table] = Table(
        "flights",
        metadata,
        Column("number", String(60), primary_key=True),
        Column("seats", Document, nullable=False),
        Column("free", Document, nullable=False),
    )
    number: str
    seats: list[str]
    free: list[str]


@dataclass(frozen=True, slots=True)
class Reservation:
    """One traveller's seat."""

    table: ClassVar[Table] = Table(
        "reservations",
        metadata,
        Column("reservation_id", String(130), primary_key=True),
        Column("trip_id", String(64), nullable=False, index=True),
        Column("flight", String(60), nullable=False),
        Column("traveller", String(60), nullable=False),
        Column("seat", String(10), nullable=False),
        Column("status", String(16), nullable=False),
    )
    reservation_id: str
    trip_id: str
    flight: str
    traveller: str
    seat: str
    status: str
    """`reserved`, `released` or `ticketed`."""


def reservation_id(trip_id: str, traveller: str) -> str:
    """A trip has one reservation for each traveller."""
    return f"{trip_id}/{traveller}"
