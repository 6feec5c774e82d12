"""`saga start`: begin one saga, or as many as a file holds."""

import asyncio
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer

from orchestrator.cli.console import day, out, print_json, progress, say
from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.follow import follow_sagas, wait_for
from orchestrator.cli.intake import Input, Reader
from orchestrator.cli.options import DataDir, Json, definition_of, settings_of
from orchestrator.cli.publish import publishing
from orchestrator.cli.values import labels_of, moment_of
from orchestrator.composition import Client, open_client
from orchestrator.definition import Saga
from orchestrator.door import PRIORITIES, BadInput, IfTaken, StartRequest, StartResult
from orchestrator.durations import in_words
from orchestrator.queries import Queries
from orchestrator.settings import Settings

SAFE: Final = "What is started is safe in the database and goes on when NATS is back."
AT_ONCE: Final = 500
IN_HAND: Final = 20 * AT_ONCE
"""Sagas that `--wait` waits for at a time: intake pauses until some of them have ended, so memory is bounded."""


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command("start")(start)


@dataclass(frozen=True, slots=True)
class Options:
    """How to start, and what to do then."""

    definition: str
    key: str | None
    key_field: str | None
    wait: bool
    follow: bool
    patience: float
    json: bool
    if_taken: IfTaken = "return"
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int | None = None
    at: datetime | timedelta | None = None


@dataclass(slots=True)
class Tally:
    """What became of the inputs so far."""

    outcomes: Counter[str]
    statuses: Counter[str]
    first: StartResult | None = None
    timed_out: bool = False

    @property
    def inputs(self) -> int:
        """How many inputs there were."""
        return self.outcomes.total()

    def exit(self) -> Exit:
        """The worst of what happened."""
        if self.outcomes["bad"]:
            return Exit.ERROR
        if self.outcomes["conflict"]:
            return Exit.CONFLICT
        if self.timed_out:
            return Exit.TIMED_OUT
        if self.statuses["stuck"]:
            return Exit.STUCK
        return Exit.COMPENSATED if self.statuses["compensated"] else Exit.OK


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
    options = Options(saga, key, key_field, wait or follow, follow, timeout, json, if_taken, labels, priority, begins)
    with _open(file) as stream:
        return asyncio.run(_start(settings_of(data_dir), options, stream, _size(file)))


async def _start(settings: Settings, options: Options, stream: IO[bytes], size: int | None) -> int:
    async with open_client(settings) as client, publishing(client, SAFE):
        tally = await _start_all(client, _in_time(client, options), stream, size)
    if not tally.inputs:
        raise Failure("there is nothing to start: the input is empty", Exit.ERROR)
    return tally.exit()


def _in_time(client: Client, options: Options) -> Options:
    """The same options, with "in ten minutes" counted from now."""
    at = options.at
    now = client.engine.outbox.clock.now()
    return replace(options, at=now + at) if isinstance(at, timedelta) else options


