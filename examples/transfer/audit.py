"""What must be true of money in the end, read from the databases of both banks and of the clearing house."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Row, select

from examples.audit import EffectAuditor
from examples.stage import Stage
from examples.transfer.clearing.models import Booking
from examples.transfer.payee_bank.models import Account as PayeeAccount
from examples.transfer.payee_bank.models import Credit
from examples.transfer.payer_bank.models import Account as PayerAccount
from examples.transfer.payer_bank.models import Hold
from participants.runtime.audit import Effect

HOLDS, CREDITS, BOOKINGS = Hold.table.c, Credit.table.c, Booking.table.c

HOLD: Mapping[str, Effect] = {"held": "partial", "paid-out": "applied", "released": "none"}
CREDIT: Mapping[str, Effect] = {"announced": "partial", "credited": "applied", "withdrawn": "none"}
BOOKING: Mapping[str, Effect] = {"booked": "applied", "struck": "none"}


def auditors(stage: Stage) -> list[EffectAuditor]:
    """What each service has left of a saga."""
    return [
        EffectAuditor("payer-bank", stage.databases["payer-bank"], HOLDS.transfer_id, HOLDS.status, HOLD),
        EffectAuditor("payee-bank", stage.databases["payee-bank"], CREDITS.transfer_id, CREDITS.status, CREDIT),
        EffectAuditor("clearing", stage.databases["clearing"], BOOKINGS.transfer_id, BOOKINGS.status, BOOKING),
    ]


async def money_is_constant(stage: Stage) -> list[str]:
    """Over all accounts of both banks."""
    payers, payees = await _payers(stage), await _payees(stage)
    opened = _sum(one.opened for one in (*payers, *payees))
    there = _sum(one.balance for one in (*payers, *payees)) + _sum(one.held for one in payers)
    return [] if opened == there else [f"{opened} were paid in when the accounts were opened, and {there} are there"]


async def the_banks_agree_with_the_clearing_house(stage: Stage) -> list[str]:
    """What has left the one bank is what was booked, and what has come to the other."""
    left = _sum(one.opened - one.balance - one.held for one in await _payers(stage))
    came = _sum(one.balance - one.opened for one in await _payees(stage))
    booked = _sum(
        row.amount for row in await stage.rows("clearing", select(Booking.table).where(BOOKINGS.status == "booked"))
    )
    return [] if left == booked == came else [f"{left} have left, {booked} were booked, {came} have come"]


async def nothing_is_held(stage: Stage) -> list[str]:
    """Every transfer has ended, one way or the other."""
    return [f"{one.held} are still held on account {one.account}" for one in await _payers(stage) if one.held]


async def nobody_has_less_than_nothing(stage: Stage) -> list[str]:
    """On any account."""
    accounts = [*await _payers(stage), *await _payees(stage)]
    return [f"account {one.account} has {one.balance}" for one in accounts if one.balance < 0]


async def _payers(stage: Stage) -> Sequence[Row[Any]]:
    return await stage.rows("payer-bank", select(PayerAccount.table))


async def _payees(stage: Stage) -> Sequence[Row[Any]]:
    return await stage.rows("payee-bank", select(PayeeAccount.table))


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    return sum(amounts, Decimal(0))
