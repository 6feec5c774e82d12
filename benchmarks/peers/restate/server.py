"""Restate's server, out of its npm package, and the ASGI server that serves our saga to it, for the length of a run."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0
_CONFIG: Final = """
default-num-partitions = {partitions}
disable-telemetry = true
listen-mode = "tcp"
bind-ip = "127.0.0.1"
bind-port = {node}
log-filter = "warn,octocrab=off"  # which looks for a newer release, in vain here
[ingress]
bind-address = "127.0.0.1:{ingress}"
[admin]
bind-address = "127.0.0.1:{admin}"
disable-web-ui = true
[bifrost]
default-provider = "{log}"
"""


@dataclass(frozen=True)
class Restate:
    """A server that takes calls: where, where it is administered, and as which process."""

    ingress: str
    admin: str
    pid: int


@contextlib.contextmanager
def restate_server(folder: Path, *, partitions: int, log: str) -> Iterator[Restate]:
    """A server on free ports of 127.0.0.1 with its data in `folder`. `log` is the kind of its log of commands."""
    folder.mkdir(parents=True, exist_ok=True)
    node, ingress, admin = free_ports(3)
    config = folder / "restate.toml"
    config.write_text(_CONFIG.format(partitions=partitions, node=node, ingress=ingress, admin=admin, log=log))
    command = [_binary(), "--no-logo", "--config-file", str(config), "--base-dir", str(folder / "data")]
    with _running(command, folder / "restate.log") as process:
        found = Restate(f"http://127.0.0.1:{ingress}", f"http://127.0.0.1:{admin}", process.pid)
        _until_healthy(f"{found.admin}/health", process, folder / "restate.log")
        _until_healthy(f"{found.ingress}/restate/health", process, folder / "restate.log")
        yield found


@contextlib.contextmanager
def asgi_server(
    folder: Path, name: str, processes: int, variables: Mapping[str, str]
) -> Iterator[tuple[str, Sequence[int]]]:
    """The address of the app in saga.py, served over HTTP/2 by granian or hypercorn, and who serves it: process ids."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    command = _granian(port, processes) if name == "granian" else _hypercorn(folder, port, processes)
    with _running([sys.executable, "-m", *command], folder / "asgi.log", variables) as process:
        _until_listening(port, process, folder / "asgi.log")
        yield f"http://127.0.0.1:{port}", [process.pid, *_children(process.pid)]


def free_ports(count: int) -> list[int]:
    """So many different ones."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]


def register(restate: Restate, service: str) -> None:
    """Tell the server where the saga is served."""
    body = json.dumps({"uri": service}).encode()
    request = urllib.request.Request(f"{restate.admin}/deployments", body, {"content-type": "application/json"})
    _answer(request)


def version() -> str:
    """Of the server, as it tells it itself."""
    told = subprocess.run([_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    return told.removeprefix("restate-server ").strip()


def _binary() -> str:
    found = sorted(Path(os.environ["PEER_NODE_MODULES"]).glob("@restatedev/restate-server-*/bin/restate-server"))
    if not found:
        raise FileNotFoundError("npm installed no restate-server for this machine: it exists for Linux and macOS.")
    return str(found[0])


def _granian(port: int, processes: int) -> list[str]:
    options = ["--interface=asginl", "--http=2", "--loop=uvloop", "--no-access-log", "--log-level=warning"]
    return ["granian", "saga:app", "--host=127.0.0.1", f"--port={port}", f"--workers={processes}", *options]


def _hypercorn(folder: Path, port: int, processes: int) -> list[str]:
    """With the limits that Restate's documentation sets for production."""
    limits = ("h2_max_concurrent_streams", "keep_alive_max_requests", "keep_alive_timeout")
    lines = [f'bind = "127.0.0.1:{port}"', f"workers = {processes}", 'worker_class = "uvloop"']
    config = folder / "hypercorn.toml"
    config.write_text("\n".join([*lines, *(f"{limit} = 2147483647" for limit in limits)]) + "\n")
    return ["hypercorn", "saga:app", f"--config={config}"]


@contextlib.contextmanager
def _running(
    command: Sequence[str], log: Path, variables: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, **(variables or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=Path(__file__).parent, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    children = _children(process.pid) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for pid in (*children, process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _children(pid: int) -> list[int]:
    direct = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*direct, *(deeper for child in direct for deeper in _children(child))]


def _until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return _answer(urllib.request.Request(url))
        except OSError:  # nobody there, or not healthy yet
            time.sleep(0.1)
    raise TimeoutError(f"Restate's server was not ready within {_START_SECONDS:g} s; its log is {log}.")


def _until_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"The ASGI server did not start within {_START_SECONDS:g} s; its log is {log}.")


def _answer(request: urllib.request.Request) -> Any:
    """Of a server on this machine, past any proxy. Raises OSError when it does not say yes."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=_START_SECONDS) as response:
        return response.read()
