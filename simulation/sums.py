"""What the runs that were kept have shown, for docs/simulation.md: no figure there is typed by hand.

Each file of docs/simulation/ is what one `saga simulate --json` has printed. All that are kept are summed, those that
found a violation as well.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

FOLDER: Final = "simulation"
NOT_RUN: Final = "*Not run yet.*\n"


class NoFigures(Exception):
    """A file is not what a run has printed, or two runs have played the same schedules."""


class Run(BaseModel):
    """What a run says of itself, as far as it can be summed."""

    model_config = ConfigDict(frozen=True)

    seed: int
    schedules: int
    sagas: int
    ends: dict[str, int]
    faults: dict[str, int]
    violations: list[dict[str, Any]]
    virtual_hours: float


def kept(docs: Path) -> list[Run]:
    """The runs whose JSON is in the folder of the page, by seed. Raises NoFigures."""
    runs = sorted(map(_load, (docs / FOLDER).glob("*.json")), key=lambda run: run.seed)
    for one, other in pairwise(runs):
        if one.seed + one.schedules > other.seed:
            raise NoFigures(f"the runs from seed {one.seed} and from seed {other.seed} played the same schedules")
    return runs


def table(runs: Sequence[Run]) -> str:
    """Their sum, in Markdown."""
    return "".join(f"{line}\n" for line in _lines(runs)) if runs else NOT_RUN


def _load(file: Path) -> Run:
    try:
        return Run.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise NoFigures(f"{file} is not what `saga simulate --json` prints: {error}") from error


def _lines(runs: Sequence[Run]) -> Iterator[str]:
    ends, faults = Counter[str](), Counter[str]()
    for run in runs:
        ends.update(run.ends)
        faults.update(run.faults)
    yield "| over all runs |  |"
    yield "|---|--:|"
    yield f"| runs | {len(runs):,} |"
    yield f"| schedules | {sum(run.schedules for run in runs):,} |"
    yield f"| … of runs without a violation | {sum(run.schedules for run in runs if not run.violations):,} |"
    yield f"| virtual time, in hours | {sum(run.virtual_hours for run in runs):,.1f} |"
    yield f"| sagas | {sum(run.sagas for run in runs):,} |"
    yield from (f"| … {end} | {count:,} |" for end, count in sorted(ends.items()))
    yield f"| faults that fired, and what people did | {faults.total():,} |"
    yield from (f"| … {kind} | {count:,} |" for kind, count in sorted(faults.items()))
    yield f"| **violations** | **{sum(len(run.violations) for run in runs):,}** |"
