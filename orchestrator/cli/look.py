"""`saga ls`, `incidents`, `log`, `verify`: see what happened, and prove that it was right."""

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from orchestrator.cli import console, show
from orchestrator.cli.exits import Exit
from orchestrator.cli.follow import follow_log, print_line
from orchestrator.cli.options import DataDir, Json, settings_of
from orchestrator.cli.selection import Selection, check_types, with_options
from orchestrator.cli.values import PLACEHOLDER
from orchestrator.composition import load_definitions, open_queries, open_verifier
from orchestrator.queries import Filter, to_json
from orchestrator.settings import Settings
from outbox.moments import duration
from outbox.numbers import counted


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command("ls")(ls)
    app.command("get")(show.get)
    app.command("incidents")(incidents)
    app.command("log")(log)
    app.command("verify")(verify)


@with_options(Selection)
def ls(
    selection: Selection,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most, the newest first.")] = 50,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """List sagas, the newest first."""
    now = datetime.now(UTC)
    asyncio.run(_ls(settings_of(data_dir), selection.to_filter(now, limit=limit), now, json))


async def _ls(settings: Settings, wanted: Filter, now: datetime, json: bool) -> None:
    async with open_queries(settings) as queries:
        await check_types(wanted, load_definitions(settings), queries)
        found = await queries.search(wanted, now)
        counts = await queries.counts()
    if json:
        console.print_json([to_json(one) for one in found])
        return
    rows = (
        (
            one.id,
            one.definition,
            console.status_text(one.status),
            f"{one.done}/{one.steps}" + (f" ({one.undone} undone)" if one.undone else ""),
            console.day(one.started_at),
            duration(one.duration),
            one.reason or "",
        )
        for one in found
    )
    columns = ("saga", "type", "status", "steps", "started", "took", "reason")
    console.out().print(console.table(columns, rows, right=("took",), spare=("started", "steps", "type")))
    totals = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))
    console.say(f"in all: {totals}" if totals else "no sagas yet")


def incidents(data_dir: DataDir = None, json: Json = False) -> None:
    """What sagas are stuck for, the most frequent first, and the one command for all of each."""
    asyncio.run(_incidents(settings_of(data_dir), data_dir, json))


async def _incidents(settings: Settings, data_dir: Path | None, json: bool) -> None:
    async with open_queries(settings) as queries:
        found = await queries.incidents()
    commands = [
        console.paste("retry", "--incident", one.name, "--reason", PLACEHOLDER, data_dir=data_dir) for one in found
    ]
    if json:
        told = [asdict(one) | {"command": line} for one, line in zip(found, commands, strict=True)]
        console.print_json([{"incident": one.pop("name")} | one for one in told])
        return
    if not found:
        console.say("no saga is stuck")
        return
    columns = ("sagas", "since", "last", "example", "reason")
    rows = (
        (f"{one.sagas:,}", console.day(one.first_at), console.day(one.last_at), one.example, one.name) for one in found
    )
    console.out().print(console.table(columns, rows, right=("sagas",), spare=("last", "since", "example")))
    console.out().print("\nwhen the cause is gone, for all of them:")
    for line in commands:
        console.out().print(f"  {line}", markup=False, soft_wrap=True)


def log(
    saga: Annotated[str | None, typer.Argument(metavar="[ID]", help="One saga; all of them when left out.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on, live, until Ctrl-C.")] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """The event log: every transition of one saga, or of all."""
    asyncio.run(_log(settings_of(data_dir), saga, follow, json))


async def _log(settings: Settings, saga: str | None, follow: bool, json: bool) -> None:
    async with open_queries(settings) as queries:
        saga_id = await queries.find(saga) if saga else None
        lines = follow_log(queries, saga_id) if follow else queries.whole_log(saga_id)
        async for line in lines:
            print_line(line, json)


def verify(data_dir: DataDir = None, json: Json = False) -> int:
    """Read the databases, and prove that nothing was lost and nothing happened twice."""
    return asyncio.run(_verify(settings_of(data_dir), json))


async def _verify(settings: Settings, json: bool) -> int:
    async with open_verifier(settings) as verifier:
        bar, task = console.progress("verifying", await verifier.count())
        with bar:
            findings = [finding async for finding in verifier.findings(lambda more: bar.advance(task, more))]
            buried = await verifier.dead_letters()
    if json:
        console.print_json({"sagas": verifier.sagas, "violations": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            console.out().print(Text.assemble((finding.check, "bold red"), f": {finding.message}"))
            console.out().print(f"    rows: {', '.join(finding.rows)}", style="dim", markup=False)
        for role, count in buried.items():
            console.say(f"note: {count:,} messages could not be handled by {role}: `saga dlq ls --role {role}`")
        verdict = counted(len(findings), "violation") if findings else "no violations"
        console.say(f"{counted(verifier.sagas, 'saga')} verified against 4 databases: {verdict}")
    return Exit.VIOLATION if findings else Exit.OK
