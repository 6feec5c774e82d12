"""Reading orders from a file or a pipe: one JSON object, or many as NDJSON, in bounded memory."""

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

from pydantic_core import from_json

from orchestrator.door import MAX_INPUT_BYTES

MAX_LINE: Final = 2 * MAX_INPUT_BYTES
AHEAD: Final = 500
AHEAD_BYTES: Final = 16 * MAX_INPUT_BYTES


@dataclass(frozen=True, slots=True)
class Input:
    """One input, where it stands, and how many bytes it took. `data` is None when it cannot be read: see `problem`."""

    line: int
    size: int
    data: dict[str, Any] | None
    problem: str | None = None


def read_inputs(stream: IO[bytes]) -> Iterator[Input]:
    """Every input of the stream. What cannot be read is told with its line number, and the rest goes on."""
    first = _read_line(stream, 1)
    if first is None:
        return
    opening = first.problem is not None and first.size < MAX_LINE
    if opening:  # not JSON by itself: is it the first line of one object that spans several?
        yield from _spanning(stream, first)
        return
    if first.data is not None or first.problem is not None:
        yield first
    yield from _lines(stream, 2)


class Reader:
    """Reads ahead in a thread of its own, so that what is there can be taken together, and nothing waits for more.

    It reads no further ahead than `AHEAD` inputs or `AHEAD_BYTES`: what is not taken stays in the file, or in the pipe.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._changed = threading.Condition()
        self._ahead: deque[Input] = deque()
        self._bytes = 0
        self._at_end = False
        self._error: Exception | None = None
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def close(self) -> None:
        """Wait for no more: whoever blocks in `take` comes back at once."""
        with self._changed:
            self._at_end = True
            self._changed.notify_all()

    def take(self, at_least: int, at_most: int) -> list[Input]:
        """Blocks until there are `at_least`, or the end; takes up to `at_most` that are there. Empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ahead) >= at_least or self._at_end)
            taken = [self._ahead.popleft() for _ in range(min(at_most, len(self._ahead)))]
            self._bytes -= sum(one.size for one in taken)
            self._changed.notify_all()
        if not taken and self._error is not None:
            raise self._error
        return taken

    def _read(self, stream: IO[bytes]) -> None:
        try:
            for one in read_inputs(stream):
                if not self._put(one):
                    return
        except Exception as error:  # it is raised where it can be told
            self._error = error
        self.close()

    def _put(self, one: Input) -> bool:
        """Wait for room. False: nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_room() or self._at_end)
            if self._at_end:
                return False
            self._ahead.append(one)
            self._bytes += one.size
            self._changed.notify_all()
        return True

    def _has_room(self) -> bool:
        return len(self._ahead) < AHEAD and self._bytes < AHEAD_BYTES


@dataclass(frozen=True, slots=True)
class _Line(Input):
    text: bytes = b""


def _spanning(stream: IO[bytes], first: _Line) -> Iterator[Input]:
    collected, numbered = first.text, [first]
    line = 2
    while len(collected) < MAX_LINE and (more := _read_line(stream, line)) is not None:
        collected += more.text
        numbered.append(more)
        line += 1
        if more.data is not None:
            break  # a line that is an object by itself: this is NDJSON, and the first line is a bad one
    try:
        whole = from_json(collected)
    except ValueError:
        yield from (one for one in numbered if one.data is not None or one.problem is not None)
    else:
        yield _as_input(whole, 1, len(collected))
    yield from _lines(stream, line)


def _lines(stream: IO[bytes], line: int) -> Iterator[Input]:
    while (read := _read_line(stream, line)) is not None:
        if read.data is not None or read.problem is not None:
            yield read
        line += 1


def _read_line(stream: IO[bytes], number: int) -> _Line | None:
    """The next line; None at the end. A blank line has neither data nor problem."""
    text = stream.readline(MAX_LINE)
    if not text:
        return None
    size = len(text)
    if size == MAX_LINE and not text.endswith(b"\n"):
        while (rest := stream.readline(MAX_LINE)) and not rest.endswith(b"\n"):
            size += len(rest)
        return _Line(number, size + len(rest), None, f"longer than {MAX_LINE:,} bytes")
    if not text.strip():
        return _Line(number, size, None, None, text)
    try:
        value = from_json(text)
    except ValueError as error:
        return _Line(number, size, None, f"not JSON: {str(error).partition(' at line ')[0]}", text)
    read = _as_input(value, number, size)
    return _Line(number, size, read.data, read.problem, text)


def _as_input(value: Any, line: int, size: int) -> Input:
    if isinstance(value, dict):
        return Input(line, size, value)
    if isinstance(value, list):
        return Input(line, size, None, "a JSON array: write one object a line (NDJSON)")
    return Input(line, size, None, f"not a JSON object but {type(value).__name__}")