async def _start_all(client: Client, options: Options, stream: IO[bytes], size: int | None) -> Tally:
    tally = Tally(Counter(), Counter())
    queries = client.queries
    bar, task = progress(f"starting {options.definition}", size)
    deadline = asyncio.get_running_loop().time() + options.patience
    waiting: set[str] = set()
    reader, many = Reader(stream), False
    with ExitStack() as stack:
        stack.callback(reader.close)
        while batch := await asyncio.to_thread(reader.take, 1 if many else 2, AT_ONCE):
            if not many and len(batch) > 1:
                many = True
                stack.enter_context(bar)
            if many and (options.key is not None or options.follow):
                raise Failure("--key and --follow are for one input; for many: --key-field, saga log -f", Exit.USAGE)
            results = await _start_batch(client, options, batch, tally)
            _report(batch, results, options, many)
            bar.update(task, advance=sum(one.size for one in batch), count=f"{tally.inputs:,}")
            if options.wait and not tally.timed_out:
                waiting |= {r.saga_id for r in results if isinstance(r, StartResult) and r.outcome != "conflict"}
                if len(waiting) > IN_HAND:
                    await _wait(queries, waiting, tally, deadline, IN_HAND // 2, tell=options.json)
    if options.follow and waiting:
        tally.timed_out |= not await follow_sagas(queries, next(iter(waiting)), deadline, options.json)
    if waiting:
        await _wait(queries, waiting, tally, deadline, 0, tell=options.json and many)
    await _conclude(client, tally, options, many)
    return tally


async def _wait(queries: Queries, waiting: set[str], tally: Tally, deadline: float, until: int, *, tell: bool) -> None:
    ended, timed_out = await wait_for(queries, waiting, deadline, until)
    tally.statuses.update(ended.values())
    tally.timed_out |= timed_out
    if tell:
        for saga_id, status in ended.items():
            print_json({"saga_id": saga_id, "status": status})


async def _start_batch(
    client: Client, options: Options, batch: Sequence[Input], tally: Tally
) -> list[StartResult | str]:
    """A result, or what is wrong with the input, for each of the batch."""
    prepared = [_prepare(client, options, one) for one in batch]
    requests = [one for one in prepared if isinstance(one, StartRequest)]
    results = iter(await client.engine.start(requests) if requests else ())
    answers: list[StartResult | str] = [one if isinstance(one, str) else next(results) for one in prepared]
    tally.outcomes.update("bad" if isinstance(one, str) else one.outcome for one in answers)
    tally.first = tally.first or next((one for one in answers if isinstance(one, StartResult)), None)
    return answers


def _prepare(client: Client, options: Options, one: Input) -> StartRequest | str:
    if one.data is None:
        return one.problem or "empty"
    key = options.key
    if options.key_field is not None:
        key = one.data.get(options.key_field)
        if not isinstance(key, str) or not key:
            return f"{options.key_field}: is to be the key, so it must be a text that is not empty"
    try:
        return client.engine.request(
            options.definition,
            one.data,
            key,
            if_taken=options.if_taken,
            labels=options.labels,
            priority=options.priority,
            begins_at=options.at if isinstance(options.at, datetime) else None,
        )
    except BadInput as error:
        return str(error)


def _report(batch: Sequence[Input], results: Sequence[StartResult | str], options: Options, many: bool) -> None:
    shown = not options.json and not (many and sys.stdout.isatty())  # a million ids are for a pipe
    for one, result in zip(batch, results, strict=True):
        if isinstance(result, str):
            say(f"line {one.line}: {result}" if many or one.line > 1 else f"the input is refused: {result}")
        elif result.outcome == "conflict":
            where = f"line {one.line}: " if many else ""
            other = "" if options.if_taken == "reject" else ", which has another input"
            say(f"{where}the key is taken by saga {result.saga_id}{other}")
        if options.json and many:
            body = {"problem": result} if isinstance(result, str) else asdict(result)
            print_json({"line": one.line} | body)
        elif isinstance(result, StartResult) and result.outcome != "conflict" and shown:
            out().print(result.saga_id)


async def _conclude(client: Client, tally: Tally, options: Options, many: bool) -> None:
    if tally.outcomes["started"] and (wait := _why_it_waits(client.definitions[options.definition], options)):
        say(f"{'they begin when they may' if many else 'it begins when it may'}: {wait}")
    if many:
        said = [f"{count:,} {name}" for name, count in sorted((tally.outcomes | tally.statuses).items())]
        say(", ".join(said))
    elif tally.first is not None:
        view = await client.queries.get(tally.first.saga_id, datetime.now(UTC))
        if options.json:
            print_json(asdict(tally.first) | {"status": view.summary.status, "reason": view.summary.reason})
        elif tally.statuses:
            say(f"{view.summary.status}: {view.summary.reason}" if view.summary.reason else view.summary.status)
    if tally.timed_out:
        say(f"the wait timed out after {options.patience:g} s; the sagas go on: see `saga ls`")


def _why_it_waits(definition: Saga[Any], options: Options) -> str:
    """Why a saga may not begin at once; empty when it does."""
    reasons = []
    if isinstance(options.at, datetime):
        reasons.append(f"not before {day(options.at)}")
    if definition.max_in_flight is not None:
        reasons.append(f"at most {definition.max_in_flight:,} of {definition.name} are in flight")
    if definition.rate is not None:
        rate = f"{definition.rate.count:,} in {in_words(definition.rate.per)}"
        reasons.append(f"at most {rate} of {definition.name} begin")
    return ", and ".join(reasons)


def _open(file: str) -> Any:
    if file == "-":
        return open(sys.stdin.fileno(), "rb", closefd=False)
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}") from error


def _size(file: str) -> int | None:
    return None if file == "-" else Path(file).stat().st_size
