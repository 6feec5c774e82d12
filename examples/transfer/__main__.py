"""`python -m examples.transfer`: six transfers on real parts, each with the end that it should have."""

import sys
from decimal import Decimal
from typing import Any, Final

from examples.playbill import Example, Scene, run
from examples.stage import Stage, Stalled
from examples.transfer import audit
from examples.transfer.clearing import handlers as clearing
from examples.transfer.clearing.desk import strike_off
from examples.transfer.payee_bank import handlers as payee_bank
from examples.transfer.payee_bank.models import Account as PayeeAccount
from examples.transfer.payer_bank import handlers as payer_bank
from examples.transfer.payer_bank.models import Account as PayerAccount
from examples.transfer.saga import transfer_money
from orchestrator.events import Cancelled


async def prepare(stage: Stage) -> None:
    """Two people who pay, and one who is paid."""
    rich, poor = Decimal(50_000), Decimal(700)
    await stage.seed("payer-bank", PayerAccount("ada", rich, rich), PayerAccount("ben", poor, poor))
    await stage.seed("payee-bank", PayeeAccount("cleo", Decimal(0), Decimal(0)))


def transfer(**wishes: Any) -> dict[str, Any]:
    """From Ada to Cleo, unless wished otherwise."""
    return {"payer": "ada", "payee": "cleo", "amount": "250.00"} | wishes


async def all_well(stage: Stage) -> str:
    """Everybody answers."""
    return await stage.start("transfer-money", transfer())


async def refused(stage: Stage) -> str:
    """The clearing house says no. That is an answer: the transfer has not happened, and the money is released."""
    return await stage.start("transfer-money", transfer(amount="20000.00"))


async def silent(stage: Stage) -> str:
    """The clearing house is away for a while. It finds two copies of one command, and books one transfer."""
    await stage.close("clearing")
    saga_id = await stage.start("transfer-money", transfer())
    await stage.reaches(saga_id, "book-transfer")
    stage.passes(minutes=15)
    await stage.reaches(saga_id, "book-transfer", attempt=2)
    await stage.open("clearing")
    return saga_id


async def answered_late(stage: Stage) -> str:
    """Asked three times in vain, the saga is stuck. The clearing house comes back, and its answer moves the saga."""
    saga_id = await _stuck_at_the_pivot(stage, transfer())
    await stage.open("clearing")
    return saga_id


async def sent_back(stage: Stage) -> str:
    """A person rings the clearing house up, has the transfer struck off, and only then turns the saga back.

    When the clearing house is back it finds the commands that had been sent to it, and refuses them.
    """
    saga_id = await _stuck_at_the_pivot(stage, transfer())
    if not await strike_off(stage.databases["clearing"], saga_id):
        raise Stalled(f"transfer {saga_id} is booked already")
    word = "it was struck off"
    await stage.tell(saga_id, Cancelled(by="grace", reason=word, pivot_did_not_happen=True))
    await stage.ends(saga_id)
    await stage.open("clearing")
    return saga_id


async def too_late(stage: Stage) -> str:
    """The payee's bank is away for longer than the deadline. The saga turns back, and waits for that bank to be back:
    what was sent to it may still be carried out, and so it is undone.
    """
    await stage.close("payee-bank")
    saga_id = await stage.start("transfer-money", transfer(payer="ben", amount="699.00"))
    await stage.reaches(saga_id, "announce-credit")
    stage.passes(hours=2)
    await stage.becomes(saga_id, "compensating")
    await stage.open("payee-bank")
    return saga_id


async def _stuck_at_the_pivot(stage: Stage, data: dict[str, Any]) -> str:
    await stage.close("clearing")
    saga_id = await stage.start("transfer-money", data)
    for attempt in (1, 2, 3):
        await stage.reaches(saga_id, "book-transfer", attempt)
        stage.passes(hours=1)
    await stage.becomes(saga_id, "stuck")
    return saga_id


TRANSFER: Final = Example(
    module="examples.transfer",
    sagas=(transfer_money,),
    participants=[service.participant for service in (payer_bank, payee_bank, clearing)],
    prepare=prepare,
    scenes=(
        Scene("all is well", "completed", all_well),
        Scene("the clearing house refuses", "compensated", refused),
        Scene("the clearing house is silent, and asked again", "completed", silent),
        Scene("stuck, and moved by a late answer", "completed", answered_late),
        Scene("stuck, and turned back by a person", "compensated", sent_back, shown=True),
        Scene("the deadline passes before the pivot", "compensated", too_late),
    ),
    auditors=audit.auditors,
    claims={
        "money is constant over all accounts": audit.money_is_constant,
        "what has left one bank was booked, and has come to the other": audit.the_banks_agree_with_the_clearing_house,
        "nothing is held any more": audit.nothing_is_held,
        "nobody has less than nothing": audit.nobody_has_less_than_nothing,
    },
)

if __name__ == "__main__":
    sys.exit(run(TRANSFER))
