"""What the payee's bank does."""

from collections.abc import Iterable
from dataclasses import replace

from examples.transfer.payee_bank.contracts import (
    AnnounceCredit,
    CreditAnnounced,
    CreditPayee,
    CreditWithdrawn,
    PayeeCredited,
    WithdrawCredit,
)
from examples.transfer.payee_bank.models import Account, Credit, participant
from outbox.contracts import Refused
from participants.runtime import Key, Work


def credit_and_account(command: AnnounceCredit) -> Iterable[Key]:
    """The credit to be announced, and the account that it is for."""
    return [Key(Credit, command.transfer_id), Key(Account, command.account)]


def the_credit(command: WithdrawCredit | CreditPayee) -> Iterable[Key]:
    """The credit that the command is about."""
    return [Key(Credit, command.transfer_id)]


def its_account(command: CreditPayee, work: Work) -> Iterable[Key]:
    """The account that the credit is for."""
    credit = work.get(Credit, command.transfer_id)
    return [Key(Account, credit.account)] if credit else []


@participant.handles(AnnounceCredit, needs=credit_and_account)
def announce_credit(command: AnnounceCredit, work: Work) -> CreditAnnounced:
    """No money moves yet."""
    account = _account(command.account, work)
    work.put(Credit(command.transfer_id, account.account, command.amount, "announced"))
    return CreditAnnounced()


@participant.handles(WithdrawCredit, needs=the_credit)
def withdraw_credit(command: WithdrawCredit, work: Work) -> CreditWithdrawn:
    """Undo of announce_credit."""
    work.put(replace(_announced(command, work), status="withdrawn"))
    return CreditWithdrawn()


@participant.handles(CreditPayee, needs=the_credit, then_needs=its_account)
def credit_payee(command: CreditPayee, work: Work) -> PayeeCredited:
    """The payee can spend it."""
    credit = _announced(command, work)
    account = _account(credit.account, work)
    work.put(replace(account, balance=account.balance + credit.amount))
    work.put(replace(credit, status="credited"))
    return PayeeCredited()


def _account(name: str, work: Work) -> Account:
    account = work.get(Account, name)
    if account is None:
        raise Refused("unknown-account", f"there is no account {name}")
    return account


def _announced(command: WithdrawCredit | CreditPayee, work: Work) -> Credit:
    credit = work.get(Credit, command.transfer_id)
    if credit is None or credit.status != "announced":
        status = "not there" if credit is None else credit.status
        raise Refused("not-announced", f"the credit of transfer {command.transfer_id} is {status}")
    return credit
