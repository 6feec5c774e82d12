"""What the how-to pages say can be done: their commands parse, their code runs, their links lead somewhere."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main
from typer.exceptions import TyperException

from orchestrator.cli.main import app

FOLDER = Path(__file__).parents[2] / "docs" / "how-to"
PAGES = {page.name: page.read_text() for page in sorted(FOLDER.glob("*.md"))}
SAGA = typer.main.get_command(app)
INDEX = "README.md"


def blocks(text: str, language: str) -> list[str]:
    """The blocks of code of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    """(page, line) of every `saga …` that a page tells to type."""
    lines = [(name, line) for name, text in PAGES.items() for block in blocks(text, "console") for line in block.splitlines()]
    return [(name, line.removeprefix("$ ")) for name, line in lines if line.startswith("$ saga ")]


def parse(arguments: list[str]) -> None:
    """Read a command line as the program does, and carry nothing out. Raises TyperException."""
    command: Any = SAGA
    context = command.make_context("saga", arguments)
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
