"""`saga get`: everything about one saga, and what a person can do about it."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from rich.text import Text

from orchestrator.cli import console
from orchestrator.cli.advice import Advice, Awaited, advice, awaited
from orchestrator.cli.options import DataDir, Json, SagaId, settings_of
from orchestrator.composition import Client, open_client
from orchestrator.definition import base_name, item_index
from orchestrator.queries import SagaView, StepView, to_json
from orchestrator.settings import Settings
from outbox.moments import duration

WIDTH: Final = 32
"""Columns of the timeline."""

MOST_INSTANCES: Final = 12
"""Instances of one step that are shown one by one, whatever has become of them."""

SETTLED: Final = frozenset({"pending", "done", "undone", "skipped"})


@dataclass(frozen=True, slots=True)
class Shown:
    """One saga with what belongs to it."""

    view: SagaView
    now: datetime
    relatives: dict[str, str]
    """The ids of its parent and its children -> their statuses. Who is not there is no saga of ours."""

    awaits: list[Awaited]
    advice: list[Advice]
    is_loaded: bool


def get(saga: SagaId, data_dir: DataDir = None, json: Json = False) -> None:
    """One saga: its steps, attempts, durations, a timeline, and what to do about it."""
    asyncio.run(_get(settings_of(data_dir), saga, data_dir, json))


async def _get(settings: Settings, saga: str, data_dir: Path | None, json: bool) -> None:
    async with open_client(settings) as client:
        shown = await _look(client, await client.queries.find(saga))
    if json:
        console.print_json(_to_json(shown, data_dir))
        return
    console.out().print(_head(shown))
    for line in _facts(shown):
        console.out().print(line, style="dim", markup=False)
    if shown.view.summary.reason:
        console.out().print(shown.view.summary.reason, markup=False)
    console.out().print()
    columns = ("step", "kind", "by", "status", "asked", "took", "timeline", "")
    console.out().print(console.table(columns, _rows(shown), right=("asked", "took"), spare=("timeline", "kind", "by")))
    _advise(shown, data_dir)


async def _look(client: Client, saga_id: str) -> Shown:
    now = client.engine.outbox.clock.now()
    view, state = await client.queries.get(saga_id, now), await client.queries.state(saga_id)
    definition = client.definitions.by_fingerprint.get(state.fingerprint)
    relatives = await client.queries.statuses([*view.children.values(), *([view.parent] if view.parent else [])])
    if definition is None:
        return Shown(view, now, relatives, [], [], is_loaded=False)
    return Shown(view, now, relatives, awaited(definition, state), advice(definition, state, now), is_loaded=True)


def _to_json(shown: Shown, data_dir: Path | None) -> dict[str, Any]:
    since = {step.name: step.asked_at for step in shown.view.steps}
    awaits = [
        {
            "step": one.step,
            "since": since.get(one.step),
            "until": one.until,
            "commands": [console.paste(*command, data_dir=data_dir) for command in one.commands],
        }
        for one in shown.awaits
    ]
    advised = [{"when": one.when, "command": console.paste(*one.command, data_dir=data_dir)} for one in shown.advice]
    return to_json(shown.view) | {"awaits": awaits, "next": advised}


# --- above the table -----------------------------------------------------------------------------------------------


def _head(shown: Shown) -> Text:
    summary = shown.view.summary
    head = Text.assemble((summary.id, "bold"), "  ", summary.definition, f" v{shown.view.version}  ")
    return head.append_text(console.status_text(summary.status))


def _facts(shown: Shown) -> Iterator[str]:
    """What there is to say besides the steps, a line each."""
    view, summary = shown.view, shown.view.summary
    yield f"started {console.day(summary.started_at)}, took {duration(summary.duration)}"
    if summary.key:
        yield f"key {summary.key}"
    if view.labels:
        yield "labels " + ", ".join(f"{name}={value}" for name, value in view.labels.items())
    if view.priority:
        yield f"priority {view.priority}"
    if summary.status == "waiting" and view.begins_at is not None:
        yield _waiting(view.begins_at, shown.now)
    if view.deadline_at is not None and summary.status in ("running", "stuck", "paused"):
        yield f"deadline {console.day(view.deadline_at)}: if it is not past its pivot then, it turns back"
    if view.paused_by:
        yield f"paused by {view.paused_by}"
    yield from _family(shown)


def _waiting(begins_at: datetime, now: datetime) -> str:
    return f"begins at {console.day(begins_at)}" if begins_at > now else "begins when there is room for it"


def _family(shown: Shown) -> Iterator[str]:
    view = shown.view
    if view.fork_of:
        yield f"fork of {view.fork_of}"
    if view.parent:
        status = shown.relatives.get(view.parent)
        yield f"parent {view.parent} ({status})" if status else f"started by the command of {view.parent}"
    for step, child in view.children.items():
        yield f"child {child} of step {step} ({shown.relatives.get(child, '?')})"


# --- the table ---------------------------------------------------------------------------------------------------


def _rows(shown: Shown) -> Iterator[tuple[str | Text, ...]]:
    for name, group in groupby(shown.view.steps, key=lambda step: base_name(step.name)):
        steps = list(group)
        if item_index(steps[0].name) is None:
            yield _row(steps[0], steps[0].name, shown)
        else:
            yield from _instance_rows(name, steps, shown)


def _instance_rows(name: str, steps: Sequence[StepView], shown: Shown) -> Iterator[tuple[str | Text, ...]]:
    """A step that has instances: a row for all, and below it a row for each, or for each that is worth one."""
    counts = ", ".join(f"{count} {status}" for status, count in Counter(step.status for step in steps).items())
    asked = _times(sum(step.attempts for step in steps), sum(step.undo_attempts for step in steps))
    yield name, steps[0].kind, steps[0].participant, f"{len(steps)}: {counts}", asked, "", "", ""
    few = len(steps) <= MOST_INSTANCES
    for step in steps:
        if few or step.status not in SETTLED or step.note:
            yield _row(step, f"  [{item_index(step.name)}]", shown)


def _row(step: StepView, name: str, shown: Shown) -> tuple[str | Text, ...]:
    end = step.undone_at or step.answered_at or (shown.now if step.asked_at else None)
    took = duration((end - step.asked_at).total_seconds()) if end and step.asked_at else ""
    return (
        name,
        step.kind,
        step.participant,
        console.status_text(step.status),
        _times(step.attempts, step.undo_attempts),
        took,
        _timeline(step, shown.view, shown.now),
        step.note or "",
    )


def _times(attempts: int, undo_attempts: int) -> str:
    return f"{attempts}" + (f"+{undo_attempts}" if undo_attempts else "")


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


# --- below the table -------------------------------------------------------------------------------------------------


def _advise(shown: Shown, data_dir: Path | None) -> None:
    """What is waited for, and what a person can do: on stderr, for it is not data."""
    since = {step.name: step.asked_at for step in shown.view.steps}
    for one in shown.awaits:
        begun = since.get(one.step)
        told = f"waits for the signal {one.step}" + (f" since {console.day(begun)}" if begun else "")
        console.say(f"{told}, until {console.day(one.until)}:" if one.until else f"{told}:")
        for command in one.commands:
            console.say_command(console.paste(*command, data_dir=data_dir))
    status = shown.view.summary.status
    if status == "stuck":
        console.say("a person must act.")
    if status in ("stuck", "paused") and not shown.is_loaded:
        console.say("its definition is not loaded here: name its module in SAGA_DEFINITIONS to see what can be done")
    for advised in shown.advice:
        console.say(f"{advised.when}:")
        console.say_command(console.paste(*advised.command, data_dir=data_dir))
