"""The published language of the cars service."""

from typing import Annotated

from pydantic import Field

from outbox.contracts import Command, Reply

Name = Annotated[str, Field(min_length=1, max_length=60)]
Reference = Annotated[str, Field(min_length=1, max_length=64)]
"""An id that the caller mints, and undoes by."""


class RideBooked(Reply):
    """A car will be there."""


class RideCancelled(Reply):
    """No car will be there."""


class BookRide(Command[RideBooked], participant="cars"):
    """Book a ride. Refused when no car has so many seats."""

    ride_id: Reference
    booked_by: Reference
    start: Name
    end: Name
    passengers: int = Field(gt=0)


class CancelRide(Command[RideCancelled], participant="cars"):
    """Undo BookRide."""

    ride_id: Reference
