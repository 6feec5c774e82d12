"""`saga signal` and `saga query`: tell a saga what it waits for, and ask it what it knows."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer
from pydantic_core import to_jsonable_python

from orchestrator.bulk import Wish
from orchestrator.cli import console
from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.options import DataDir, Json, SagaId, settings_of
from orchestrator.cli.ordering import By, DryRun, Verb, order_one
from orchestrator.cli.values import json_object, person, reason_of
from orchestrator.composition import Client, open_client
from orchestrator.definition import Action
from orchestrator.definition import Saga as Definition
from orchestrator.engine import NotLoaded
from orchestrator.events import Signalled
from orchestrator.model import Saga
from orchestrator.settings import Settings
from outbox.contracts import kebab_case

SIGNAL: Final = Verb("signal", "signalled", (), "give it with --data JSON")


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command("signal")(signal)
    app.command("query")(query)


def signal(
    saga: SagaId,
    step: Annotated[str, typer.Argument(help="The step that waits for the signal, as `saga get` names it.")],
    data: Annotated[str | None, typer.Option(metavar="JSON|@FILE|-", help="What the signal says.")] = None,
    refuse: Annotated[str | None, typer.Option(metavar="REASON", help="Say no, for this reason.")] = None,
    by: By = None,
    dry_run: DryRun = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> int:
    """Tell a saga what one of its steps waits for: yes, with data, or no. It may come before the step's turn."""
    if data is not None and refuse is not None:
        raise Failure("--refuse says no, so there is no --data to it: give one of them", Exit.USAGE)
    who = person(by)
    if refuse is not None:
        event = Signalled(step, "refused", {"reason": reason_of(refuse, "--refuse")}, who)
    else:
        event = Signalled(step, "done", json_object("--data", data) if data is not None else {}, who)
    return asyncio.run(_signal(settings_of(data_dir), saga, event, dry_run, json))


async def _signal(settings: Settings, saga: str, event: Signalled, dry_run: bool, json: bool) -> int:
    async with open_client(settings) as client:
        state = await client.queries.state(await client.queries.find(saga))
        definition = definition_of_saga(client, state)
        waits = [spec.name for spec in definition.steps.values() if spec.action is Action.WAIT]
        if event.step not in waits:
            there = f"there is {', '.join(waits)}" if waits else "none of its steps does"
            no_step = f"{state.definition} has no step {event.step!r} that waits for a signal"
            raise Failure(f"{no_step}: {there}", Exit.NOT_FOUND)
        return await order_one(client, state.id, SIGNAL, Wish(event), dry_run=dry_run, json=json)


def query(
    saga: SagaId,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Which; all are listed when left out.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Ask a saga: a query of its definition over what the saga knows, as JSON. Nothing is changed."""
    asyncio.run(_query(settings_of(data_dir), saga, name))


async def _query(settings: Settings, saga: str, name: str | None) -> None:
    async with open_client(settings) as client:
        state = await client.queries.state(await client.queries.find(saga))
        definition = definition_of_saga(client, state)
    queries = {kebab_case(getattr(one, "__name__", repr(one))): one for one in definition.queries}
    if name is None:
        _list(state, queries)
        return
    wanted = name.replace("_", "-")
    if wanted not in queries:
        there = f"there is {', '.join(queries)}" if queries else "it has none"
        raise Failure(f"{state.definition} has no query {name!r}: {there}", Exit.NOT_FOUND)
    console.print_json(_answer(definition, state, wanted, queries[wanted]))


def definition_of_saga(client: Client, saga: Saga) -> Definition[Any]:
    """The very definition that a saga began with. Raises NotLoaded."""
    definition = client.definitions.by_fingerprint.get(saga.fingerprint)
    if definition is None:
        raise NotLoaded(
            f"saga {saga.id} began with {saga.definition} v{saga.version} ({saga.fingerprint}), "
            "which is not loaded here: name its module in SAGA_DEFINITIONS"
        )
    return definition


def _list(state: Saga, queries: Mapping[str, Any]) -> None:
    if not queries:
        console.say(f"{state.definition} has no queries")
        return
    rows = ((name, (one.__doc__ or "").strip().partition("\n")[0]) for name, one in queries.items())
    console.out().print(console.table(("query", ""), rows))


def _answer(definition: Definition[Any], state: Saga, name: str, ask: Any) -> Any:
    try:
        return to_jsonable_python(ask(definition.data.model_validate(state.data)))
    except Exception as error:  # the definition's own function: whatever it raises, we say so
        raise Failure(f"the query {name} of {state.definition} failed: {type(error).__name__}: {error}") from error
