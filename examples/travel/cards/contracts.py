"""The published language of the cards service."""

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from outbox.contracts import Command, Reply

Name = Annotated[str, Field(min_length=1, max_length=60)]
Reference = Annotated[str, Field(min_length=1, max_length=64)]
"""An id that the caller mints."""


class CardCharged(Reply):
    """The money is taken."""


class ChargeCard(Command[CardCharged], participant="cards"):
    """Take money. Refused when the card does not have so much left."""

    trip_id: Reference
    card: Name
    amount: Decimal = Field(gt=0)
