"""`saga schedule trigger` and `backfill`: sagas of a schedule that a person starts."""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, date, datetime, time, tzinfo
from typing import Annotated, Final

import typer

from orchestrator.cli import console
from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.options import DataDir, Json, settings_of
from orchestrator.cli.publish import publish, publishing
from orchestrator.composition import Client, open_client
from orchestrator.schedules import Run, Schedules, rfc3339
from orchestrator.settings import Settings

SAFE: Final = "What is started is safe in the database and goes on when NATS is back."
YEARS: Final = range(1970, 3000)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]


def trigger(name: Name, data_dir: DataDir = None, json: Json = False) -> int:
    """Start a schedule's saga now, whether it is paused or not. Its time is this second."""
    return asyncio.run(_trigger(settings_of(data_dir), name, json))


async def _trigger(settings: Settings, name: str, json: bool) -> int:
    async with open_client(settings) as client:
        run = await Schedules(client.engine).trigger(name)
        await publish(client, SAFE)
    if json:
        console.print_json(asdict(run))
    else:
        console.out().print(run.saga_id)
    return _exit(Counter([run.outcome]))


def backfill(
    name: Name,
    since: Annotated[str, typer.Option("--from", metavar="TIME", help="As in 2026-03-29, or 2026-03-29T03:00.")],
    until: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="A day means to its end; now when left out.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be started.")] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> int:
    """Start a saga for every time of a schedule in a stretch of the past, unless it has one.

    Times without an offset are in the schedule's zone. It can be stopped and run again: what has been started is not
    started twice, as long as its saga has not been pruned.
    """
    return asyncio.run(_backfill(settings_of(data_dir), name, (since, until), dry_run, json))


async def _backfill(settings: Settings, name: str, stretch: tuple[str, str | None], dry: bool, json: bool) -> int:
    async with open_client(settings) as client:
        begin, end = await _stretch(client, name, *stretch)
        counts: Counter[str] = Counter()
        bar, task = console.progress(f"backfilling {name}", (end - begin).total_seconds())
        async with nullcontext() if dry else publishing(client, SAFE):
            with nullcontext() if dry else bar:
                async for runs in Schedules(client.engine).backfill(name, begin, end, dry=dry):
                    counts.update(run.outcome for run in runs)
                    _report(runs, dry, json)
                    done = datetime.fromisoformat(runs[-1].scheduled_at) - begin
                    bar.update(task, completed=done.total_seconds(), count=f"{counts.total():,}")
    said = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(counts.items()))
    console.say(said or f"{name} has no time from {rfc3339(begin)} to {rfc3339(end)}")
    return _exit(counts)


async def _stretch(client: Client, name: str, since: str, until: str | None) -> tuple[datetime, datetime]:
    schedule, now = await Schedules(client.engine).get(name), client.engine.outbox.clock.now()
    zone = schedule.times().zone
    begin, end = _moment("--from", since, zone), _moment("--to", until, zone, last=True) if until else now
    if begin > end:
        raise Failure(f"--from {since} is later than {f'--to {until}' if until else 'now'}", Exit.USAGE)
    return begin, max(begin, min(end, now))


def _report(runs: Sequence[Run], dry: bool, json: bool) -> None:
    for run in runs:
        if json:
            console.print_json(asdict(run))
        elif dry or not sys.stdout.isatty():  # a thousand lines are for a pipe
            console.out().print(f"{run.scheduled_at}  {run.outcome:<11}  {run.saga_id or ''}".rstrip())


def _exit(outcomes: Counter[str]) -> Exit:
    if not outcomes["conflict"]:
        return Exit.OK
    console.say("conflict: the time has a saga with another input; it stays as it is")
    return Exit.CONFLICT


def _moment(option: str, text: str, zone: tzinfo, *, last: bool = False) -> datetime:
    """A day means its beginning, or its `last` moment. Raises Failure."""
    try:
        moment = _whole_day(text, last) or datetime.fromisoformat(text)
    except ValueError:
        forms = "2026-03-29, 2026-03-29T03:00 or 2026-03-29T01:00Z"
        raise Failure(f"{option} {text!r} is no time: write it like {forms}", Exit.USAGE) from None
    if moment.year not in YEARS:
        raise Failure(f"{option} {text!r} is not between the years {YEARS[0]} and {YEARS[-1]}", Exit.USAGE)
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)


def _whole_day(text: str, last: bool) -> datetime | None:
    try:
        return datetime.combine(date.fromisoformat(text), time.max if last else time.min)
    except ValueError:
        return None
