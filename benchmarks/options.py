"""What a run measures: every option of `saga bench`, and which of them go together."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.errors import BadOptions
from orchestrator.door import MAX_INPUT_BYTES

DATABASES: Final = ("sqlite", "postgresql")
SERVICES: Final = 3
MOST_STEPS: Final = 300
MOST_IN_FLIGHT: Final = 100_000
MOST_LINES_BYTES: Final = 30_000
"""An order has at most 500 lines, so a place-order cannot be padded further."""

WARM_UP: Final = 300
PLACE_ORDER: Final = "place-order"
CHAIN: Final = "chain"


@dataclass(frozen=True, slots=True)
class Options:
    """One run. Without `steps` it is place-order; without a `rate` the loop is closed. Raises BadOptions."""

    database: str = "postgresql"
    orders: int = 10_000
    steps: int | None = None
    in_flight: int = 1000
    rate: float | None = None
    refused: float = 0.0
    """Percent of the orders."""

    replicas: int = 1
    sync_always: bool = False
    payload: int = 0
    """Bytes that an input is padded to."""

    waiting: int = 0
    history: int = 0
    roof: bool = True
    data_dir: Path = Path(".bench")

    def __post_init__(self) -> None:
        for is_wrong, problem in self._problems():
            if is_wrong:
                raise BadOptions(problem)

    @property
    def definition(self) -> str:
        """The saga that is measured."""
        return PLACE_ORDER if self.steps is None else CHAIN

    @property
    def warm_up(self) -> int:
        """How many sagas run before those that count."""
        return min(WARM_UP, self.orders)

    @property
    def refusals(self) -> int:
        """How many of the orders are to be refused."""
        return int(self.orders * self.refused / 100)

    @property
    def wants_roof(self) -> bool:
        """Whether the same work is done by hand too; that is written for PostgreSQL."""
        return self.roof and self.database == "postgresql"

    def _problems(self) -> list[tuple[bool, str]]:
        """(is it so, what is wrong)"""
        most_bytes = MOST_LINES_BYTES if self.steps is None else MAX_INPUT_BYTES
        lasts = "3, 6, 9, …"
        return [
            (self.database not in DATABASES, f"--database: there is {' and '.join(DATABASES)}, and no {self.database}"),
            (self.orders < 1, "--orders: at least one saga has to be measured"),
            (self.steps is not None and not 1 <= self.steps <= MOST_STEPS, f"--steps: from 1 to {MOST_STEPS}"),
            (not 1 <= self.in_flight <= MOST_IN_FLIGHT, f"--in-flight: from 1 to {MOST_IN_FLIGHT:,}"),
            (
                self.rate is not None and not (math.isfinite(self.rate) and self.rate > 0),
                "--rate: sagas a second, more than none",
            ),
            (not 0 <= self.refused <= 100, "--refused: a share of the orders, from 0 to 100 percent"),
            (
                self.refused > 0 and (self.steps or SERVICES) % SERVICES != 0,
                f"--refused: it is the payment that is refused, so the last step must be one: --steps {lasts}",
            ),
            (self.replicas < 1, "--replicas: at least one process of the orchestrator"),
            (
                self.replicas > 1 and self.database == "sqlite",
                "--replicas: SQLite has one writer, so replicas would only wait for each other; "
                "measure them with --database postgresql",
            ),
            (
                not 0 <= self.payload <= most_bytes,
                f"--payload: from 0 to {most_bytes:,} bytes"
                + (f"; up to {MAX_INPUT_BYTES:,} with --steps, whose commands carry a text" if not self.steps else ""),
            ),
            (self.waiting < 0, "--waiting: how many sagas wait, or 0"),
            (self.history < 0, "--history: how many sagas have ended before, or 0"),
        ]
