"""`saga chaos`: break it on purpose, on real servers and real processes, and prove that nothing was lost.

Chaos stands above this package, so it is loaded when it is needed and by nobody else.
"""

import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from orchestrator.cli import console
from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.options import Json
from orchestrator.logs import configure_logging

if TYPE_CHECKING:
    from chaos.record import Record
    from chaos.run import Outcome


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    chaos = typer.Typer(no_args_is_help=True, help="Break everything on purpose, and prove that nothing was lost.")
    chaos.command("ls")(ls)
    chaos.command("run")(run)
    chaos.command("show")(show)
    app.add_typer(chaos, name="chaos")


def ls(json: Json = False) -> None:
    """What can be tried: the scenarios, and the faults that they are made of."""
    from chaos.scenarios import SCENARIOS

    if json:
        console.print_json(
            [{"scenario": one.name, "what": one.what, "faults": one.faults} for one in SCENARIOS.values()]
        )
        return
    faults = ((one.name, one.what, ", ".join(one.faults)) for one in SCENARIOS.values())
    console.out().print(console.table(("scenario", "", "faults"), faults))


def run(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="One of `saga chaos ls`.")],
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Plans the same faults again.", show_default="a new one")
    ] = None,
    duration: Annotated[float, typer.Option(metavar="SECONDS", help="For how long orders come and faults fire.")] = 60,
    orders: Annotated[int | None, typer.Option(metavar="N", help="No more than N orders.")] = None,
    rate: Annotated[float, typer.Option(metavar="R", help="Orders a second.")] = 20,
    every: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="From one fault to the next, on average.")
    ] = None,
    patience: Annotated[
        float, typer.Option(metavar="SECONDS", help="Within which every saga must end when the faults are over.")
    ] = 300,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the record, for scripts.")] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with a timeline.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the logs of servers and processes.")] = False,
    data_dir: Annotated[
        Path, typer.Option("--data-dir", metavar="DIR", help="On a real disk; what is put there is removed.")
    ] = Path(".chaos"),
) -> int:
    """Start NATS, PostgreSQL and two of each role, let orders come in, and let faults happen. Then prove it.

    Exit 8 when a promise was broken, 1 when the run has shown nothing: no fault has fired, or no saga completed.
    """
    for file in filter(None, (json, html)):
        _need_place(file)
    chosen = secrets.randbelow(10**6) if seed is None else seed
    console.say(f"seed {chosen}")
    outcome = _run(
        keep,
        scenario=scenario,
        seed=chosen,
        duration=duration,
        orders=orders,
        rate=rate,
        every=every,
        patience=patience,
        data_dir=data_dir,
    )
    verdict = _judge(outcome)
    try:
        _keep(outcome, json, html)
    except Failure as failure:
        if verdict == Exit.OK:
            raise
        console.say(str(failure))  # what was found is worse
    return verdict


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `saga chaos run --json` has written.")],
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write its page.")] = None,
) -> int:
    """A run that was kept: what it showed, as the run itself told it, and with its exit code."""
    from chaos.report import terminal
    from chaos.report.data import NoRecord, load

    try:
        record = load(file)
    except NoRecord as error:
        raise Failure(str(error)) from error
    terminal.show(record, console.out())
    if html is not None:
        _write_page(html, record)
    return _code(record)


def _run(keep: bool, **options: Any) -> "Outcome":
    from chaos.errors import BadOptions, ChaosFailed
    from chaos.options import Options
    from chaos.run import run
    from chaos.scenarios import SCENARIOS

    if options["scenario"] not in SCENARIOS:
        known = ", ".join(SCENARIOS)
        raise Failure(f"there is no scenario {options['scenario']!r}: there is {known}", Exit.USAGE)
    configure_logging("error", "text")  # that servers come and go is what this is about
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.raise_signal(signal.SIGINT))  # clean up then, too
    try:
        return run(Options(**options), _stage, keep=keep)
    except KeyboardInterrupt:
        console.say("interrupted: a run that was not proved to its end shows nothing, and nothing of it is kept")
        raise
    except BadOptions as error:
        raise Failure(str(error), Exit.USAGE) from error
    except ChaosFailed as error:
        raise Failure(str(error)) from error


def _keep(outcome: "Outcome", json: Path | None, html: Path | None) -> None:
    """Write the record down, and its page."""
    if json is not None:
        from chaos.report.data import to_json

        _write(json, orjson.dumps(to_json(outcome.record)).decode())
    if html is not None:
        _write_page(html, outcome.record)


def _judge(outcome: "Outcome") -> int:
    """Say what was found. Returns the exit code."""
    from chaos.report import terminal

    terminal.show(outcome.record, console.out())
    for reason, count in sorted(outcome.missed.items()):
        console.say(f"passed over, {count:,}: {reason}")
    if outcome.kept is not None:
        console.say(f"logs are in {outcome.kept}")
    return _code(outcome.record)


def _code(record: "Record") -> int:
    from chaos.record import PASSED

    if record.verdict == PASSED:
        return Exit.OK
    return Exit.VIOLATION if record.violations else Exit.ERROR


def _need_place(file: Path) -> None:
    """A run takes minutes: whether what it finds can be written down is seen before it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        is_new = not file.exists()
        with file.open("ab"):
            pass
        if is_new:
            file.unlink()
    except OSError as error:
        raise Failure(f"{file} cannot be written: {error.strerror}") from error


def _write_page(file: Path, record: "Record") -> None:
    from chaos.report.page import html

    _write(file, html(record))


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{file} cannot be written: {error.strerror}") from error


@contextmanager
def _stage(description: str, total: float | None) -> Iterator[Callable[[float, str], None]]:
    bar, task = console.progress(description, total)
    if bar.disable:
        console.say(f"… {description}")
    with bar:
        yield lambda more, count: bar.update(task, advance=more, count=count)
