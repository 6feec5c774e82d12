"""`saga fork`: run a saga that has ended again, from one of its steps, as a new saga."""

import asyncio
import getpass
from dataclasses import asdict
from typing import Annotated

import typer

from orchestrator import forks
from orchestrator.cli import console
from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.options import DataDir, Json, SagaId, settings_of
from orchestrator.cli.publish import publish
from orchestrator.composition import Client, open_client
from orchestrator.settings import Settings


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command("fork")(fork)


def fork(
    saga: SagaId,
    reason: Annotated[str, typer.Option(help="Why it is run again; goes into the log.")],
    step: Annotated[
        str | None, typer.Option("--from", metavar="STEP", help="Begin there; at the first step when left out.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who orders it; the login name when left out.")] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Run a saga that has ended again, as a new saga. The old one stays as it is.

    As a whole it is the same input once more, with ids of its own.

    From a later step on it is a copy of a completed saga: it speaks of the same ids, and never undoes what came before.
    Its services must be able to do those steps again: stock that is sold is not sold twice.
    """
    asyncio.run(_fork(settings_of(data_dir), saga, step, by or getpass.getuser(), reason, json))


async def _fork(settings: Settings, saga: str, step: str | None, by: str, reason: str, json: bool) -> None:
    async with open_client(settings) as client:
        saga_id = await client.queries.find(saga)
        if step is not None:
            await _check_step(client, saga_id, step)
        try:
            made = await forks.fork(client.engine, saga_id, step, by=by, reason=reason)
        except forks.CannotFork as error:
            raise Failure(f"saga {saga_id} is not run again: {error}", Exit.CONFLICT) from error
        await publish(client, "The new saga is in the database and goes on when NATS is back.")
    if json:
        console.print_json(asdict(made) | {"fork_of": saga_id})
        return
    console.out().print(made.saga_id)
    console.say(f"a copy of saga {saga_id} runs {', '.join(made.steps)}")


async def _check_step(client: Client, saga_id: str, step: str) -> None:
    definition = client.definitions.get((await client.queries.state(saga_id)).definition)
    if definition is not None and step not in definition.steps:
        there = ", ".join(definition.steps)
        raise Failure(f"{definition.name} v{definition.version} has no step {step!r}: it has {there}", Exit.NOT_FOUND)
