"""The published language of the payment service."""

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from outbox.contracts import Command, Event, Reply

Name = Annotated[str, Field(min_length=1, max_length=100)]
Reference = Annotated[str, Field(min_length=1, max_length=64)]
"""An id that the caller mints, and undoes by."""
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$")]
Amount = Annotated[Decimal, Field(ge=0, max_digits=18, decimal_places=4, allow_inf_nan=False)]
"""An exact amount of money."""


class PaymentAuthorised(Reply):
    """The amount is held on the customer's account."""

    authorisation_code: str


class PaymentVoided(Reply):
    """The hold is gone, the money is the customer's again."""


class PaymentCaptured(Reply):
    """The money is the merchant's."""


class AuthorisePayment(Command[PaymentAuthorised], participant="payment"):
    """Hold an amount. Refused when the account is missing, of another currency, or short."""

    hold_id: Reference
    customer_id: Name
    amount: Amount
    currency: Currency


class VoidPayment(Command[PaymentVoided], participant="payment"):
    """Undo AuthorisePayment."""

    hold_id: Reference


class CapturePayment(Command[PaymentCaptured], participant="payment"):
    """Move the held amount to the merchant. Not to be undone."""

    hold_id: Reference


class PaymentWasAuthorised(Event, type="payment.authorised"):
    """An amount was held."""

    hold_id: Reference
    amount: Amount


class PaymentWasVoided(Event, type="payment.voided"):
    """A hold was lifted."""

    hold_id: Reference


class PaymentWasCaptured(Event, type="payment.captured"):
    """A held amount was moved to the merchant."""

    hold_id: Reference
    amount: Amount
