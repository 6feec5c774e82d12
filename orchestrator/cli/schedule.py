"""`saga schedule`: sagas that begin by the clock. What a person starts of them is in `backfill`."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from typing import Annotated, Any, Final

import orjson
import typer
from rich.text import Text

from orchestrator.cli import console
from orchestrator.cli.backfill import Name, backfill, trigger
from orchestrator.cli.options import DataDir, Json, definition_of, settings_of
from orchestrator.cli.ordering import By
from orchestrator.cli.values import json_object, person
from orchestrator.composition import open_client
from orchestrator.cron import BadCron, Missed
from orchestrator.schedules import PastRun, Schedule, Schedules, Spec, rfc3339
from orchestrator.settings import Settings
from outbox.moments import duration

UPCOMING: Final = 5
RECENT: Final = 10


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    family = typer.Typer(no_args_is_help=True, help="Sagas that begin by the clock.")
    for name, command in (
        ("create", create),
        ("ls", ls),
        ("show", show),
        ("pause", pause),
        ("resume", resume),
        ("trigger", trigger),
        ("backfill", backfill),
        ("rm", rm),
    ):
        family.command(name)(command)
    app.add_typer(family, name="schedule")


# --- keeping ---------------------------------------------------------------------------------------------------


def create(
    name: Name,
    saga: Annotated[str, typer.Argument(metavar="SAGA", help="Which saga, as in place-order.")],
    cron: Annotated[str, typer.Option(help="Minute, hour, day, month, weekday, as in '0 3 * * *'.")],
    file: Annotated[
        str, typer.Option("--input", "-i", metavar="FILE|-", help="One JSON object; {scheduled_at} becomes the time.")
    ],
    timezone: Annotated[str, typer.Option(metavar="ZONE", help="The clock it goes by, as in Europe/Berlin.")] = "UTC",
    missed: Annotated[
        Missed, typer.Option(help="Of times that passed while nobody ran: run none, one, or all.")
    ] = "once",
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of the one that has this name.")] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Let a saga begin by the clock.

    A time is missed when the next one has come too, or when it is more than 60 s ago. With `--missed once` the latest
    of the missed times is run; with `all` each of them is, in order.

    A time of day that the clocks leap over in spring is run right after the gap, and one that comes twice in
    autumn is run once. What says how often (a * in minute or hour) goes by the time that really passes.
    """
    settings = settings_of(data_dir)
    definition_of(settings, saga)
    spec = Spec(name, saga, json_object("--input", file if file == "-" else f"@{file}"), cron, timezone, missed)
    asyncio.run(_create(settings, spec, replace, json))


async def _create(settings: Settings, spec: Spec, replace: bool, json: bool) -> None:
    async with open_client(settings) as client:
        schedules = Schedules(client.engine)
        schedule = await (schedules.replace(spec) if replace else schedules.create(spec))
    if json:
        console.print_json(asdict(schedule))
    elif schedule.paused:
        console.say(f"schedule {spec.name} is kept, and still paused by {schedule.paused_by}")
    else:
        console.say(f"schedule {spec.name} is kept; its next time is {_local(schedule.next_at, schedule)}")


def pause(
    name: Name,
    by: By = None,
    data_dir: DataDir = None,
) -> None:
    """Start no more sagas by the clock. What passes meanwhile is left out."""
    before = asyncio.run(_pause(settings_of(data_dir), name, person(by)))
    console.say(f"schedule {name} was paused already, by {before.paused_by}" if before.paused else f"{name} is paused")


async def _pause(settings: Settings, name: str, by: str) -> Schedule:
    async with open_client(settings) as client:
        return await Schedules(client.engine).pause(name, by)


def resume(name: Name, data_dir: DataDir = None) -> None:
    """Go on with the next time that is to come."""
    before, schedule = asyncio.run(_resume(settings_of(data_dir), name))
    if not before.paused:
        console.say(f"schedule {name} was not paused")
        return
    console.say(f"schedule {name} goes on; its next time is {_local(schedule.next_at, schedule)}")
    if before.next_at is not None and schedule.next_at != before.next_at:
        since = rfc3339(before.next_at)
        console.say(f"left out is what has come since {since}; to make up for it:")
        console.say_command(console.paste("schedule", "backfill", name, "--from", since, data_dir=data_dir))


async def _resume(settings: Settings, name: str) -> tuple[Schedule, Schedule]:
    async with open_client(settings) as client:
        schedules = Schedules(client.engine)
        return await schedules.resume(name), await schedules.get(name)


def rm(name: Name, data_dir: DataDir = None) -> None:
    """Forget a schedule. The sagas that it has started stay, and go on."""
    asyncio.run(_rm(settings_of(data_dir), name))
    console.say(f"schedule {name} is removed")


