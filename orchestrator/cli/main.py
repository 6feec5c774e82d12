"""The command `saga`: puts the families of commands together, and turns errors into sentences and exit codes."""

import errno
import os
import sys

import typer
from typer.exceptions import Abort, TyperException
from typer.exceptions import Exit as ExitRequest

from orchestrator.cli import (
    admin,
    bench,
    chaos,
    define,
    definitions,
    demo,
    dlq,
    explore,
    fork,
    look,
    orders,
    prune,
    run,
    schedule,
    schema,
    signal,
    simulate,
    start,
    why,
)
from orchestrator.cli.console import ReaderGone, say
from orchestrator.cli.exits import Exit, exit_code
from orchestrator.logs import configure_logging

app = typer.Typer(
    name="saga",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Run sagas: business transactions over several services, undone in order when a step fails.",
    epilog="Exit codes: 0 ok · 1 error · 2 usage · 3 not found · 4 conflict · 5 compensated · 6 stuck · "
    "7 broker or database out of reach · 8 a promise is broken (verify, explore, simulate, chaos run) · "
    "124 the wait timed out · 130 Ctrl-C",
)
for family in (run, start, look, why, orders, signal, fork):
    family.register(app)
for family in (define, definitions, admin, dlq, prune, schedule, schema, explore, demo, bench, simulate, chaos):
    family.register(app)


def main() -> None:
    """Run a command. Always ends by SystemExit."""
    configure_logging("warning", "text")  # the roles say more, see `run`
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else Exit.OK)
    except ExitRequest as request:
        sys.exit(request.exit_code)
    except TyperException as error:
        say(error.format_message())
        sys.exit(Exit.USAGE)
    except (Abort, KeyboardInterrupt):
        sys.exit(Exit.INTERRUPTED)
    except ReaderGone:
        _forget_output()
        sys.exit(Exit.OK)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        say(f"saga: what it prints, or a file of its own, cannot be written: {error.strerror}")
        _forget_output()
        sys.exit(Exit.ERROR)
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        say(f"saga: {error}")
        sys.exit(code)


def _forget_output() -> None:
    """What is still in the buffer goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
