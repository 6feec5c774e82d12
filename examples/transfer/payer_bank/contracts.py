"""The published language of the payer's bank."""

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from outbox.contracts import Command, Reply

Name = Annotated[str, Field(min_length=1, max_length=60)]
Reference = Annotated[str, Field(min_length=1, max_length=64)]
"""An id that the caller mints, and undoes by."""


class MoneyHeld(Reply):
    """It is still on the account, and cannot be spent."""


class MoneyReleased(Reply):
    """It can be spent again."""


class MoneyPaidOut(Reply):
    """It has left the account."""


class HoldMoney(Command[MoneyHeld], participant="payer-bank"):
    """Set money aside for a transfer. Refused when the account does not have so much."""

    transfer_id: Reference
    account: Name
    amount: Decimal = Field(gt=0)


class ReleaseMoney(Command[MoneyReleased], participant="payer-bank"):
    """Undo HoldMoney."""

    transfer_id: Reference


class PayOut(Command[MoneyPaidOut], participant="payer-bank"):
    """Let what was held leave the account."""

    transfer_id: Reference
