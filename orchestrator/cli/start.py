"""`saga start`: begin one saga, or as many as a file holds."""

import asyncio
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer

from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.options import DataDir, Json, definition_of, settings_of
from orchestrator.cli.publish import publishing
from orchestrator.cli.starting import IN_FLIGHT, Options, Starting
from orchestrator.cli.values import labels_of, moment_of
from orchestrator.composition import Client, open_client
from orchestrator.door import PRIORITIES, IfTaken
from orchestrator.settings import Settings

SAFE: Final = "What is started is safe in the database and goes on when NATS is back."


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command("start")(start)


def start(
    saga: Annotated[str, typer.Argument(help="Which saga, as in place-order.")],
    file: Annotated[str, typer.Option("--input", "-i", metavar="FILE|-", help="One JSON object, or NDJSON.")],
    key: Annotated[str | None, typer.Option(help="Same key and input: same saga. Another input: a conflict.")] = None,
    key_field: Annotated[str | None, typer.Option(help="Take each input's key from this field.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the sagas have ended; exit 0, 5 or 6.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Print the saga's log until it has ended.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait at most; then exit 124.")] = 60.0,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Begin then, as in 2026-07-01T08:00:00Z or +10m.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="To be found by; may be repeated.")
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option(min=PRIORITIES[0], max=PRIORITIES[-1], help="Of those that wait, the highest begin first."),
    ] = None,
    if_taken: Annotated[
        IfTaken,
        typer.Option(
            help="A key that is taken: give back the saga that has it, if the input is the same; always say no; "
            "or start anew when that saga was compensated."
        ),
    ] = "return",
    in_flight: Annotated[
        int,
        typer.Option(
            "--in-flight",
            min=0,
            metavar="N",
            help="Of many inputs, so many are at work at a time; the rest waits in the file. 0: no limit.",
        ),
    ] = IN_FLIGHT,
    data_dir: DataDir = None,
    json: Json = False,
) -> int:
    """Begin one saga, or as many as a file holds."""
    definition_of(settings_of(data_dir), saga)
    if key is not None and key_field is not None:
        raise Failure("give --key or --key-field, not both", Exit.USAGE)
    if if_taken != "return" and key is None and key_field is None:
        raise Failure(f"--if-taken {if_taken} is about keys: give --key or --key-field too", Exit.USAGE)
    labels, begins = labels_of(label or ()), moment_of(at) if at is not None else None
    options = Options(
        saga, key, key_field, wait or follow, follow, timeout, json, if_taken, labels, priority, begins, in_flight
    )
    with _open(file) as stream:
        return asyncio.run(_start(settings_of(data_dir), options, stream, _size(file)))


async def _start(settings: Settings, options: Options, stream: IO[bytes], size: int | None) -> int:
    async with open_client(settings) as client, publishing(client, SAFE):
        starting = Starting(client, _in_time(client, options), size)
        await starting.run(stream)
    if not starting.tally.inputs:
        raise Failure("there is nothing to start: the input is empty", Exit.ERROR)
    return starting.tally.exit()


def _in_time(client: Client, options: Options) -> Options:
    """The same options, with "in ten minutes" counted from now."""
    at = options.at
    now = client.engine.outbox.clock.now()
    return replace(options, at=now + at) if isinstance(at, timedelta) else options


def _open(file: str) -> Any:
    if file == "-":
        return open(sys.stdin.fileno(), "rb", closefd=False)
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}") from error


def _size(file: str) -> int | None:
    return None if file == "-" else Path(file).stat().st_size
