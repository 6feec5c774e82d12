"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.exits import Exit, Failure
from orchestrator.composition import load_definitions
from orchestrator.definition import Saga
from orchestrator.settings import Settings, load_settings

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Where `saga dev` keeps its data.", show_default=".amends"),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for scripts.")]
SagaId = Annotated[str, typer.Argument(metavar="ID", help="A saga's id, the beginning or end of it, or its key.")]


def definition_of(settings: Settings, saga: str) -> Saga[Any]:
    """The newest definition of this name. Raises Failure."""
    definitions = load_definitions(settings)
    if saga not in definitions:
        raise Failure(f"there is no saga {saga!r}: there is {', '.join(definitions)}", Exit.NOT_FOUND)
    return definitions[saga]


def settings_of(data_dir: Path | None) -> Settings:
    """The settings of a command."""
    return load_settings(**({"data_dir": data_dir} if data_dir else {}))
