"""What the clearing house does."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from examples.transfer.clearing.contracts import BookTransfer, TransferBooked
from examples.transfer.clearing.models import Booking, participant
from outbox.contracts import Refused
from participants.runtime import Key, Work

LIMIT: Final = Decimal(10_000)
"""Of one transfer."""


def the_booking(command: BookTransfer) -> Iterable[Key]:
    """The booking to be made."""
    return [Key(Booking, command.transfer_id)]


@participant.handles(BookTransfer, needs=the_booking)
def book_transfer(command: BookTransfer, work: Work) -> TransferBooked:
    """Once, however often it is asked for: the inbox sees to that."""
    if command.amount > LIMIT:
        raise Refused("above-limit", f"{command.amount} is above the limit of {LIMIT} for one transfer")
    if work.get(Booking, command.transfer_id) is not None:
        raise Refused("struck", f"transfer {command.transfer_id} was struck off by hand")
    work.put(Booking(command.transfer_id, command.amount, "booked"))
    return TransferBooked()
