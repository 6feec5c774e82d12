"""`saga prune`: archive and delete what ended long ago, while everything runs."""

import asyncio
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from orchestrator.cli import console
from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.options import DataDir, Json, age, settings_of
from orchestrator.composition import open_pruner
from orchestrator.retention import Order, Report, TooSoon
from orchestrator.settings import Settings
from outbox.archive import ArchiveFailed

STATUSES: Final = ("completed", "compensated")


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("prune")(prune)


def prune(
    older: Annotated[str, typer.Option("--older-than", metavar="AGE", help="Since their end; 30d, at least 4d.")],
    archive: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the archives go: NDJSON, compressed, one file a run.")
    ] = None,
    no_archive: Annotated[bool, typer.Option("--no-archive", help="Delete, and keep no copy.")] = False,
    status: Annotated[
        list[str] | None, typer.Option("--status", "-s", help="Only sagas that are completed, or compensated.")
    ] = None,
    definition: Annotated[list[str] | None, typer.Option("--type", "-t", help="Only these sagas.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="How many are deleted in one transaction.")] = 500,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many it would be.")] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Archive and delete what ended long ago, while everything runs.

    Sagas go with their log and labels, and in every database the inbox rows
    and dead letters of that age. Each batch is on the disk before it is
    deleted, in a short transaction. It can be stopped at any time; after a
    crash a later archive may have some lines once more.

    What stays: a saga that is part of one that has not ended as long ago,
    and inbox rows of sagas that are not at rest. --status and --type narrow
    the sagas, and neither the inbox rows nor the dead letters.

    What is forgotten: the key of a saga, so that using it again starts a
    new one. And for what a service holds of a saga that is missing, `saga
    verify` can only tell that it is not younger than the newest that was
    pruned: verify before you prune.
    """
    order = _order(age(older), archive, no_archive, status or (), definition or (), dry_run)
    report = asyncio.run(_prune(settings_of(data_dir), order, batch))
    if json:
        console.print_json(_to_json(report, dry_run))
        return
    _print(report, dry_run)


def _order(
    older_than: timedelta,
    archive: Path | None,
    no_archive: bool,
    statuses: list[str] | tuple[()],
    definitions: list[str] | tuple[()],
    dry_run: bool,
) -> Order:
    unknown = sorted(set(statuses) - set(STATUSES))
    if unknown:
        raise Failure(f"sagas end {' or '.join(STATUSES)}: {unknown[0]!r} ones are not pruned", Exit.USAGE)
    if archive is not None and no_archive:
        raise Failure("--archive and --no-archive contradict each other: give one of them", Exit.USAGE)
    if archive is None and not no_archive and not dry_run:
        raise Failure("say where the archives go with --archive DIR, or that none are wanted: --no-archive", Exit.USAGE)
    if archive is not None and archive.exists() and not archive.is_dir():
        raise Failure(f"--archive {archive} is a file: name a folder", Exit.USAGE)
    try:
        return Order(older_than, archive, statuses, definitions, dry_run)
    except TooSoon as error:
        raise Failure(str(error), Exit.USAGE) from error


async def _prune(settings: Settings, order: Order, batch: int) -> Report:
    async with open_pruner(settings, batch=batch) as pruner:
        bar, task = console.progress("looking" if order.dry_run else "pruning", await pruner.count(order))
        with bar:
            try:
                return await pruner.run(order, lambda more: bar.advance(task, more))
            except ArchiveFailed as error:
                raise Failure(str(error)) from error


def _print(report: Report, dry_run: bool) -> None:
    rows = [("sagas", report.sagas)]
    rows += [(f"inbox of {role}", tally) for role, tally in report.inbox.items()]
    rows += [(f"dead letters of {role}", tally) for role, tally in report.dead_letters.items()]
    cells = ((name, f"{tally.pruned:,}", f"{tally.kept:,}") for name, tally in rows)
    columns = ("", "would go" if dry_run else "pruned", "kept")
    console.out().print(console.table(columns, cells, right=columns[1:]))
    for path in report.archives:
        console.say(f"archived in {path}")
    if report.kept:
        console.say("kept: what a saga that has not ended may still need, or what no known saga has sent")


def _to_json(report: Report, dry_run: bool) -> dict[str, Any]:
    return asdict(report) | {"dry_run": dry_run, "archives": [str(path) for path in report.archives]}
