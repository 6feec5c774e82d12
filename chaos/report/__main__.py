"""`python -m chaos.report`: reads what chaos runs have left: JSON of a run, and the figures of docs/reliability.md.

python -m chaos.report RUN.json                   what it showed, as the run itself told it
python -m chaos.report RUN.json --html RUN.html   … and its page
python -m chaos.report --docs docs                the tables of docs/reliability.md, from docs/reliability/*.json
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from chaos.record import PASSED
from chaos.report import page, sums, terminal
from chaos.report.data import NoRecord, load
from orchestrator.cli import console


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. 1 when the run was a failed one, 2 when there is nothing to read."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if (given.run is None) == (given.docs is None):
        parser.error("name the JSON of a run, or --docs and the folder of the page")
    try:
        return _show(given.run, given.html) if given.run else _render(given.docs)
    except (NoRecord, OSError) as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m chaos.report", description="Read what chaos runs have left.")
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN.json", help="what `saga chaos run --json` wrote")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the page of the run")
    parser.add_argument("--docs", type=Path, metavar="DIR", help=f"render {sums.PAGE} in DIR from DIR/{sums.FOLDER}/")
    return parser


def _show(file: Path, html: Path | None) -> int:
    record = load(file)
    terminal.show(record, console.out())
    if html is not None:
        html.write_text(page.html(record), encoding="utf-8")
    return int(record.verdict != PASSED)


def _render(docs: Path) -> int:
    sums.render(docs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
