"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.exits import Exit, Failure
from orchestrator.definition import Saga
from orchestrator.sagas import DEFINITIONS
from orchestrator.settings import Settings, load_settings

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Where `saga dev` keeps its data.", show_default=".amends"),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for scripts.")]
SagaId = Annotated[str, typer.Argument(metavar="ID", help="A saga's id, the beginning or end of it, or its key.")]


def definition_of(saga: str) -> Saga[Any]:
    """The definition of this name. Raises Failure."""
    if saga not in DEFINITIONS:
        raise Failure(f"there is no saga {saga!r}: there is {', '.join(DEFINITIONS)}", Exit.NOT_FOUND)
    return DEFINITIONS[saga]


def settings_of(data_dir: Path | None) -> Settings:
    """The settings of a command."""
    return load_settings(**({"data_dir": data_dir} if data_dir else {}))
