"""The command `saga` as a process of its own, the way a person or a script runs it (see `forked` for how it starts).

    saga = Saga(tmp_path)
    with saga.dev():
        result = saga("start", "place-order", "-i", "-", "--wait", input=as_lines(an_order()))
        assert result.code == 0

Every command that ends is held to two rules: no traceback, and nothing coloured, because nothing here is a terminal.
"""

import itertools
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import psutil

from orchestrator.embedded.forked import SAGA
from tests.support import forked

T = TypeVar("T")

REPOSITORY: Final = Path(__file__).parents[2]
COMMAND: Final = (sys.executable, "-m", "orchestrator.cli")
PATIENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended, and what it said. A negative code is the signal that killed it."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The one JSON value on stdout."""
        return json.loads(self.out)

    def json_lines(self) -> list[Any]:
        """The JSON values on stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Background:
    """A command that is under way. Leaving the block kills it, if it has not ended before."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        files: Path,
        function: str = SAGA,
    ) -> None:
        self._out, self._err = files.with_suffix(".out"), files.with_suffix(".err")
        given, ours = os.pipe()
        self._stdin = os.fdopen(ours, "wb")
        with os.fdopen(given, "rb") as stdin, self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = forked.start(arguments, folder, environment, (stdin, out, err), function=function)
        self._code: int | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """How it ended; None while it runs."""
        if self._code is None and select.select([self._process], [], [], 0)[0]:
            self._code = self._process.wait(PATIENCE)
        return self._code

    @property
    def out(self) -> str:
        """What it has written to stdout so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """What it has written to stderr so far."""
        return self._err.read_text()

    def feed(self, text: str) -> None:
        """Write to its stdin. Blocks while it does not read."""
        self._stdin.write(text.encode())
        self._stdin.flush()

    def end_input(self) -> None:
        """Close its stdin."""
        self._stdin.close()

    def until(self, look: Callable[[], T], what: str) -> T:
        """Wait until what is seen is true, and return it. The command must go on meanwhile."""
        deadline = time.monotonic() + PATIENCE
        while not (seen := look()):
            assert self.code is None, f"it has ended with {self.code} before this: {what}\n{self.err}"
            assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}\n{self.out}\n{self.err}"
            time.sleep(0.02)
        return seen

    def until_says(self, text: str) -> None:
        """Wait until it has written this, wherever."""
        self.until(lambda: text in self.out + self.err, f"the command says {text!r}")

    def interrupt(self) -> Result:
        """Ctrl-C, and wait for the end."""
        return self.end(signal.SIGINT)

    def terminate(self) -> Result:
        """SIGTERM, and wait for the end."""
        return self.end(signal.SIGTERM)

    def end(self, number: signal.Signals) -> Result:
        """Send a signal, and wait for the end."""
        if self.code is None:
            os.kill(self.pid, number)
        return self.wait()

    def wait(self) -> Result:
        """Wait for the end."""
        if self._code is None:
            self._code = self._process.wait(PATIENCE)
        return _decent(Result(self._code, self.out, self.err))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.code is None:
            self._process.kill()
            self._process.wait(PATIENCE)
        self._process.close()
        with suppress(BrokenPipeError):
            self._stdin.close()


class Saga:
    """`saga`, run in a folder. Its environment is ours without our settings, and with those that are given."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.data_dir = folder / ".amends"
        self.patience = PATIENCE
        self._settings = settings
        self._numbers = itertools.count(1)

    def __call__(self, *arguments: str, input: str = "", **settings: str) -> Result:
        """Run a command to its end. `settings` are further environment variables."""
        with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
            given.write(input.encode())
            given.seek(0)
            code = forked.run(arguments, self.folder, self.environment(**settings), (given, out, err), self.patience)
            out.seek(0)
            err.seek(0)
            return _decent(Result(code, out.read().decode(), err.read().decode()))

    def start(self, *orders: Any, options: Sequence[str] = (), **settings: str) -> Result:
        """`saga start place-order`, with these orders on stdin."""
        return self("start", "place-order", "-i", "-", *options, input=as_lines(*orders), **settings)

    def background(self, *arguments: str, function: str = SAGA, **settings: str) -> Background:
        """Run a command that goes on, to be used as a context manager. `function` may be another `saga`."""
        files = self.folder / f"{next(self._numbers)}-{arguments[0]}"
        return Background(arguments, self.folder, self.environment(**settings), files, function)

    @contextmanager
    def running(self, *roles: str, **settings: str) -> Iterator[Background]:
        """`saga run`, ready for work. Killed in the end, if it has not ended before."""
        with self.background("run", *roles, **settings, SAGA_LOG_FORMAT="json") as process:
            for role in roles:
                process.until(partial(_is_ready, process, role), f"{role} is ready")
            yield process

    @contextmanager
    def dev(self, **settings: str) -> Iterator[Background]:
        """`saga dev`, ready for work. Killed in the end with its broker, if it has not ended before."""
        with self.background("dev", **settings) as process:
            process.until_says("ready: NATS at")
            yield process

    def environment(self, **settings: str) -> dict[str, str]:
        """The environment of a command."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("SAGA_") or name == "SAGA_NATS_SERVER"
        }
        without_colours = {name: value for name, value in inherited.items() if name != "FORCE_COLOR"}
        return without_colours | {"PYTHONPATH": str(REPOSITORY)} | self._settings | settings


def as_lines(*values: Any) -> str:
    """NDJSON. Texts are lines as they are."""
    return "".join(f"{value if isinstance(value, str) else json.dumps(value)}\n" for value in values)


def processes_of(folder: Path) -> list[psutil.Process]:
    """What runs in this folder, or has it in its command line."""
    return [process for process in psutil.process_iter() if _belongs_to(process, folder)]


def _belongs_to(process: psutil.Process, folder: Path) -> bool:
    try:
        return str(folder) in " ".join([process.cwd(), *process.cmdline()])
    except psutil.Error:
        return False


def _is_ready(process: Background, role: str) -> bool:
    lines = [json.loads(line) for line in process.err.splitlines() if line.startswith("{") and line.endswith("}")]
    return any(line["event"] == "ready" and line.get("role") == role for line in lines)


def _decent(result: Result) -> Result:
    assert "Traceback" not in result.err, result.err
    assert "\x1b" not in result.out + result.err, result
    return result
