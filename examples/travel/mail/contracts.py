"""The published language of the mail service."""

from typing import Annotated

from pydantic import Field

from outbox.contracts import Command, Reply

Reference = Annotated[str, Field(min_length=1, max_length=64)]
"""An id that the caller mints."""


class ItinerarySent(Reply):
    """The letter is on its way."""


class SendItinerary(Command[ItinerarySent], participant="mail"):
    """Write to the customer who flies where, on which seat, and where they stay."""

    trip_id: Reference
    flight: str
    hotel: str
    seats: dict[str, str]
