"""What a run is asked for: every option of `saga chaos run`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chaos.errors import BadOptions

LONGEST: Final = 24 * 3600.0
PATIENCE: Final = 300.0


@dataclass(frozen=True, slots=True)
class Options:
    """One run. Raises BadOptions."""

    scenario: str
    seed: int
    duration: float = 60.0
    """Seconds for which orders come in and faults fire."""

    rate: float = 20.0
    """Orders a second."""

    orders: int | None = None
    """No more than so many; without it they come until the time is over."""

    every: float | None = None
    """Seconds between two faults, on average; each scenario has its own."""

    patience: float = PATIENCE
    """Seconds in which every saga must have ended once the faults are over."""

    data_dir: Path = Path(".chaos")

    def __post_init__(self) -> None:
        for is_right, problem in self._claims():
            if not is_right:
                raise BadOptions(problem)

    def _claims(self) -> list[tuple[bool, str]]:
        """(what must be so, what is wrong when it is not)"""
        return [
            (5 <= self.duration <= LONGEST, f"--duration: from 5 to {LONGEST:,.0f} seconds"),
            (math.isfinite(self.rate) and 0 < self.rate <= 1000, "--rate: orders a second, up to 1000"),
            (self.orders is None or self.orders > 0, "--orders: at least one"),
            (self.every is None or 0.2 <= self.every <= self.duration, "--every: from 0.2 seconds to the duration"),
            (self.patience > 0, "--patience: seconds, more than none"),
        ]
