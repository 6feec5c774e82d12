"""`make docs`: draw again, from the code, what the pages show of it.

A page holds such a part between two comments: `<!-- drawn: NAME -->` and `<!-- end of NAME -->`. A test compares
pages and code, so neither can change without the other.
"""

import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Final

from chaos.report import sums as chaos
from chaos.scenarios import SCENARIOS
from orchestrator.graph import picture, svg
from orchestrator.graph.machine import by_hand, phases, steps
from orchestrator.sagas.place_order import place_order
from simulation import sums as simulation

DOCS: Final = Path(__file__).parent
PAGES: Final = (DOCS / "state-machine.md", DOCS / "simulation.md", DOCS / "reliability.md")
PICTURES: Final[dict[Path, Callable[[], str]]] = {DOCS / "place-order.svg": lambda: svg(picture(place_order))}


@cache
def _chaos() -> chaos.Sum:
    return chaos.kept(DOCS)


def _of_chaos(name: str) -> str:
    return chaos.part(name, _chaos())


def _scenarios() -> str:
    everything = {fault for one in SCENARIOS.values() for fault in one.faults}
    lines = ["| scenario | what happens | faults |", "|---|---|---|"]
    for one in SCENARIOS.values():
        others = sorted(everything - set(one.faults))
        few = len(one.faults) < len(others)
        told = ", ".join(f"`{fault}`" for fault in (one.faults if few else others))
        lines.append(f"| `{one.name}` | {one.what} | {told if few else f'all but {told}'} |")
    return "\n".join(lines) + "\n"


PARTS: Final[dict[str, Callable[[], str]]] = {
    "phases": lambda: f"```mermaid\n{phases()}```\n",
    "steps": lambda: f"```mermaid\n{steps()}```\n",
    "by hand": by_hand,
    "runs of the simulation": lambda: simulation.table(simulation.kept(DOCS)),
    "chaos scenarios": _scenarios,
    **{f"chaos {name}": partial(_of_chaos, name) for name in chaos.PARTS},
}


def drawn(page: str) -> str:
    """The page with every part drawn anew. Raises KeyError on a part that nobody knows how to draw."""
    between = r"(?s)<!-- drawn: ([a-z ]+) -->\n.*?<!-- end of \1 -->"
    return re.sub(between, lambda part: _part(part[1]), page)


def _part(name: str) -> str:
    return f"<!-- drawn: {name} -->\n{PARTS[name]()}<!-- end of {name} -->"


def main() -> None:
    """Write every page and picture that has changed."""
    wanted = {page: drawn(page.read_text(encoding="utf-8")) for page in PAGES}
    wanted |= {file: draw() for file, draw in PICTURES.items()}
    for file, content in wanted.items():
        if not file.exists() or file.read_text(encoding="utf-8") != content:
            file.write_text(content, encoding="utf-8")
            print(f"drew {file.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    main()
