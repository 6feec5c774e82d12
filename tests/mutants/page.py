"""The table of docs/simulation.md: after how many schedules each planted bug is found, and by which promise.

It is the only place where that is kept. `make mutants ARGS="outside --keep"` hunts them and writes it anew, which is
due when the order of statements has changed: then a seed is another schedule.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs" / "simulation.md"
_ROW: Final = re.compile(r"^\| ([^|]+) \| (\d+) \| ([a-z-]+) \|$", re.MULTILINE)
_ROWS: Final = re.compile(rf"(?:{_ROW.pattern}\n)+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Find:
    """The schedule that found a bug, the first from seed 0, and the check that failed."""

    seed: int
    check: str


def kept() -> dict[str, Find]:
    """Bug -> what the page says of it."""
    return {
        name: Find(int(schedules) - 1, check)
        for name, schedules, check in _ROW.findall(PAGE.read_text(encoding="utf-8"))
    }


def drawn(page: str, finds: Mapping[str, Find]) -> str:
    """The page with these in its table, in this order."""
    rows = [f"| {name} | {find.seed + 1} | {find.check} |\n" for name, find in finds.items()]
    return _ROWS.sub(lambda _: "".join(rows), page, count=1)


def keep(finds: Mapping[str, Find]) -> None:
    """Write the table anew."""
    PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8"), finds), encoding="utf-8")
