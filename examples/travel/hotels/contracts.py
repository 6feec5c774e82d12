"""The published language of the hotels service."""

from typing import Annotated

from pydantic import Field

from outbox.contracts import Command, Reply

Name = Annotated[str, Field(min_length=1, max_length=60)]
Reference = Annotated[str, Field(min_length=1, max_length=64)]
"""An id that the caller mints, and undoes by."""


class RoomReserved(Reply):
    """A room is kept."""


class RoomReleased(Reply):
    """The room is free again."""


class RoomConfirmed(Reply):
    """The room is the guests'."""


class ReserveRoom(Command[RoomReserved], participant="hotels"):
    """Keep a room. Refused when the hotel is full."""

    trip_id: Reference
    hotel: Name
    guests: int = Field(gt=0)


class ReleaseRoom(Command[RoomReleased], participant="hotels"):
    """Undo ReserveRoom."""

    trip_id: Reference


class ConfirmRoom(Command[RoomConfirmed], participant="hotels"):
    """Turn a reservation into a stay."""

    trip_id: Reference
