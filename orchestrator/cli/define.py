"""`saga graph`, `saga lint`: look at a definition before it hurts."""

import asyncio
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from orchestrator.cli import console
from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.options import DataDir, Json, settings_of
from orchestrator.composition import load_definitions, open_queries
from orchestrator.engine import UnknownSaga
from orchestrator.graph import Picture, lines, mermaid, picture, svg, text
from orchestrator.lint import Broker, Hazard
from orchestrator.lint import lint as hazards_of
from orchestrator.registry import Definitions
from orchestrator.settings import Settings
from outbox.errors import DatabaseOutOfReach
from outbox.numbers import counted
from outbox.topology import KEPT_FOR


class Format(StrEnum):
    """How a saga can be drawn."""

    TEXT = "text"
    MERMAID = "mermaid"
    SVG = "svg"


DRAWN_AS: Final = {Format.TEXT: text, Format.MERMAID: mermaid, Format.SVG: svg}
PLAIN: Final = ("bold", "dim")
MEANT_BY: Final = {".svg": Format.SVG, ".mmd": Format.MERMAID, ".mermaid": Format.MERMAID, ".txt": Format.TEXT}


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command("graph")(graph)
    app.command("lint")(lint)


def graph(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As in place-order; or the id or key of one saga.")],
    format: Annotated[Format | None, typer.Option("--format", "-f", help="text, when no file says otherwise.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it there.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Draw a saga: its steps, their undos, the pivot; or one that runs, with how far it has come."""
    chosen = _format_of(format, output)
    settings = settings_of(data_dir)
    definitions = load_definitions(settings)
    of_definition = picture(definitions[name]) if name in definitions else None
    seen = of_definition or asyncio.run(_picture_of_one(settings, definitions, name))
    if output is not None:
        _write_file(output, DRAWN_AS[chosen](seen))
    elif chosen is Format.TEXT:
        _print(seen)
    else:
        _print_raw(DRAWN_AS[chosen](seen))


def _format_of(given: Format | None, file: Path | None) -> Format:
    meant = MEANT_BY.get(file.suffix) if file is not None else Format.TEXT
    if file is not None and meant is None and given is None:
        known = ", ".join(suffix for suffix in MEANT_BY if suffix)
        raise Failure(f"{file}: what shall be drawn there? Name it {known}, or say --format", Exit.USAGE)
    if file is not None and given is not None and meant not in (None, given):
        raise Failure(f"{file} is a file for {meant}, and --format says {given}", Exit.USAGE)
    return given or meant or Format.TEXT


async def _picture_of_one(settings: Settings, definitions: Definitions, name: str) -> Picture:
    no_definition = f"and no definition is called {name!r}: there is {', '.join(definitions)}"
    try:
        async with open_queries(settings) as queries:
            state = await queries.state(await queries.find(name))
    except UnknownSaga as error:
        raise Failure(f"{error}; {no_definition}", Exit.NOT_FOUND) from error
    except DatabaseOutOfReach as error:
        never_made = settings.database_url("orchestrator").startswith("sqlite")
        code = Exit.NOT_FOUND if never_made else Exit.OUT_OF_REACH
        raise Failure(f"{error}; {no_definition}", code) from error
    return picture(definitions.by_fingerprint.get(state.fingerprint), state)


def _print(seen: Picture) -> None:
    printer = console.out()
    for line in lines(seen):
        pieces = ((piece, console.STYLES.get(style, style if style in PLAIN else "")) for piece, style in line)
        shown = Text.assemble(*pieces)
        shown.rstrip()
        printer.print(shown, soft_wrap=True)


def _print_raw(drawn: str) -> None:
    try:
        sys.stdout.write(drawn)
        sys.stdout.flush()
    except BrokenPipeError as error:  # Typer would make an error of it
        raise console.ReaderGone from error


def _write_file(file: Path, drawn: str) -> None:
    try:
        file.write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{file} cannot be written: {error.strerror}") from error
    console.say(f"{file} is written")


def lint(
    module: Annotated[
        str | None,
        typer.Argument(metavar="[MODULE]", help="As in shop.sagas, or a saga's name; all when left out."),
    ] = None,
    json: Json = False,
) -> int:
    """Look for hazards that a definition is allowed to have: each with a reason and a remedy. Exit code 1 if any."""
    settings = settings_of(None)
    loaded = load_definitions(settings) if module is None or "-" in module else Definitions([])
    if module is None or module in loaded:
        definitions = loaded if module is None else Definitions([loaded[module]])
    else:
        definitions = load_definitions(settings.model_copy(update={"definitions": module}))
    broker = Broker(timedelta(seconds=settings.ack_wait), KEPT_FOR)
    hazards = [hazard for name in definitions for hazard in hazards_of(definitions[name], broker)]
    if json:
        console.print_json({"sagas": list(definitions), "hazards": [asdict(hazard) for hazard in hazards]})
    else:
        _print_hazards(hazards)
    verdict = counted(len(hazards), "hazard") if hazards else "no hazards"
    console.say(f"{', '.join(definitions)}: {verdict}")
    return Exit.ERROR if hazards else Exit.OK


def _print_hazards(hazards: Iterable[Hazard]) -> None:
    printer = console.out()
    for one in hazards:
        place = one.saga + (f" / {one.step}" if one.step else "")
        printer.print(Text.assemble((one.code, "bold yellow"), "  ", (place, "bold")))
        printer.print(_indented(one.message, printer.width), markup=False)
        printer.print(_indented(f"remedy: {one.remedy}", printer.width), markup=False, style="green")


def _indented(words: str, width: int) -> str:
    return textwrap.fill(words, width, initial_indent="      ", subsequent_indent="      ")
