"""The saga `transfer-money`: the payer's bank holds the money, the clearing house books it, both banks follow.

    | stage | step            | by         | undo             |                                                  |
    |-------|-----------------|------------|------------------|--------------------------------------------------|
    | 1     | hold-money      | payer-bank | release-money    |                                                  |
    | 2     | announce-credit | payee-bank | withdraw-credit  | the payee's bank checks, and is asked until ...  |
    |       |                 |            |                  | ... the deadline of two hours decides            |
    | 3     | book-transfer   | clearing   |                  | the pivot: asked three times, then it is stuck   |
    | 4     | pay-out         | payer-bank |                  | what was held has left ...                       |
    |       | credit-payee    | payee-bank |                  | ... and arrives, side by side                    |

While the clearing house is silent nobody knows whether the transfer is booked: the money stays held, and nothing is
undone by guess. It is asked again under the same id, which it carries out once. When that does not help the saga is
stuck, and two things move it: the answer, however late, or a person. `saga compensate` turns it back, if that person
says that the transfer did not happen, and will not.
"""

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Final

from pydantic import Field

from examples.transfer.clearing.contracts import BookTransfer
from examples.transfer.payee_bank.contracts import AnnounceCredit, CreditPayee, WithdrawCredit
from examples.transfer.payer_bank.contracts import HoldMoney, PayOut, ReleaseMoney
from orchestrator.definition import Policy, Saga, SagaData, parallel, reversible, step

UNTIL_THE_DEADLINE: Final = Policy(timeout=timedelta(seconds=30), attempts=None, cap=timedelta(minutes=10))
"""Asked for as long as the saga has time: the deadline decides, and no number of attempts."""

THREE_TIMES: Final = Policy(timeout=timedelta(minutes=10), attempts=3, cap=timedelta(hours=1))
"""Then a person should look."""

Name = Annotated[str, Field(min_length=1, max_length=60)]


class TransferMoney(SagaData):
    """Who pays how much to whom."""

    payer: Name
    payee: Name
    amount: Annotated[Decimal, Field(gt=0, decimal_places=2)]


def hold_money(data: TransferMoney) -> HoldMoney:
    """Nobody else can spend it now."""
    return HoldMoney(transfer_id=data.saga_id, account=data.payer, amount=data.amount)


def release_money(data: TransferMoney) -> ReleaseMoney:
    """Undo of hold_money."""
    return ReleaseMoney(transfer_id=data.saga_id)


def announce_credit(data: TransferMoney) -> AnnounceCredit:
    """The payee's bank checks that it can take the money, and expects it."""
    return AnnounceCredit(transfer_id=data.saga_id, account=data.payee, amount=data.amount)


def withdraw_credit(data: TransferMoney) -> WithdrawCredit:
    """Undo of announce_credit."""
    return WithdrawCredit(transfer_id=data.saga_id)


def book_transfer(data: TransferMoney) -> BookTransfer:
    """The point of no return: the one bank owes the other."""
    return BookTransfer(transfer_id=data.saga_id, amount=data.amount)


def pay_out(data: TransferMoney) -> PayOut:
    """What was held has left the account."""
    return PayOut(transfer_id=data.saga_id)


def credit_payee(data: TransferMoney) -> CreditPayee:
    """What was announced has arrived."""
    return CreditPayee(transfer_id=data.saga_id)


transfer_money = Saga(
    name="transfer-money",
    data=TransferMoney,
    reversible=(
        reversible(hold_money, undo=release_money),
        reversible(announce_credit, undo=withdraw_credit, policy=UNTIL_THE_DEADLINE),
    ),
    pivot=step(book_transfer, policy=THREE_TIMES),
    retriable=(parallel(step(pay_out), step(credit_payee)),),
    deadline=timedelta(hours=2),
)
