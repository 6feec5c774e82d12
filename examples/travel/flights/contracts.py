"""The published language of the flights service."""

from typing import Annotated

from pydantic import Field

from outbox.contracts import Command, Reply

Name = Annotated[str, Field(min_length=1, max_length=60)]
Reference = Annotated[str, Field(min_length=1, max_length=64)]
"""An id that the caller mints, and undoes by."""


class SeatReserved(Reply):
    """This seat is kept for this traveller."""

    traveller: str
    seat: str


class SeatReleased(Reply):
    """The seat is free again."""


class TicketIssued(Reply):
    """The seat is the traveller's."""


class ReserveSeat(Command[SeatReserved], participant="flights"):
    """Keep a seat for a traveller. Refused when the flight is sold out."""

    trip_id: Reference
    flight: Name
    traveller: Name


class ReleaseSeat(Command[SeatReleased], participant="flights"):
    """Undo ReserveSeat."""

    trip_id: Reference
    traveller: Name


class IssueTicket(Command[TicketIssued], participant="flights"):
    """Turn a reservation into a ticket."""

    trip_id: Reference
    traveller: Name
