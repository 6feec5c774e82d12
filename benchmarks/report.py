"""What a run has shown: as JSON for scripts, as tables for people."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import RenderableType

from benchmarks.history import Before
from benchmarks.load import Sample
from benchmarks.machine import machine
from benchmarks.measure import Counters, Peaks, percentile
from benchmarks.options import Options
from benchmarks.proof import Proof
from benchmarks.roof import Roof
from orchestrator.cli import console
from outbox.moments import duration

MIB: Final = 1024 * 1024
PERCENTILES: Final = (50, 95, 99)
NOT_COUNTED: Final = "not counted: SQLite does not count them"


@dataclass(frozen=True, slots=True)
class Report:
    """One run."""

    options: Options
    before: Before
    sample: Sample
    used: Counters
    peaks: Peaks
    proof: Proof
    roof: Roof | None
    kept: Path | None = None
    """Where the logs of a wrong run are, and what else is left of it."""

    @property
    def sagas_per_second(self) -> float:
        """From the first start to the last end."""
        return len(self.sample.latencies) / self.sample.seconds

    @property
    def of_roof(self) -> float | None:
        """Which part of the roof was reached."""
        return None if self.roof is None else self.sagas_per_second / self.roof.sagas_per_second

    def to_json(self) -> dict[str, Any]:
        """Everything, rounded to what is significant."""
        return self._what() | self._speed() | self._cost() | self._truth() | {"machine": machine()}

    def _what(self) -> dict[str, Any]:
        options, closed = self.options, self.options.rate is None
        return {
            "database": options.database,
            "saga": options.definition,
            "steps": options.steps,
            "orders": options.orders,
            "load": "closed" if closed else "open",
            "in_flight": options.in_flight if closed else None,
            "rate": options.rate,
            "refused_percent": options.refused,
            "replicas": options.replicas,
            "sync_always": options.sync_always,
            "payload_bytes": options.payload,
            "waiting": self.before.waiting.sagas,
            "history": self.before.ended.sagas,
        }

    def _speed(self) -> dict[str, Any]:
        return {
            "seconds": round(self.sample.seconds, 3),
            "sagas_per_second": round(self.sagas_per_second, 1),
            **{name: round(seconds * 1000, 2) for name, seconds in self._latencies().items()},
            "roof_per_second": self.roof and round(self.roof.sagas_per_second, 1),
            "of_roof": self.of_roof and round(self.of_roof, 3),
        }

    def _latencies(self) -> dict[str, float]:
        ordered = sorted(self.sample.latencies)
        return {f"p{percent}_ms": percentile(ordered, percent) for percent in PERCENTILES} | {"max_ms": ordered[-1]}

    def _cost(self) -> dict[str, Any]:
        used, sagas = self.used, self.options.orders
        return {
            "messages_per_saga": _each(used.messages, sagas, 4),
            "transactions_per_saga": used.transactions and _each(used.transactions, sagas, 4),
            "wal_bytes_per_saga": used.wal_bytes and round(used.wal_bytes / sagas),
            "cpu_seconds_per_saga": _each(used.cpu, sagas, 6),
            "peak_memory_mib": {role: round(size / MIB, 1) for role, size in self.peaks.memory.items()},
            "outbox_lag_seconds": round(self.peaks.outbox_lag, 3),
        }

    def _truth(self) -> dict[str, Any]:
        return {
            "outcomes": dict(self.sample.statuses),
            "found_in_database_only": self.sample.unheard,
            "verified": self.proof.verified,
            "dead_letters": dict(self.proof.dead_letters),
            "violations": [asdict(finding) for finding in self.proof.violations],
        }

    # --- for people ------------------------------------------------------------------------------------------------

    def tables(self) -> Iterator[RenderableType]:
        """The figures, and what they cost by role."""
        yield console.table(("", ""), self._figures(), with_head=False)
        yield ""
        yield console.table(("role", "CPU per saga", "CPU", "peak memory"), self._roles(), right=_ROLE_FIGURES)

    def _figures(self) -> Iterator[tuple[str, str]]:
        latencies = self._latencies()
        yield "sagas per second", f"{self.sagas_per_second:,.0f}"
        yield "latency", " · ".join(f"{name[:-3]} {duration(value)}" for name, value in latencies.items())
        if self.roof is not None and self.of_roof is not None:
            yield "roof", f"{self.roof.sagas_per_second:,.0f} per second by hand: {self.of_roof:.0%} of it is reached"
        else:
            yield (
                "roof",
                "not measured" + (": it is written for PostgreSQL" if self.options.database == "sqlite" else ""),
            )
        yield "messages per saga", _by_name(_each(self.used.messages, self.options.orders, 3))
        transactions = self.used.transactions
        yield (
            "transactions per saga",
            NOT_COUNTED if transactions is None else _by_name(_each(transactions, self.options.orders, 3)),
        )
        yield "outbox lag", f"at most {duration(self.peaks.outbox_lag)}"
        yield "ended", ", ".join(f"{count:,} {status}" for status, count in sorted(self.sample.statuses.items()))

    def _roles(self) -> Iterator[tuple[str, str, str, str]]:
        used = self.used.cpu
        for role, seconds in (used | {"all": sum(used.values())}).items():
            memory = self.peaks.memory.get(role)
            each = f"{seconds / self.options.orders * 1000:.3f} ms"
            of_a_core = f"{seconds / self.sample.seconds:.0%}"
            yield role, each, of_a_core, "" if memory is None else f"{memory / MIB:,.0f} MiB"


_ROLE_FIGURES: Final = ("CPU per saga", "CPU", "peak memory")


def _each(counts: Mapping[str, float], sagas: int, places: int) -> dict[str, float]:
    each = {name: round(count / sagas, places) for name, count in counts.items()}
    return each | {"all": round(sum(counts.values()) / sagas, places)}


def _by_name(counts: Mapping[str, float]) -> str:
    return f"{counts['all']} ({', '.join(f'{count} {name}' for name, count in counts.items() if name != 'all')})"
