"""`saga` with an inventory that dies.

Whoever asks it for a baker's dozen kills its process, as a bug in a library of C would. As a module of definitions it
is place-order for those who have time, so that nobody is asked again while processes die.
"""

import os
import signal
from dataclasses import replace
from datetime import timedelta
from typing import Final

from orchestrator.cli.main import main
from orchestrator.definition import Policy
from orchestrator.sagas import DEFINITIONS
from participants.inventory import handlers
from participants.inventory.contracts import ReserveStock, StockReserved
from participants.inventory.models import participant
from participants.runtime import Work
from tests.support.desk import with_policies

DEADLY_QUANTITY: Final = 13
SAGA: Final = f"{__name__}:deadly_main"

LONG: Final = timedelta(minutes=10)

patient = with_policies(DEFINITIONS["place-order"], Policy(timeout=LONG, cap=LONG, attempts=3))


def reserve_stock(command: ReserveStock, work: Work) -> StockReserved:
    """Never comes back from some commands."""
    if any(line.quantity == DEADLY_QUANTITY for line in command.lines):
        os.kill(os.getpid(), signal.SIGKILL)
    return handlers.reserve_stock(command, work)


def deadly_main() -> None:
    """`saga`, with that inventory."""
    usual = participant.handlers[ReserveStock.type]
    participant.handlers[ReserveStock.type] = replace(usual, handle=reserve_stock)
    main()
