"""`saga`, forked from a process that has imported it, one for all tests (see `orchestrator.embedded.forked`)."""

import atexit
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

from orchestrator.embedded.forked import ForkServer


@cache
def _server() -> ForkServer:
    server = ForkServer()
    atexit.register(server.close)
    return server


def run(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    files: tuple[IO[bytes], IO[bytes], IO[bytes]],
    patience: float,
) -> int:
    """Run a command to its end, with these files as stdin, stdout and stderr. Returns how it ended, as `Popen` does.

    Raises TimeoutError, and kills it, when it takes longer than `patience` seconds.
    """
    command = _server().start(arguments, folder, environment, files)
    try:
        return command.wait(patience)
    except TimeoutError:
        command.kill()
        raise
    finally:
        command.close()