async def _rm(settings: Settings, name: str) -> None:
    async with open_client(settings) as client:
        await Schedules(client.engine).remove(name)


# --- looking ---------------------------------------------------------------------------------------------------


def ls(data_dir: DataDir = None, json: Json = False) -> None:
    """List schedules: when their next time is, and which of them are late."""
    asyncio.run(_ls(settings_of(data_dir), json))


async def _ls(settings: Settings, json: bool) -> None:
    async with open_client(settings) as client:
        schedules = Schedules(client.engine)
        found = [(schedule, _state(schedules, schedule)) for schedule in await schedules.ls()]
    if json:
        console.print_json([asdict(schedule) | state for schedule, state in found])
        return
    rows = (
        (
            schedule.name,
            schedule.definition,
            _word(schedule, state),
            _local(schedule.next_at, schedule),
            schedule.cron,
            schedule.timezone,
        )
        for schedule, state in found
    )
    console.out().print(
        console.table(("schedule", "saga", "state", "next", "cron", "time zone"), rows, spare=("time zone", "saga"))
    )
    for schedule, state in found:
        if note := _note(schedule, state):
            console.say(f"{schedule.name}: {note}")
    if not found:
        console.say("no schedules yet")


def show(name: Name, data_dir: DataDir = None, json: Json = False) -> None:
    """One schedule: what it starts, its next times, and what became of the last ones."""
    asyncio.run(_show(settings_of(data_dir), name, json))


async def _show(settings: Settings, name: str, json: bool) -> None:
    async with open_client(settings) as client:
        schedules = Schedules(client.engine)
        schedule = await schedules.get(name)
        state, runs = _state(schedules, schedule), await schedules.past_runs(schedule, RECENT)
    upcoming = _upcoming(schedule)
    if json:
        more = {"upcoming": [rfc3339(at) for at in upcoming], "runs": [asdict(run) for run in runs]}
        console.print_json(asdict(schedule) | state | more)
        return
    _print_head(schedule, state)
    if upcoming:
        console.out().print("\nnext " + "\n     ".join(_local(at, schedule) for at in upcoming))
    _print_runs(runs)


def _print_head(schedule: Schedule, state: dict[str, Any]) -> None:
    printer = console.out()
    printer.print(Text.assemble((schedule.name, "bold"), "  ", schedule.definition, "  ", _word(schedule, state)))
    if note := _note(schedule, state):
        printer.print(note, markup=False)
    printer.print(f"{schedule.cron} in {schedule.timezone}, missed times: {schedule.missed}", style="dim", markup=False)
    if schedule.last_at is not None:
        printer.print(f"last run by the clock: {_local(schedule.last_at, schedule)}", style="dim", markup=False)
    printer.print(f"input {orjson.dumps(schedule.input).decode()}", style="dim", markup=False)


def _print_runs(runs: Sequence[PastRun]) -> None:
    rows = (
        (
            run.scheduled_at,
            run.saga_id,
            console.status_text(run.status),
            console.day(run.started_at),
            duration((run.ended_at - run.started_at).total_seconds()) if run.ended_at else "",
        )
        for run in runs
    )
    if runs:
        columns = ("time", "saga", "status", "started", "took")
        console.out().print()
        console.out().print(console.table(columns, rows, right=("took",), spare=("took", "started")))
    else:
        console.say("no runs yet")


def _upcoming(schedule: Schedule) -> list[datetime]:
    """The next times, those that are late first. A paused schedule has none, nor has one that cannot be read."""
    if schedule.paused or schedule.next_at is None:
        return []
    try:
        return [schedule.next_at, *islice(schedule.times().after(schedule.next_at), UPCOMING - 1)]
    except BadCron:
        return [schedule.next_at]


def _state(schedules: Schedules, schedule: Schedule) -> dict[str, Any]:
    return {"late": schedules.is_late(schedule), "problem": schedules.problem(schedule)}


def _word(schedule: Schedule, state: dict[str, Any]) -> Text:
    """A schedule's state."""
    if schedule.paused:
        return Text("paused", "yellow")
    return Text("late", "red") if state["late"] else Text("on", "green")


def _note(schedule: Schedule, state: dict[str, Any]) -> str:
    """What is to be said about a schedule's state."""
    notes = [f"paused by {schedule.paused_by}"] if schedule.paused else []
    if state["problem"]:
        notes.append(state["problem"])
    elif state["late"]:
        notes.append("no orchestrator has dealt with its time: see that one runs, and what it logs")
    return "; ".join(notes)


def _local(at: datetime | None, schedule: Schedule) -> str:
    """A time as the schedule's own clock shows it."""
    if at is None:
        return ""
    try:
        return f"{at.astimezone(schedule.times().zone):%Y-%m-%d %H:%M %Z}"
    except BadCron:
        return f"{at:%Y-%m-%d %H:%M %Z}"
