"""`python -m benchmarks.peers`: the same work on other systems, one after another, on one durable PostgreSQL."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.peers.environment import PeerFailedError
from benchmarks.peers.runner import PEERS, Load, Server, measure, names
from orchestrator.embedded import EmbeddedServerError
from orchestrator.embedded.postgres import EmbeddedPostgres

_COLUMNS = {
    "sagas/s": "sagas_per_second",
    "p50 ms": "p50_ms",
    "p95 ms": "p95_ms",
    "p99 ms": "p99_ms",
    "max ms": "max_ms",
    "CPU ms/saga": "cpu_ms_per_saga",
}


def main(arguments: Sequence[str] | None = None, *, peers: Path = PEERS) -> int:
    """Run what the command line asks for. 0: all went well. 1: a peer failed; the others were run all the same."""
    given = _parse(arguments, names(peers))
    loads = [Load(steps, given.sagas, given.in_flight, given.rate, given.empty) for steps in given.steps]
    home = given.folder.resolve()
    home.mkdir(parents=True, exist_ok=True)
    try:
        with EmbeddedPostgres(durable=True, parent=home) as server:
            results = run(given.names or names(peers), loads, server, home / "peers", peers=peers)
    except EmbeddedServerError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"results": results}, indent=2)) if given.json else _show(results)
    return int(any("error" in result for result in results))


def run(
    chosen: Iterable[str], loads: Sequence[Load], server: Server, home: Path, *, peers: Path = PEERS
) -> list[dict[str, Any]]:
    """Every peer under every load. A failed run is an object with `error` in place of figures."""
    results = []
    for name in chosen:
        for asked in loads:
            print(f"{name}: {asked.sagas} sagas of {asked.steps} steps ...", file=sys.stderr, flush=True)
            try:
                results.append(measure(name, asked, server, home, peers=peers))
            except PeerFailedError as error:
                results.append({"peer": name, "steps": asked.steps, "empty": asked.empty, "error": str(error)})
    return results


def _parse(arguments: Sequence[str] | None, known: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(known)}; all when none is given")
    parser.add_argument("--steps", type=int, nargs="+", default=[3, 5], help="steps of a saga (default: 3 5)")
    parser.add_argument("--sagas", type=int, default=2_000, help="sagas that are measured (default: 2000)")
    parser.add_argument("--in-flight", type=int, help="sagas under way at a time (default: what suits each peer best)")
    parser.add_argument("--rate", type=float, help="sagas per second that arrive at fixed times, instead of that")
    parser.add_argument("--empty", action="store_true", help="steps that do nothing: a peer's very best")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="on a real disk (default: .bench)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(arguments)
    _refuse_nonsense(parser, given, known)
    return given


def _refuse_nonsense(parser: argparse.ArgumentParser, given: argparse.Namespace, known: Sequence[str]) -> None:
    unknown = [name for name in given.names if name not in known]
    if unknown:
        parser.error(f"there is no peer {unknown[0]!r}: choose from {', '.join(known)}")
    numbers = [*given.steps, given.sagas, given.in_flight, given.rate]
    if any(number is not None and number <= 0 for number in numbers):
        parser.error("--steps, --sagas, --in-flight and --rate must be more than 0")


def _show(results: Sequence[dict[str, Any]]) -> None:
    table = Table("system", "version", "steps", "load", *_COLUMNS)
    for result in (result for result in results if "error" not in result):
        figures = [str(result.get(key, "")) for key in _COLUMNS.values()]
        table.add_row(result["system"], result["version"], str(result["steps"]), _described(result), *figures)
    console = Console()
    console.print(table)
    for result in results:
        if "error" in result:
            console.print(f"{result['peer']}, {result['steps']} steps: FAILED. {result['error']}", markup=False)


def _described(result: dict[str, Any]) -> str:
    rate = result.get("rate")
    arrival = f"{rate:g}/s" if rate else f"{result.get('in_flight')} in flight"
    return f"{arrival}, empty steps" if result["empty"] else arrival


if __name__ == "__main__":
    sys.exit(main())
