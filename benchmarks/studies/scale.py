"""How large a study is made: as it is meant, or small, to see that it works."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.studies.runs import Run, of_bench, of_peer, of_roof

QUICK_SAGAS: Final = 40
QUICK_IN_FLIGHT: Final = 20
QUICK_PART: Final = 1000
PEERS: Final = {"dbos": "DBOS", "natsaga": "natsaga", "restate": "Restate", "temporal": "Temporal"}
OURS: Final = "Amends"


@dataclass(frozen=True, slots=True)
class Scale:
    """Makes the runs. `database` is that of the studies that are about none."""

    quick: bool = False
    database: str = "postgresql"
    folder: Path = Path(".bench")

    def size(self, full: int) -> int:
        """How much of something is there before a run."""
        return -(-full // QUICK_PART) if self.quick else full

    def ours(
        self,
        labels: dict[str, Any],
        *more: str,
        sagas: int,
        steps: int | None = 3,
        database: str | None = None,
        in_flight: int = 1000,
        roof: bool = False,
    ) -> Run:
        """`saga bench`, a closed loop. Without `steps` it is place-order; the words of `more` are handed on."""
        words = ["--database", database or self.database, "--in-flight", str(self._in_flight(in_flight)), *more]
        words += [] if roof else ["--no-roof"]
        return self._bench(labels, self._sagas(sagas), steps, words)

    def ours_at(self, labels: dict[str, Any], *, rate: int, seconds: int, steps: int | None = 3) -> Run:
        """`saga bench`, an open loop. The label `system` says of which ladder it is a rung."""
        words = ["--database", self.database, "--rate", str(rate), "--no-roof"]
        return self._bench(labels, rate * self._seconds(seconds), steps, words)

    def peer(self, name: str, labels: dict[str, Any], *, steps: int, sagas: int) -> Run:
        """A peer as it is at its best, a closed loop."""
        return self._peer(name, labels, ["--steps", str(steps), "--sagas", str(self._sagas(sagas))])

    def peer_at(self, name: str, labels: dict[str, Any], *, rate: int, seconds: int) -> Run:
        """A peer, an open loop of three steps."""
        sagas = rate * self._seconds(seconds)
        return self._peer(name, labels, ["--steps", "3", "--sagas", str(sagas), "--rate", str(rate)])

    def by_hand(self, labels: dict[str, Any], *, style: str, steps: int, sagas: int, in_flight: int = 1000) -> Run:
        """The roof."""
        words = ["--steps", str(steps), "--sagas", str(self._sagas(sagas))]
        words += ["--in-flight", str(self._in_flight(in_flight)), "--style", style]
        return Run(labels, ("benchmarks.roof", "--json", *words, "--data-dir", str(self.folder)), of_roof)

    def _bench(self, labels: dict[str, Any], sagas: int, steps: int | None, words: Sequence[str]) -> Run:
        kind = [] if steps is None else ["--steps", str(steps)]
        command = ("orchestrator.cli", "bench", "--json", *kind, "--orders", str(sagas), *words)
        return Run(labels, (*command, "--data-dir", str(self.folder)), of_bench, _ladder(labels))

    def _peer(self, name: str, labels: dict[str, Any], words: Sequence[str]) -> Run:
        command = ("benchmarks.peers", name, "--json", *words, "--folder", str(self.folder))
        return Run(labels, command, of_peer, _ladder(labels))

    def _seconds(self, full: int) -> int:
        return 1 if self.quick else full

    def _sagas(self, full: int) -> int:
        return min(full, QUICK_SAGAS) if self.quick else full

    def _in_flight(self, full: int) -> int:
        return min(full, QUICK_IN_FLIGHT) if self.quick else full


def _ladder(labels: dict[str, Any]) -> str | None:
    return labels["system"] if "rate" in labels else None
