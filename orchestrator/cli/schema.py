"""`saga db`: the schemas of the four databases. Alembic is loaded when it is needed: it takes a while."""

import asyncio
from typing import Annotated

import structlog
import typer

from orchestrator.cli import console
from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.options import DataDir, Json, settings_of
from orchestrator.composition import open_database
from orchestrator.settings import ROLES, Settings

log = structlog.get_logger()

Roles = Annotated[list[str] | None, typer.Argument(metavar="[ROLE]...", help="All of them when left out.")]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    db = typer.Typer(no_args_is_help=True, help="The schemas of the four databases.")
    db.command("upgrade")(db_upgrade)
    db.command("current")(db_current)
    db.command("check")(db_check)
    app.add_typer(db, name="db")


async def upgrade_all(settings: Settings) -> None:
    """Bring every database to this release."""
    for role, revisions in (await _upgrade(settings, list(ROLES))).items():
        if revisions:
            log.info("database upgraded", role=role, revision=revisions[-1])


def db_upgrade(roles: Roles = None, data_dir: DataDir = None) -> None:
    """Bring the databases to this release. Safe to run again, and by several at once."""
    for role, done in asyncio.run(_upgrade(settings_of(data_dir), _checked(roles))).items():
        console.say(f"{role}: upgraded to {done[-1]}" if done else f"{role}: nothing to do")


async def _upgrade(settings: Settings, roles: list[str]) -> dict[str, list[str]]:
    from migrations.runner import upgrade

    done = {}
    for role in roles:
        database = open_database(settings, role, must_exist=False)
        try:
            done[role] = await upgrade(database, role)
        finally:
            await database.close()
    return done


def db_current(roles: Roles = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Which revision each database is at, and which one this release wants."""
    from migrations.history import head

    found = asyncio.run(_current(settings_of(data_dir), _checked(roles)))
    if json:
        console.print_json([{"role": role, "current": at, "head": head(role)} for role, at in found.items()])
        return
    rows = ((role, at or "empty", head(role)) for role, at in found.items())
    console.out().print(console.table(("database", "is at", "this release"), rows))


async def _current(settings: Settings, roles: list[str]) -> dict[str, str | None]:
    from migrations.runner import current

    found = {}
    for role in roles:
        database = open_database(settings, role, must_exist=False)
        try:
            found[role] = await current(database, role)
        finally:
            await database.close()
    return found


def db_check(roles: Roles = None, data_dir: DataDir = None, json: Json = False) -> int:
    """Whether the databases are as this release wants them; exit 1 when they are not."""
    found = asyncio.run(_check(settings_of(data_dir), _checked(roles)))
    if json:
        console.print_json([{"role": role, "drift": drift} for role, drift in found.items()])
    else:
        for role, drift in found.items():
            for line in drift or ["as this release wants it"]:
                console.out().print(f"{role}: {line}", markup=False)
    return Exit.ERROR if any(found.values()) else Exit.OK


async def _check(settings: Settings, roles: list[str]) -> dict[str, list[str]]:
    from migrations.runner import check

    found = {}
    for role in roles:
        database = open_database(settings, role)
        try:
            found[role] = await check(database, role)
        finally:
            await database.close()
    return found


def _checked(roles: list[str] | None) -> list[str]:
    for role in roles or ():
        if role not in ROLES:
            raise Failure(f"{role!r} is no role: there is {', '.join(ROLES)}", Exit.USAGE)
    return list(roles or ROLES)
