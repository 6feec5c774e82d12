"""A role whose machine's clock of the day jumps: `chaos.skewed:main ROLE ACCOUNT SEED`.

`time-machine` moves the clock for everything in this process: Python, Pydantic, the driver of the database. The
monotonic clock stays, as it does on a machine whose clock is set. It has written down into ACCOUNT what it did.
"""

import random
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chaos.account import write

if TYPE_CHECKING:
    from time_machine import Traveller

FURTHEST: Final = timedelta(hours=30)
EVERY: Final = 1.0


def main() -> None:
    """Run the role under a clock that jumps once a second."""
    import time_machine

    from orchestrator.cli.main import main as saga

    role, account, seed = sys.argv[1:]
    dice = random.Random(seed)
    traveller = time_machine.travel(datetime.now(UTC) + timedelta(hours=1), tick=True).start()
    threading.Thread(target=_jump, args=(traveller, dice, Path(account)), daemon=True).start()
    sys.argv[1:] = ["run", role]
    saga()


def _jump(traveller: "Traveller", dice: random.Random, account: Path) -> None:
    began, began_monotonic = datetime.now(UTC) - timedelta(hours=1), time.monotonic()
    jumps, least, most = 0, 0.0, 0.0
    while True:
        right = began + timedelta(seconds=time.monotonic() - began_monotonic)
        traveller.move_to(right + FURTHEST * dice.uniform(-1, 1))
        skew = (datetime.now(UTC) - right).total_seconds()
        jumps, least, most = jumps + 1, min(least, skew), max(most, skew)
        write(account, {"jumps": jumps, "least": least, "most": most})
        time.sleep(EVERY)
