"""Which fault hits whom, when, and for how long: all of it from the seed. No I/O.

The plan is the same for the same seed; what comes of it is not, because real processes are not. A fault that finds its
victim gone, or being hit already, is passed over and does not count.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from chaos.scenarios import Kind, Scenario


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault that is meant to happen."""

    at: float
    kind: str
    target: str
    lasts: float
    luck: str
    """The seed of whatever else it leaves to chance."""


def plan(scenario: Scenario, seed: int, duration: float, every: float | None = None) -> Iterator[Planned]:
    """The faults of a run, in the order of time. Each kind comes once before any comes again, then by weight."""
    dice = random.Random(f"{scenario.name}/{seed}")
    pause = every or scenario.every
    at = min(scenario.calm, duration / 4)
    for number, kind in enumerate(_kinds(scenario, dice)):
        if at >= duration:
            return
        target = dice.choice(kind.targets(scenario.brokers))
        lasts = min(dice.uniform(*kind.lasts), max(0.0, duration - at))
        yield Planned(round(at, 3), kind.name, target, round(lasts, 3), f"{seed}/{number}")
        at += pause * dice.uniform(0.5, 1.5)


def _kinds(scenario: Scenario, dice: random.Random) -> Iterator[Kind]:
    kinds, weights = list(scenario.kinds), list(scenario.kinds.values())
    yield from dice.sample(kinds, len(kinds))
    while True:
        yield dice.choices(kinds, weights)[0]
