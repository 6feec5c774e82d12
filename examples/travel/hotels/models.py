"""The rows of the hotels service."""

from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import Column, Integer, String, Table

from outbox.tables import new_metadata
from participants.runtime import Participant

metadata = new_metadata()
participant = Participant("hotels", metadata)


@dataclass(frozen=True, slots=True)
class Hotel:
    """A hotel. Each of its rooms is free, or has one stay."""

    table: ClassVar[Table] = Table(
        "hotels",
        metadata,
        Column("name", String(60), primary_key=True),
        Column("rooms", Integer, nullable=False),
        Column("free", Integer, nullable=False),
    )
    name: str
    rooms: int
    free: int


@dataclass(frozen=True, slots=True)
class Stay:
    """A room that a trip has, under the id that the saga minted."""

    table: ClassVar[Table] = Table(
        "stays",
        metadata,
        Column("trip_id", String(64), primary_key=True),
        Column("hotel", String(60), nullable=False),
        Column("guests", Integer, nullable=False),
        Column("status", String(16), nullable=False),
    )
    trip_id: str
    hotel: str
    guests: int
    status: str
    """`reserved`, `released` or `confirmed`."""
