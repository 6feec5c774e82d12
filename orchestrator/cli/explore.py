"""`saga explore`: every way in which a saga can go, up to a bound; what breaks a promise is printed as a test."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from orchestrator.cli import console
from orchestrator.cli.exits import Exit
from orchestrator.cli.options import Json, definition_of
from orchestrator.definition import Saga
from orchestrator.explorer import Bounds, Exploration, Explorer, as_test
from orchestrator.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command("explore")(explore)


def explore(
    saga: Annotated[str, typer.Argument(help="Which saga, as in place-order.")],
    attempts: Annotated[int, typer.Option(min=1, max=5, help="Askings before a policy is spent.")] = 2,
    orders: Annotated[int, typer.Option(min=0, max=5, help="What people order: cancel, pause, retry, resolve.")] = 1,
    items: Annotated[int, typer.Option(min=1, max=5, help="Items of a step that runs over a list.")] = 2,
    states: Annotated[int, typer.Option(min=1, help="Give up after so many states.")] = 100_000,
    json: Json = False,
) -> int:
    """Try every order of answers, refusals, losses, timeouts, signals and orders, and look for a broken promise.

    The saga's shape is explored, not its functions. A broken promise is printed as a test, ready to be pasted.
    """
    definition, bounds = definition_of(load_settings(), saga), Bounds(attempts, orders, items, states)
    found = _explore(definition, bounds)
    test = as_test(definition, bounds, found.counterexample) if found.counterexample else None
    if json:
        console.print_json(_as_json(definition, bounds, found, test))
    else:
        ends = ", ".join(f"{count:,} {end}" for end, count in sorted(found.ends.items())) or "none was met"
        console.out().print(f"{found.states:,} states, {found.transitions:,} transitions; ends: {ends}")
        if test is not None:
            console.out().print(f"\n{test}", markup=False, soft_wrap=True)
    return _judge(found, bounds)


def _explore(definition: Saga[Any], bounds: Bounds) -> Exploration:
    bar, task = console.progress(f"exploring {definition.name}", None)
    with bar:
        return Explorer(definition, bounds).explore(
            lambda looked_at, known: bar.update(task, count=f"{looked_at:,} states looked at, {known:,} known")
        )


def _judge(found: Exploration, bounds: Bounds) -> int:
    """Say what was found. Returns the exit code."""
    if found.counterexample is not None:
        console.say(f"broken: {found.counterexample.promise}")
        for number, label in enumerate(found.counterexample.path, 1):
            console.say(f"  {number}. {label}")
        return Exit.VIOLATION
    if not found.exhausted:
        console.say(
            f"no promise is broken as far as was seen, and not everything was: there are more than {bounds.states:,} "
            "states; lower --attempts or --orders, or raise --states"
        )
        return Exit.ERROR
    console.say("no promise is broken")
    return Exit.OK


def _as_json(definition: Saga[Any], bounds: Bounds, found: Exploration, test: str | None) -> dict[str, Any]:
    broken = found.counterexample
    return {
        "saga": definition.name,
        "bounds": asdict(bounds),
        "states": found.states,
        "transitions": found.transitions,
        "ends": found.ends,
        "exhausted": found.exhausted,
        "counterexample": {"promise": broken.promise, "path": broken.path, "test": test} if broken else None,
    }
