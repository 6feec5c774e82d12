"""`python -m benchmarks.roof`: starts a NATS server and a durable PostgreSQL, measures the roof, and prints it."""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import orjson

from benchmarks.roof import Roof, RoofFailed, measure
from benchmarks.roof.checking import ROLES
from benchmarks.roof.styles import STYLES
from orchestrator.embedded import EmbeddedServerError
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.embedded.postgres import EmbeddedPostgres


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. 1 when the run was wrong or a server could not be started."""
    options = _options(arguments)
    try:
        roof = _measured(options)
    except (RoofFailed, EmbeddedServerError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(orjson.dumps(asdict(roof)).decode() if options.json else _table(roof))
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.roof", description="The durable work of sagas, by hand.")
    parser.add_argument("--steps", type=_count, default=3, help="steps of a saga (3)")
    parser.add_argument("--sagas", type=_count, default=20_000, help="how many to run (20000)")
    parser.add_argument("--in-flight", type=_count, default=1000, help="how many at any time (1000)")
    parser.add_argument("--style", choices=sorted(STYLES), default="bare", help="bare, or with the tables of Amends")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(".bench"),
        metavar="FOLDER",
        help="where the servers keep their data meanwhile (.bench): on a real disk, in memory fsync costs nothing",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def _measured(options: argparse.Namespace) -> Roof:
    options.data_dir.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="roof-", dir=options.data_dir) as folder,
        EmbeddedNats(Path(folder)) as nats,
        EmbeddedPostgres(parent=options.data_dir.resolve()) as postgres,
    ):
        postgres.create_database(*ROLES)
        return asyncio.run(
            measure(
                urls={role: postgres.dsn(role) for role in ROLES},
                nats_url=nats.url,
                steps=options.steps,
                sagas=options.sagas,
                in_flight=options.in_flight,
                style=options.style,
                servers={"postgres": postgres.pid, "nats-server": nats.pid},
            )
        )


def _table(roof: Roof) -> str:
    lines = [
        f"{roof.sagas:,} sagas of {roof.steps} steps, {roof.in_flight:,} in flight, by hand ({roof.style})",
        f"{roof.sagas_per_second:,.0f} sagas/s, p50 {roof.p50_ms:,.0f} ms, p99 {roof.p99_ms:,.0f} ms",
        *(f"{name:>14}: {used:.3f} ms of CPU per saga" for name, used in roof.cpu_ms_per_saga.items()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
