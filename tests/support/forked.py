"""`saga`, forked from a process that has imported it: a process of its own for each command, without half a second of
imports for each.

The server runs as `python -m tests.support.forked`, with its end of a socket as stdin, and ends when the other end is
closed. A request is one packet: arguments, folder and environment as JSON, and with it four descriptors: stdin, stdout,
stderr, and a socket that is told the process id, and then how the command has ended.
"""

import atexit
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Final, NoReturn

REPOSITORY: Final = Path(__file__).parents[2]
COMMAND: Final = REPOSITORY / "orchestrator" / "cli" / "__main__.py"
NUMBER: Final = struct.Struct("=i")
LARGEST_REQUEST: Final = 128 * 1024


@cache
def _server() -> socket.socket:
    """Our end of the server's socket. The server ends with us: nobody else holds this end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        server = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=theirs.fileno(), cwd=REPOSITORY, env=environment
        )
    atexit.register(_end, ours, server)
    return ours


def _end(ours: socket.socket, server: "subprocess.Popen[bytes]") -> None:
    ours.close()
    server.wait()


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
    request = json.dumps({"arguments": arguments, "folder": str(folder), "environment": dict(environment)})
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            descriptors = [*(file.fileno() for file in files), theirs.fileno()]
            socket.send_fds(_server(), [request.encode()], descriptors)
        ours.settimeout(patience)
        pid = _number(ours)
        try:
            return _number(ours)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise


def _number(connection: socket.socket) -> int:
    number: int = NUMBER.unpack(connection.recv(NUMBER.size))[0]
    return number


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


def _attend(request: dict[str, object], descriptors: Sequence[int]) -> NoReturn:
    """In a process of its own: fork the command, and tell how it ended."""
    *files, told = descriptors
    pid = os.fork()
    if pid == 0:
        os.close(told)
        _become(request, files)
    answers = socket.socket(fileno=told)
    answers.send(NUMBER.pack(pid))
    _, status = os.waitpid(pid, 0)
    answers.send(NUMBER.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _become(request: dict[str, object], files: Sequence[int]) -> NoReturn:
    """Be the command. What `main` does not catch is shown as Python shows it."""
    from orchestrator.cli.main import main

    for number, descriptor in enumerate(files):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(str(request["folder"]))
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[call-overload]
    sys.argv[1:] = request["arguments"]  # type: ignore[call-overload]
    sys.argv[0], sys.path[0] = str(COMMAND), str(request["folder"])
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


if __name__ == "__main__":
    import orchestrator.cli.main  # noqa: F401 (what all commands share)

    _serve(socket.socket(fileno=os.dup(0)))
