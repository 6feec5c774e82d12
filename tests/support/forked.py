"""`saga`, forked from a process that has imported it, one for all tests (see `orchestrator.embedded.forked`)."""

import atexit
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

from orchestrator.embedded.forked import SAGA, Forked, ForkServer


@cache
def _server() -> ForkServer:
    server = ForkServer()
    atexit.register(server.close)
    return server


Files = tuple[IO[bytes], IO[bytes], IO[bytes]]
"""What a command has as stdin, stdout and stderr."""


def start(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    files: Files,
    *,
    function: str = SAGA,
) -> Forked:
    """Start a command."""
    return _server().start(arguments, folder, environment, files, function=function)


def run(arguments: Sequence[str], folder: Path, environment: Mapping[str, str], files: Files, patience: float) -> int:
    """Run a command to its end. Returns how it ended, as `Popen` does.

    Raises TimeoutError, and kills it, when it takes longer than `patience` seconds.
    """
    command = start(arguments, folder, environment, files)
    try:
        return command.wait(patience)
    except TimeoutError:
        command.kill()
        raise
    finally:
        command.close()
