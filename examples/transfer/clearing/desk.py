"""The people at the clearing house, whom one can ring up."""

from decimal import Decimal

from examples.transfer.clearing.models import Booking
from outbox.database import Database
from participants.runtime import Key
from participants.runtime.rows import Rows


async def strike_off(database: Database, transfer_id: str) -> bool:
    """See to it that a transfer is never booked, whatever comes. False when it is booked already.

    Only after this may somebody say of a pivot without an answer that it did not happen: its command may
    still be on its way.
    """
    async with database.transaction() as connection:
        rows = Rows(database, connection)
        await rows.read([Key(Booking, transfer_id)])
        work = rows.open_work()
        if work.get(Booking, transfer_id) is not None:
            return False
        work.put(Booking(transfer_id, Decimal(0), "struck"))
        rows.take(work)
        await rows.write()
    return True
