"""`saga definitions`: which sagas this code has, and whether it may take over from the one that is running."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict

import typer
from rich.text import Text

from orchestrator.cli import console
from orchestrator.cli.exits import Exit
from orchestrator.cli.options import DataDir, Json, settings_of
from orchestrator.composition import load_definitions, open_database
from orchestrator.deployment import Finding, Verdict, check, in_flight
from orchestrator.settings import Settings

STYLES = {Verdict.SAFE: "green", Verdict.KEEP: "cyan", Verdict.FREE: "dim", Verdict.STRANDED: "bold red"}


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    family = typer.Typer(no_args_is_help=True, help="The saga definitions of this code.")
    family.command("ls")(ls)
    family.command("check")(check_definitions)
    app.add_typer(family, name="definitions")


def ls(data_dir: DataDir = None, json: Json = False) -> None:
    """Every version of every saga that is loaded (see SAGA_DEFINITIONS)."""
    definitions = load_definitions(settings_of(data_dir))
    found = [
        {
            "definition": saga.name,
            "version": saga.version,
            "fingerprint": saga.fingerprint,
            "newest": definitions[saga.name] is saga,
            "steps": list(saga.steps),
            "participants": sorted(saga.participants),
        }
        for saga in definitions.every
    ]
    if json:
        console.print_json(found)
        return
    rows = (
        (str(one["definition"]), f"v{one['version']}", str(one["fingerprint"]), "yes" if one["newest"] else "", steps)
        for one in found
        if isinstance(one["steps"], list) and (steps := ", ".join(one["steps"]))
    )
    console.out().print(console.table(("saga", "version", "fingerprint", "newest", ""), rows))


def check_definitions(data_dir: DataDir = None, json: Json = False) -> int:
    """Would a deployment of this code strand a saga that is in flight? Exit 4 if it would."""
    findings = asyncio.run(_check(settings_of(data_dir)))
    if json:
        console.print_json([asdict(finding) for finding in findings])
    else:
        _print(findings)
    return Exit.CONFLICT if any(one.verdict is Verdict.STRANDED for one in findings) else Exit.OK


async def _check(settings: Settings) -> list[Finding]:
    database = open_database(settings, "orchestrator")
    try:
        return check(load_definitions(settings), await in_flight(database))
    finally:
        await database.close()


def _print(findings: Sequence[Finding]) -> None:
    rows = (
        (
            one.definition,
            f"v{one.version}",
            one.fingerprint,
            Text(one.verdict.value, STYLES[one.verdict]),
            f"{one.in_flight:,}",
            one.example or "",
            one.advice,
        )
        for one in findings
    )
    columns = ("saga", "version", "fingerprint", "verdict", "in flight", "as in", "")
    console.out().print(console.table(columns, rows, right=("in flight",)))
    stranded = sum(one.in_flight for one in findings if one.verdict is Verdict.STRANDED)
    if stranded:
        console.say(f"do not deploy: {stranded:,} sagas in flight would be left alone for ever")
    else:
        console.say("safe to deploy: every saga in flight has its definition here")
