"""`make mutants`: plant every mistake, and print how the explorer finds it."""

import sys

from rich.console import Console
from rich.table import Table

from orchestrator.explorer import Explorer
from tests.mutants.catalogue import MUTANTS, planted
from tests.mutants.shapes import BOUNDS, SMALL


def main() -> int:
    """Returns the number of survivors."""
    table = Table(box=None)
    for column in ("mutant", "states", "promise that it breaks", "shortest way there"):
        table.add_column(column)
    survivors = 0
    for mutant in MUTANTS:
        with planted(mutant):
            found = Explorer(SMALL, BOUNDS).explore()
        survivors += found.counterexample is None
        promise, path = (found.counterexample.promise, found.counterexample.path) if found.counterexample else ("", ())
        caught = promise.partition(":")[0] or "[bold red]survives[/]"
        table.add_row(mutant.name, str(found.states), caught, f"{len(path)} steps" if path else "")
    Console(width=140).print(table)
    print(f"{len(MUTANTS)} mutants, {survivors} survive", file=sys.stderr)
    return survivors


sys.exit(main())
