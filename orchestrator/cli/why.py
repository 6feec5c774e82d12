"""`saga why`: one sentence that says why a saga is where it is and what would move it, and the command to run."""

import asyncio
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from orchestrator.cli import console
from orchestrator.cli.advice import advice, awaited
from orchestrator.cli.options import DataDir, Json, SagaId, settings_of
from orchestrator.composition import open_client, witness_of
from orchestrator.definition import Saga as Definition
from orchestrator.model import Saga
from orchestrator.settings import Settings, names_nats
from orchestrator.why import Advisor, diagnose
from orchestrator.why.facts import SETTINGS


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("why")(why)


def why(saga: SagaId, data_dir: DataDir = None, json: Json = False) -> None:
    """Why a saga is where it is, what would move it, and the command to run.

    Looks at the saga and its log, at the outboxes and dead letters of all
    services, and at who listens in NATS. What is out of reach is told.
    """
    asyncio.run(_why(settings_of(data_dir), saga, data_dir, json))


async def _why(settings: Settings, saga: str, data_dir: Path | None, json: bool) -> None:
    async with open_client(settings) as client:
        saga_id = await client.queries.find(saga)
        witness = witness_of(settings, client, advisor())
        facts = await witness.facts(saga_id, client.engine.outbox.clock.now())
    found = diagnose(facts)
    command = console.paste(*found.command, data_dir=data_dir)
    if json:
        told = {"saga_id": saga_id, "cause": found.cause, "sentence": found.sentence, "command": command}
        console.print_json(told | {"facts": asdict(facts)})
        return
    console.out().print(found.sentence, markup=False, soft_wrap=True)
    console.out().print(f"  {command}", markup=False, soft_wrap=True)


def _order(definition: Definition[Any], saga: Saga, now: datetime) -> tuple[str, ...]:
    return next((one.command for one in advice(definition, saga, now)), ())


def _signal(definition: Definition[Any], saga: Saga, step: str) -> tuple[str, ...]:
    return next((one.commands[0] for one in awaited(definition, saga) if one.step == step), ())


def advisor() -> Advisor:
    """What there is to be ordered here: NATS comes back with `saga dev` when nobody has named another."""
    return Advisor(_order, _signal, broker=SETTINGS if names_nats() else ("dev",))
