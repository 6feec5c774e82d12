"""`saga ls`, `get`, `log`, `verify`: see what happened, and prove that it was right."""

import asyncio
import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer
from rich.text import Text

from orchestrator.cli import console
from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.follow import follow_log, print_line
from orchestrator.cli.options import DataDir, Json, SagaId, settings_of
from orchestrator.composition import open_queries, open_verifier
from orchestrator.queries import Filter, SagaView, StepView, to_json
from orchestrator.settings import Settings

STATUSES: Final = ("running", "compensating", "completed", "compensated", "stuck")
WIDTH: Final = 32


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command("ls")(ls)
    app.command("get")(get)
    app.command("log")(log)
    app.command("verify")(verify)


def ls(
    status: Annotated[list[str] | None, typer.Option("--status", "-s", help="Only these; may be repeated.")] = None,
    definition: Annotated[list[str] | None, typer.Option("--type", "-t", help="Only these sagas.")] = None,
    older: Annotated[str | None, typer.Option("--older-than", metavar="AGE", help="As in 90s, 5m, 2h, 1d.")] = None,
    newer: Annotated[str | None, typer.Option("--newer-than", metavar="AGE", help="As in 90s, 5m, 2h, 1d.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most, the newest first.")] = 50,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """List sagas, the newest first."""
    unknown = sorted(set(status or ()) - set(STATUSES))
    if unknown:
        raise Failure(f"{unknown[0]!r} is no status: there is {', '.join(STATUSES)}", Exit.USAGE)
    now = datetime.now(UTC)
    wanted = Filter(
        statuses=status or (),
        definitions=definition or (),
        started_before=now - _age(older) if older else None,
        started_after=now - _age(newer) if newer else None,
        limit=limit,
    )
    asyncio.run(_ls(settings_of(data_dir), wanted, now, json))


async def _ls(settings: Settings, wanted: Filter, now: datetime, json: bool) -> None:
    async with open_queries(settings) as queries:
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
            console.duration(one.duration),
            one.reason or "",
        )
        for one in found
    )
    columns = ("saga", "type", "status", "steps", "started", "took", "reason")
    console.out().print(console.table(columns, rows, right=("took",)))
    totals = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))
    console.say(f"in all: {totals}" if totals else "no sagas yet")


def get(saga: SagaId, data_dir: DataDir = None, json: Json = False) -> None:
    """One saga: its steps, attempts, durations, and a timeline."""
    asyncio.run(_get(settings_of(data_dir), saga, json))


async def _get(settings: Settings, saga: str, json: bool) -> None:
    now = datetime.now(UTC)
    async with open_queries(settings) as queries:
        view = await queries.get(await queries.find(saga), now)
    if json:
        console.print_json(to_json(view))
        return
    summary, printer = view.summary, console.out()
    head = Text.assemble((summary.id, "bold"), "  ", summary.definition, f" v{view.version}  ")
    printer.print(head.append_text(console.status_text(summary.status)))
    printer.print(f"started {console.day(summary.started_at)}, took {console.duration(summary.duration)}", style="dim")
    if summary.key:
        printer.print(f"key {summary.key}", style="dim", markup=False)
    if summary.reason:
        printer.print(summary.reason, markup=False)
    printer.print()
    columns = ("step", "kind", "by", "status", "asked", "took", "timeline", "")
    rows = (_step_row(step, view, now) for step in view.steps)
    printer.print(console.table(columns, rows, right=("asked", "took")))
    if summary.status == "stuck":
        console.say(f"a person must act. When the cause is gone: saga retry {summary.id} --reason '…'")


def _step_row(step: StepView, view: SagaView, now: datetime) -> tuple[str | Text, ...]:
    asked = f"{step.attempts}" + (f"+{step.undo_attempts}" if step.undo_attempts else "")
    end = step.undone_at or step.answered_at or (now if step.asked_at else None)
    took = console.duration((end - step.asked_at).total_seconds()) if end and step.asked_at else ""
    return (
        step.name,
        step.kind,
        step.participant,
        console.status_text(step.status),
        asked,
        took,
        _timeline(step, view, now),
        step.note or "",
    )


def _timeline(step: StepView, view: SagaView, now: datetime) -> Text:
    """Where in the saga's life the step was under way (━), done and in force (─), being undone (╍)."""
    begin = view.summary.started_at
    whole = max(((view.ended_at or now) - begin).total_seconds(), 1e-6)

    def column(at: datetime | None, default: int) -> int:
        return default if at is None else min(WIDTH - 1, int((at - begin).total_seconds() / whole * WIDTH))

    if step.asked_at is None:
        return Text(" " * WIDTH)
    asked = column(step.asked_at, 0)
    answered = column(step.answered_at, column(step.undo_asked_at, WIDTH - 1))
    undo = column(step.undo_asked_at, WIDTH)
    undone = column(step.undone_at, WIDTH - 1)
    in_force = step.status in ("done", "undoing", "undo-refused", "undone")
    text = Text(" " * asked)
    text.append("━" * (answered - asked + 1), "green" if in_force else "yellow")
    if undo < WIDTH:
        text.append("─" * max(0, undo - answered - 1), "dim")
        text.append("╍" * max(1, undone - max(undo, answered + 1) + 1), "yellow")
    return text


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
            console.say(f"note: {count:,} messages could not be handled by {role}: see its table dead_letters")
        verdict = f"{len(findings)} violations" if findings else "no violations"
        console.say(f"{verifier.sagas:,} sagas verified against 4 databases: {verdict}")
    return Exit.VIOLATION if findings else Exit.OK


def _age(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None:
        raise Failure(f"{text!r} is no age: write it like 90s, 5m, 2h or 1d", Exit.USAGE)
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2]]
    return timedelta(**{unit: float(match[1])})
