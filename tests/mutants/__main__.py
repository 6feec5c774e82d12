"""`make mutants`: plant every mistake, and print how the explorer finds each."""

import sys

from rich.console import Console
from rich.table import Table

from orchestrator.explorer import Explorer
from tests.mutants.catalogue import MUTANTS, planted


def main() -> int:
    """Returns the number of survivors."""
    table = Table(box=None)
    for column in ("mutant", "saga", "states", "promise that it breaks", "shortest way there"):
        table.add_column(column)
    survivors = 0
    for mutant in MUTANTS:
        with planted(mutant):
            found = Explorer(mutant.shape, mutant.bounds).explore()
        survivors += found.counterexample is None
        caught = found.counterexample.broken.promise if found.counterexample else "[bold red]survives[/]"
        way = f"{len(found.counterexample.path)} steps" if found.counterexample else ""
        table.add_row(mutant.name, mutant.shape.name, f"{found.states:,}", caught, way)
    Console(width=160).print(table)
    print(f"{len(MUTANTS)} mutants, {survivors} survive", file=sys.stderr)
    return survivors


if __name__ == "__main__":
    sys.exit(main())
