"""The published language of the clearing house."""

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from outbox.contracts import Command, Reply

Reference = Annotated[str, Field(min_length=1, max_length=64)]
"""An id that the caller mints."""


class TransferBooked(Reply):
    """The payer's bank owes it to the payee's bank."""


class BookTransfer(Command[TransferBooked], participant="clearing"):
    """Book a transfer. Refused above the limit of the clearing house, and when it was struck off by hand."""

    transfer_id: Reference
    amount: Decimal = Field(gt=0)
