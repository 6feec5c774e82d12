"""`saga explore`: every way in which a saga can go, up to a bound."""

from dataclasses import asdict
from typing import Annotated

import typer

from orchestrator.cli import console
from orchestrator.cli.exits import Exit
from orchestrator.cli.options import Json, definition_of
from orchestrator.explorer import Bounds, Explorer
from orchestrator.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command("explore")(explore)


def explore(
    saga: Annotated[str, typer.Argument(help="Which saga, as in place-order.")],
    attempts: Annotated[int, typer.Option(min=1, max=5, help="Askings before a policy is spent.")] = 2,
    retries: Annotated[int, typer.Option(min=0, max=3, help="A person's retries of a stuck saga.")] = 1,
    states: Annotated[int, typer.Option(min=1, help="Give up after so many states.")] = 500_000,
    json: Json = False,
) -> int:
    """Try every order of answers, refusals, losses, delays, timeouts and retries, and look for a broken promise."""
    definition = definition_of(load_settings(), saga)
    with console.err().status(f"exploring {saga}"):
        found = Explorer(definition, Bounds(attempts, retries, states)).explore()
    if json:
        console.print_json(asdict(found))
    else:
        ends = ", ".join(f"{count:,} {end}" for end, count in sorted(found.ends.items()))
        console.out().print(f"{found.states:,} states, {found.transitions:,} transitions; ends: {ends}")
    if not found.exhausted:
        console.say(f"not everything was seen: there are more than {states:,} states; lower --attempts or --retries")
    if found.counterexample is None:
        console.say("no promise is broken" if found.exhausted else "no promise is broken as far as was seen")
        return Exit.OK if found.exhausted else Exit.ERROR
    console.say(f"broken: {found.counterexample.promise}")
    for number, label in enumerate(found.counterexample.path, 1):
        console.say(f"  {number}. {label}")
    return Exit.VIOLATION
