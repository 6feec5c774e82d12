"""The published language of the payee's bank."""

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from outbox.contracts import Command, Reply

Name = Annotated[str, Field(min_length=1, max_length=60)]
Reference = Annotated[str, Field(min_length=1, max_length=64)]
"""An id that the caller mints, and undoes by."""


class CreditAnnounced(Reply):
    """The account can take the money, and it is expected."""


class CreditWithdrawn(Reply):
    """It is not expected any more."""


class PayeeCredited(Reply):
    """It is on the account."""


class AnnounceCredit(Command[CreditAnnounced], participant="payee-bank"):
    """Say that money is coming. Refused when there is no such account."""

    transfer_id: Reference
    account: Name
    amount: Decimal = Field(gt=0)


class WithdrawCredit(Command[CreditWithdrawn], participant="payee-bank"):
    """Undo AnnounceCredit."""

    transfer_id: Reference


class CreditPayee(Command[PayeeCredited], participant="payee-bank"):
    """Put what was announced on the account."""

    transfer_id: Reference
