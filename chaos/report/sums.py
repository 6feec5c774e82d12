"""Many runs together: the tables of docs/reliability.md, which `make docs` draws from the records in docs/reliability/.

What is summed are all runs that were kept, those that failed as well: they are told apart.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from chaos.record import PASSED, Record
from chaos.report import figures, words
from chaos.report.data import load
from chaos.report.words import time
from outbox.numbers import counted

FOLDER: Final = "reliability"
NOT_RUN: Final = "*Not run yet.*\n"

TOGETHER: Final = {
    "SIGKILLs of our processes": ("kill",),
    "faults that were a SIGKILL: to ours, to nats-server, to PostgreSQL": ("kill", "kill-broker", "kill-database"),
    "losses of the broker's whole store: wiped, deleted, abandoned": ("store-wipe", "store-delete", "store-abandon"),
    "rollbacks of the broker's store": ("store-rollback",),
    "restarts of PostgreSQL: immediate shutdown, SIGKILL": ("database-restart", "kill-database"),
}
"""What a reader asks for first, and the kinds of faults that it is the sum of."""


@dataclass(frozen=True, slots=True)
class Sum:
    """Of several runs."""

    records: tuple[Record, ...]

    @property
    def failed(self) -> int:
        """Runs that found a violation, or showed nothing."""
        return sum(record.verdict != PASSED for record in self.records)

    @property
    def seconds(self) -> float:
        """For how long orders came in and faults fired."""
        return sum(record.duration for record in self.records)

    @property
    def fired(self) -> dict[str, int]:
        """Faults by kind, in the order of the alphabet."""
        return _added(record.fired for record in self.records)

    @property
    def sagas(self) -> dict[str, int]:
        """By status."""
        return _added(record.sagas for record in self.records)

    @property
    def checked(self) -> int:
        """Things that invariants were held against."""
        return sum(map(figures.checked, self.records))

    @property
    def violations(self) -> int:
        """Of all runs."""
        return sum(len(record.violations) for record in self.records)

    @property
    def kinds(self) -> list[figures.Kind]:
        """The faults of all runs, by kind."""
        return figures.kinds(chain.from_iterable(record.faults for record in self.records))


def _added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    found = Counter[str]()
    for count in counts:
        found.update(count)
    return dict(sorted(found.items()))


def kept(docs: Path) -> Sum:
    """The runs whose JSON is in the folder of the page, by name. Raises NoRecord."""
    return Sum(tuple(load(file) for file in sorted((docs / FOLDER).glob("*.json"))))


# --- the tables ------------------------------------------------------------------------------------------------------


def part(name: str, runs: Sum) -> str:
    """One of the tables, in Markdown."""
    table = PARTS[name]
    return "".join(f"{line}\n" for line in table(runs)) if runs.records else NOT_RUN


def _sum(runs: Sum) -> Iterator[str]:
    yield from _head(("over all runs", "---"), ("", "---:"))
    failed = f", {runs.failed:,} failed" if runs.failed else ""
    yield _line("runs", f"{len(runs.records):,}{failed}")
    yield _line("time under fire", time(runs.seconds))
    yield from (_line(what, f"{sum(runs.fired.get(kind, 0) for kind in of):,}") for what, of in TOGETHER.items())
    yield _line("faults fired", f"{sum(runs.fired.values()):,}")
    yield from (_line(f"… {_text(kind)}", f"{fired:,}") for kind, fired in runs.fired.items())
    yield _line("sagas", f"{figures.total(runs.sagas):,}")
    yield from (_line(f"… {_text(status)}", f"{count:,}") for status, count in runs.sagas.items())
    yield _line("things that invariants were held against", f"{runs.checked:,}")
    yield _line("**violations**", f"**{runs.violations:,}**")


def _faults(runs: Sum) -> Iterator[str]:
    figures_of = ("fired", "lasted, median", "recovery, median", "worst", "unrecovered")
    yield from _head(("fault", "---"), *((name, "---:") for name in figures_of))
    for kind in runs.kinds:
        times = (time(kind.lasted), time(kind.recovery), time(kind.worst))
        yield _line(_text(kind.name), f"{kind.fired:,}", *times, f"{kind.unrecovered:,}")


def _runs(runs: Sum) -> Iterator[str]:
    yield from _head(
        ("run", "---"),
        ("on", "---"),
        *((name, "---:") for name in ("time", "faults", "sagas")),
        ("verdict", "---"),
        ("to run it again", "---"),
    )
    for record in runs.records:
        verdict = record.verdict if record.verdict == PASSED else f"**{record.verdict}**"
        yield _line(
            f"{_text(record.scenario)}, {record.began:%Y-%m-%d}",
            _text(f"{words.database(record)}, {counted(record.brokers, 'NATS server')}"),
            time(record.duration),
            f"{len(record.faults):,}",
            f"{figures.total(record.sagas):,}",
            verdict,
            _code(record.reproduce),
        )


PARTS: Final[dict[str, Callable[[Sum], Iterator[str]]]] = {"sum": _sum, "faults": _faults, "runs": _runs}


def _head(*columns: tuple[str, str]) -> Iterator[str]:
    yield _line(*(heading for heading, _ in columns))
    yield _line(*(rule for _, rule in columns))


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    """What a record says, as text of one cell and no markup."""
    one_line = words.printable(text).replace("\n", " ")
    return re.sub(r"([\\`*_\[\]<>|&])", r"\\\1", one_line)


def _code(text: str) -> str:
    """As code: in fences that it does not contain."""
    one_line = words.printable(text).replace("\n", " ").replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", one_line)), default=0))
    pad = " " if "`" in one_line else ""
    return f"{fence}{pad}{one_line}{pad}{fence}"
