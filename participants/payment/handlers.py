"""What the payment service does."""

from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256

from outbox.contracts import Refused
from participants.payment.contracts import (
    AuthorisePayment,
    CapturePayment,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentVoided,
    PaymentWasAuthorised,
    PaymentWasCaptured,
    PaymentWasVoided,
    VoidPayment,
)
from participants.payment.models import Account, Hold, participant, transfer
from participants.runtime import Key, Work


def hold_and_account(command: AuthorisePayment) -> Iterable[Key]:
    """The hold to be made, and the account it is on."""
    return [Key(Hold, command.hold_id), Key(Account, command.customer_id)]


def the_hold(command: VoidPayment | CapturePayment) -> Iterable[Key]:
    """The hold that the command is about."""
    return [Key(Hold, command.hold_id)]


def its_account(command: VoidPayment | CapturePayment, work: Work) -> Iterable[Key]:
    """The account that the hold is on."""
    hold = work.get(Hold, command.hold_id)
    return [Key(Account, hold.customer_id)] if hold else []


@participant.handles(AuthorisePayment, needs=hold_and_account)
def authorise_payment(command: AuthorisePayment, work: Work) -> PaymentAuthorised:
    """Move the amount from the customer's balance to what is held."""
    if work.get(Hold, command.hold_id) is not None:
        raise Refused("duplicate-hold", f"hold {command.hold_id} exists already")
    account = work.get(Account, command.customer_id)
    if account is None:
        raise Refused("unknown-account", f"customer {command.customer_id} has no account")
    if account.currency != command.currency:
        raise Refused("wrong-currency", f"account {command.customer_id} is in {account.currency}")
    if account.balance < command.amount:
        raise Refused("insufficient-funds", f"{command.amount} {command.currency} wanted, {account.balance} available")
    amount = command.amount
    work.put(replace(account, balance=account.balance - amount, held=account.held + amount))
    work.put(Hold(command.hold_id, command.customer_id, amount, command.currency, "held"))
    _book(work, "authorise", command.hold_id, f"customer/{account.customer_id}", f"held/{account.customer_id}")
    work.publish(PaymentWasAuthorised(hold_id=command.hold_id, amount=amount))
    return PaymentAuthorised(authorisation_code=sha256(command.hold_id.encode()).hexdigest()[:8].upper())


@participant.handles(VoidPayment, needs=the_hold, then_needs=its_account)
def void_payment(command: VoidPayment, work: Work) -> PaymentVoided:
    """Undo of authorise_payment."""
    hold, account = _held(command, work)
    work.put(replace(account, balance=account.balance + hold.amount, held=account.held - hold.amount))
    work.put(replace(hold, status="voided"))
    _book(work, "void", hold.hold_id, f"held/{hold.customer_id}", f"customer/{hold.customer_id}")
    work.publish(PaymentWasVoided(hold_id=hold.hold_id))
    return PaymentVoided()


@participant.handles(CapturePayment, needs=the_hold, then_needs=its_account)
def capture_payment(command: CapturePayment, work: Work) -> PaymentCaptured:
    """The point of no return: what was held is the merchant's."""
    hold, account = _held(command, work)
    work.put(replace(account, held=account.held - hold.amount))
    work.put(replace(hold, status="captured"))
    _book(work, "capture", hold.hold_id, f"held/{hold.customer_id}", "merchant")
    work.publish(PaymentWasCaptured(hold_id=hold.hold_id, amount=hold.amount))
    return PaymentCaptured()


def _held(command: VoidPayment | CapturePayment, work: Work) -> tuple[Hold, Account]:
    hold = work.get(Hold, command.hold_id)
    if hold is None:
        raise Refused("unknown-hold", f"there is no hold {command.hold_id}")
    if hold.status != "held":
        raise Refused("hold-ended", f"hold {command.hold_id} is {hold.status}")
    account = work.get(Account, hold.customer_id)
    if account is None:
        raise Refused("unknown-account", f"account {hold.customer_id} is gone although a hold is on it")
    return hold, account


def _book(work: Work, what: str, hold_id: str, source: str, target: str) -> None:
    hold = work.get(Hold, hold_id)
    if hold is None:
        raise LookupError(f"hold {hold_id} must be there before it is booked")
    for posting in transfer(
        f"{hold_id}/{what}", source=source, target=target, amount=hold.amount, currency=hold.currency
    ):
        work.add(posting)
