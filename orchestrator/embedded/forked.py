"""Commands, forked from a process that has imported them: a process of its own for each, without a second of imports
for each.

The server runs as `python -m orchestrator.embedded.forked`, with its end of a socket as stdin, and ends when the other
end is closed; and with it ends whatever it has started. A request is one packet: function, arguments, folder and
environment as JSON, and with it four descriptors: stdin, stdout, stderr, and a socket that is told the process id, and
then how the command has ended.
"""

import atexit
import ctypes
import gc
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, NoReturn, Self

REPOSITORY: Final = Path(__file__).parents[2]
COMMAND: Final = REPOSITORY / "orchestrator" / "cli" / "__main__.py"
SAGA: Final = "orchestrator.cli.main:main"
NUMBER: Final = struct.Struct("=i")
LARGEST_REQUEST: Final = 128 * 1024
SET_DEATH_SIGNAL: Final = 1
"""Of `prctl`: which signal a process gets when its parent dies."""


class Forked:
    """A command in a process of its own."""

    def __init__(self, answers: socket.socket) -> None:
        self._answers = answers
        self.pid = self._number()

    def fileno(self) -> int:
        """A descriptor that can be read when the command has ended."""
        return self._answers.fileno()

    def wait(self, patience: float | None) -> int:
        """How it ended, as `Popen` says it. Raises TimeoutError after so many seconds. To be called once."""
        self._answers.settimeout(patience)
        return self._number()

    def kill(self) -> None:
        """SIGKILL. Only before `wait` has returned: later the number may be another's."""
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ask no more."""
        self._answers.close()

    def _number(self) -> int:
        told = self._answers.recv(NUMBER.size)
        if not told:
            raise ConnectionError("the server of forked processes has ended, and they with it")
        number: int = NUMBER.unpack(told)[0]
        return number


class ForkServer:
    """The process that they are forked from. As a context manager it ends with the block; it always ends with us."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=theirs.fileno(),
                cwd=REPOSITORY,
                env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
                start_new_session=True,
            )

    def start(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        files: tuple[IO[bytes], IO[bytes], IO[bytes]],
        *,
        function: str = SAGA,
    ) -> Forked:
        """Start a command in a folder, with these files as stdin, stdout and stderr, and nothing else of ours."""
        request = {"arguments": arguments, "folder": str(folder), "environment": dict(environment)}
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            descriptors = [*(file.fileno() for file in files), theirs.fileno()]
            socket.send_fds(self._ours, [json.dumps(request | {"function": function}).encode()], descriptors)
        return Forked(answers)

    def close(self) -> None:
        """End it, and what it has started."""
        self._ours.close()
        self._server.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _serve(requests: socket.socket) -> None:
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, LARGEST_REQUEST, 4)
        if not request:
            return
        if os.fork() == 0:
            requests.close()
            _attend(json.loads(request), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        _reap()


def _attend(request: dict[str, Any], descriptors: Sequence[int]) -> NoReturn:
    """In a process of its own: fork the command, and tell how it ended."""
    _die_with_parent()
    *files, told = descriptors
    pid = os.fork()
    if pid == 0:
        os.close(told)
        _become(request, files)
    for file in files:
        os.close(file)
    answers = socket.socket(fileno=told)
    answers.send(NUMBER.pack(pid))
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):  # nobody wants to know any more
        answers.send(NUMBER.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _become(request: dict[str, Any], files: Sequence[int]) -> NoReturn:
    """Be the command. What its function does not catch is shown as Python shows it."""
    _die_with_parent()
    for number, descriptor in enumerate(files):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[1:] = request["arguments"]
    sys.argv[0], sys.path[0] = str(COMMAND), request["folder"]
    module, _, function = request["function"].partition(":")
    try:
        getattr(import_module(module), function)()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _die_with_parent() -> None:
    """Where the kernel can: whoever is killed leaves nothing behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    import orchestrator.cli.main  # noqa: F401 (what all commands share)

    gc.freeze()  # what is shared stays shared: no collection writes to it
    _serve(socket.socket(fileno=os.dup(0)))
