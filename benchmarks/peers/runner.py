"""Runs one peer: fresh databases, its `run.py` in its own environment, and the check of what it left behind."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks.peers import work
from benchmarks.peers.environment import Environment, PeerFailedError, install
from orchestrator.embedded import log_tail

PEERS: Final = Path(__file__).resolve().parent
DATABASES: Final = (*work.PARTICIPANTS, "system")
RUN_SECONDS: Final = 900.0
_LATE: Final = -1_000  # no status of a process
_NEEDED: Final = ("system", "version", "sagas", "sagas_per_second", "p50_ms", "p95_ms", "p99_ms", "max_ms", "settings")


class Server(Protocol):
    """A PostgreSQL in which databases can be made, such as EmbeddedPostgres."""

    def url(self, database: str = ...) -> str: ...
    def create_database(self, *names: str) -> None: ...
    def drop_database(self, *names: str) -> None: ...


@dataclass(frozen=True)
class Load:
    """What a peer is asked to do. `in_flight` None leaves it to the peer, which knows what suits it best."""

    steps: int = 3
    sagas: int = 1_000
    in_flight: int | None = None
    rate: float | None = None
    empty: bool = False

    def arguments(self) -> list[str]:
        """As options of a `run.py`."""
        words = [f"--steps={self.steps}", f"--sagas={self.sagas}"]
        if self.in_flight is not None:
            words.append(f"--in-flight={self.in_flight}")
        if self.rate is not None:
            words.append(f"--rate={self.rate:g}")
        return [*words, "--empty"] if self.empty else words


def names(peers: Path = PEERS) -> list[str]:
    """The peers that there are: the folders with a `run.py`."""
    return sorted(script.parent.name for script in peers.glob("*/run.py"))


def measure(name: str, asked: Load, server: Server, home: Path, *, peers: Path = PEERS) -> dict[str, Any]:
    """Install the peer if need be, run it, and give its figures once its work was found to be right.

    Raises PeerFailedError when it could not be installed, ended badly, printed no figures, or did the work wrong.
    """
    environment = install(peers / name, home / name)
    databases = {role: f"peer_{name.replace('-', '_')}_{role}" for role in DATABASES}
    server.drop_database(*databases.values())
    server.create_database(*databases.values())
    urls = {role: _plain(server.url(database)) for role, database in databases.items()}
    try:
        asyncio.run(work.prepare(urls))
        figures = _figures(name, _run(peers / name / "run.py", environment, asked, urls))
        _check(name, figures, asked, urls)
    finally:
        server.drop_database(*databases.values())
    return {"peer": name, "steps": asked.steps, "empty": asked.empty} | figures


def _plain(url: str) -> str:
    """The address without the name of SQLAlchemy's driver."""
    return url.replace("postgresql+asyncpg://", "postgresql://", 1)


def _run(script: Path, environment: Environment, asked: Load, urls: Mapping[str, str]) -> str:
    """What the peer printed on stdout. Whatever it started is ended with it."""
    folder, log = environment.home / "run", environment.home / "run.log"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    variables = environment.variables() | {"PEER_POSTGRES_URLS": json.dumps(dict(urls)), "PEER_FOLDER": str(folder)}
    command = [str(environment.python), str(script), *asked.arguments()]
    try:
        with log.open("wb") as errors:
            printed, status = _communicate(command, variables, errors.fileno())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if status:
        ended = f"did not end within {RUN_SECONDS:g} s" if status == _LATE else f"ended with status {status}"
        raise PeerFailedError(f"{script.parent.name} {ended}. The end of {log}:\n{log_tail(log)}")
    return printed


def _communicate(command: Sequence[str], variables: Mapping[str, str], errors: int) -> tuple[str, int]:
    """What the command printed, and its status, which is _LATE when it had to be killed."""
    process = subprocess.Popen(
        command, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
    )
    try:
        printed, _ = process.communicate(timeout=RUN_SECONDS)
        return printed.decode(errors="replace"), process.returncode
    except subprocess.TimeoutExpired:
        return "", _LATE
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to what is left of the peer: itself when it was late, and any server that it forgot."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _figures(name: str, printed: str) -> dict[str, Any]:
    lines = printed.strip().splitlines()
    try:
        figures: dict[str, Any] = json.loads(lines[-1])
        missing = [key for key in _NEEDED if key not in figures]
    except (IndexError, ValueError, TypeError):
        raise PeerFailedError(f"{name} printed no figures: its last line must be one JSON object.") from None
    if missing:
        raise PeerFailedError(f"{name} left out of its figures: {', '.join(missing)}.")
    return figures


def _check(name: str, figures: Mapping[str, Any], asked: Load, urls: Mapping[str, str]) -> None:
    """A fast wrong run is a failed run."""
    if figures["sagas"] != asked.sagas:
        raise PeerFailedError(f"{name} measured {figures['sagas']} sagas, and was asked for {asked.sagas}.")
    if asked.empty:
        return
    try:
        asyncio.run(work.check(urls, asked.sagas + int(figures.get("warm_up", 0)), asked.steps))
    except work.WrongRunError as error:
        raise PeerFailedError(f"{name} did the work wrong: {error}") from None
