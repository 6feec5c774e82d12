"""Options that several commands share."""

import re
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from orchestrator.cli.console import say
from orchestrator.cli.exits import Exit, Failure
from orchestrator.composition import load_definitions
from orchestrator.definition import Saga
from orchestrator.settings import Settings, load_settings, without_password

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Where `saga dev` keeps its data.", show_default=".amends"),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for scripts.")]
SagaId = Annotated[str, typer.Argument(metavar="ID", help="A saga's id, the beginning or end of it, or its key.")]

LONGEST_AGE: Final = timedelta(days=36_500)


def definition_of(settings: Settings, saga: str) -> Saga[Any]:
    """The newest definition of this name. Raises Failure."""
    definitions = load_definitions(settings)
    if saga not in definitions:
        raise Failure(f"there is no saga {saga!r}: there is {', '.join(definitions)}", Exit.NOT_FOUND)
    return definitions[saga]


def settings_of(data_dir: Path | None) -> Settings:
    """The settings of a command. It is told when they let --data-dir have no say."""
    settings = load_settings(**({"data_dir": data_dir} if data_dir else {}))
    if data_dir is not None and (given := settings.orchestrator_database_url):
        where = without_password(given)
        say(f"--data-dir does not say where the sagas are: SAGA_ORCHESTRATOR_DATABASE_URL does ({where})")
    return settings


def age(text: str) -> timedelta:
    """`90s`, `5m`, `2h`, `1d` as a length of time. Raises Failure."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None:
        raise Failure(f"{text!r} is no age: write it like 90s, 5m, 2h or 1d", Exit.USAGE)
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2]]
    with suppress(OverflowError):
        if (length := timedelta(**{unit: float(match[1])})) <= LONGEST_AGE:
            return length
    raise Failure(f"{text!r} is longer than {LONGEST_AGE.days:,} days, before which there was no saga", Exit.USAGE)
