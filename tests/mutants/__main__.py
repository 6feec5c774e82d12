"""`make mutants`: plant every mistake, and print how the explorer or the simulation finds each.

`python -m tests.mutants machine` plants those in the state machine alone, `… outside` those everywhere else; with
`--keep` docs/simulation.md is told how the latter are found.
"""

import sys
from collections.abc import Callable
from functools import partial

from rich.console import Console
from rich.table import Table

from orchestrator.explorer import Explorer
from simulation.runner import Player
from simulation.schedule import Outcome
from tests.mutants import page
from tests.mutants.catalogue import MUTANTS, planted
from tests.mutants.outside import BUGS, Bug, dug_in

MOST_SCHEDULES = 2_000


def main(*parts: str) -> int:
    """Returns the number of survivors."""
    hunts: dict[str, Callable[[], int]] = {
        "machine": hunt_in_the_machine,
        "outside": partial(hunt_outside, keeping="--keep" in parts),
    }
    return sum(hunts[part]() for part in [part for part in parts if part != "--keep"] or hunts)


def hunt_in_the_machine() -> int:
    """Returns the number of survivors."""
    table = _table("mutant", "saga", "states", "promise that it breaks", "shortest way there")
    survivors = 0
    for mutant in MUTANTS:
        with planted(mutant):
            found = Explorer(mutant.shape, mutant.bounds).explore()
        survivors += found.counterexample is None
        caught = found.counterexample.broken.promise if found.counterexample else SURVIVES
        way = f"{len(found.counterexample.path)} steps" if found.counterexample else ""
        table.add_row(mutant.name, mutant.shape.name, f"{found.states:,}", caught, way)
    _print(table)
    print(f"{len(MUTANTS)} mutants, {survivors} survive", file=sys.stderr)
    return survivors


def hunt_outside(*, keeping: bool) -> int:
    """Returns the number of survivors. If there are none, the page may keep what was found."""
    finds: dict[str, page.Find] = {}
    table, player = _table("bug", "schedules", "promise that it breaks", "how to see it"), Player()
    survivors = 0
    for bug in BUGS:
        found = _hunt(player, bug)
        if found is None:
            survivors += 1
            table.add_row(bug.name, f"{MOST_SCHEDULES:,}", SURVIVES, "")
        else:
            finds[bug.name] = page.Find(found.seed, found.violations[0].check)
            table.add_row(bug.name, f"{found.seed + 1:,}", found.violations[0].check, f"seed {found.seed}")
    _print(table)
    print(f"{len(BUGS)} bugs, {survivors} survive", file=sys.stderr)
    if keeping and not survivors:
        page.keep(finds)
    return survivors


def _hunt(player: Player, bug: Bug) -> Outcome | None:
    with dug_in(bug):
        outcomes = (player.play(seed) for seed in range(MOST_SCHEDULES))
        return next((outcome for outcome in outcomes if outcome.violations), None)


SURVIVES = "[bold red]survives[/]"


def _table(*columns: str) -> Table:
    table = Table(box=None)
    for column in columns:
        table.add_column(column)
    return table


def _print(table: Table) -> None:
    Console(width=160).print(table)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
