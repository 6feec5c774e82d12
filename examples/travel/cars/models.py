"""The rows of the cars service."""

from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import Column, Integer, String, Table

from outbox.tables import new_metadata
from participants.runtime import Participant

metadata = new_metadata()
participant = Participant("cars", metadata)


@dataclass(frozen=True, slots=True)
class Ride:
    """A ride, under the id that the saga minted. `booked_by` is the saga."""

    table: ClassVar[Table] = Table(
        "rides",
        metadata,
        Column("ride_id", String(64), primary_key=True),
        Column("booked_by", String(64), nullable=False, index=True),
        Column("start", String(60), nullable=False),
        Column("end", String(60), nullable=False),
        Column("passengers", Integer, nullable=False),
        Column("status", String(16), nullable=False),
    )
    ride_id: str
    booked_by: str
    start: str
    end: str
    passengers: int
    status: str
    """`booked` or `cancelled`."""
