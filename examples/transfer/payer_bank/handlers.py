"""What the payer's bank does."""

from collections.abc import Iterable
from dataclasses import replace

from examples.transfer.payer_bank.contracts import (
    HoldMoney,
    MoneyHeld,
    MoneyPaidOut,
    MoneyReleased,
    PayOut,
    ReleaseMoney,
)
from examples.transfer.payer_bank.models import Account, Hold, participant
from outbox.contracts import Refused
from participants.runtime import Key, Work


def hold_and_account(command: HoldMoney) -> Iterable[Key]:
    """The hold to be made, and the account that it is on."""
    return [Key(Hold, command.transfer_id), Key(Account, command.account)]


def the_hold(command: ReleaseMoney | PayOut) -> Iterable[Key]:
    """The hold that the command is about."""
    return [Key(Hold, command.transfer_id)]


def its_account(command: ReleaseMoney | PayOut, work: Work) -> Iterable[Key]:
    """The account that the hold is on."""
    hold = work.get(Hold, command.transfer_id)
    return [Key(Account, hold.account)] if hold else []


@participant.handles(HoldMoney, needs=hold_and_account)
def hold_money(command: HoldMoney, work: Work) -> MoneyHeld:
    """From what can be spent to what is promised."""
    account, amount = _account(command.account, work), command.amount
    if account.balance < amount:
        raise Refused("insufficient-funds", f"account {account.account} has {account.balance}, {amount} is wanted")
    work.put(replace(account, balance=account.balance - amount, held=account.held + amount))
    work.put(Hold(command.transfer_id, account.account, amount, "held"))
    return MoneyHeld()


@participant.handles(ReleaseMoney, needs=the_hold, then_needs=its_account)
def release_money(command: ReleaseMoney, work: Work) -> MoneyReleased:
    """Undo of hold_money."""
    hold = _held(command, work)
    account = _account(hold.account, work)
    work.put(replace(account, balance=account.balance + hold.amount, held=account.held - hold.amount))
    work.put(replace(hold, status="released"))
    return MoneyReleased()


@participant.handles(PayOut, needs=the_hold, then_needs=its_account)
def pay_out(command: PayOut, work: Work) -> MoneyPaidOut:
    """What was promised is gone."""
    hold = _held(command, work)
    account = _account(hold.account, work)
    work.put(replace(account, held=account.held - hold.amount))
    work.put(replace(hold, status="paid-out"))
    return MoneyPaidOut()


def _account(name: str, work: Work) -> Account:
    account = work.get(Account, name)
    if account is None:
        raise Refused("unknown-account", f"there is no account {name}")
    return account


def _held(command: ReleaseMoney | PayOut, work: Work) -> Hold:
    hold = work.get(Hold, command.transfer_id)
    if hold is None or hold.status != "held":
        status = "not there" if hold is None else hold.status
        raise Refused("not-held", f"the hold for transfer {command.transfer_id} is {status}")
    return hold
