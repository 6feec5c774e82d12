"""Reading inputs: no more is held than a little, however much there is."""

import io
import json
import threading
import time
from typing import Final

from orchestrator.cli.intake import AHEAD, AHEAD_BYTES, MAX_LINE, Input, Reader

MANY: Final = 10_000


class Endless(io.BytesIO):
    """The same line for ever. Counts how often it was read."""

    def __init__(self, line: bytes) -> None:
        super().__init__()
        self._line = line
        self.lines = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        """The line."""
        self.lines += 1
        return self._line


def settled(stream: Endless) -> int:
    """How many lines were read when nobody reads on."""
    seen = -1
    while seen != stream.lines:
        seen = stream.lines
        time.sleep(0.1)
    return seen


def line_of(size: int) -> bytes:
    """A JSON object of so many bytes, and a newline."""
    return json.dumps({"note": ""}).encode().replace(b'""', b'"' + b"x" * (size - 13) + b'"') + b"\n"


def everything(reader: Reader, at_most: int) -> list[list[Input]]:
    taken = []
    while batch := reader.take(1, at_most):
        taken.append(batch)
    return taken


def test_a_reader_reads_a_number_of_inputs_ahead_and_not_all_that_there_are() -> None:
    stream = Endless(line_of(20))
    reader = Reader(stream)
    assert settled(stream) == AHEAD + 1, "one is in its hand"
    assert len(reader.take(1, 100)) == 100
    assert settled(stream) == AHEAD + 101
    reader.close()


def test_large_inputs_are_counted_by_their_size() -> None:
    stream = Endless(line_of(MAX_LINE // 2))
    reader = Reader(stream)
    for _ in range(2):
        settled(stream)
        taken = reader.take(2, AHEAD)
        assert AHEAD_BYTES <= sum(one.size for one in taken) < AHEAD_BYTES + MAX_LINE
    reader.close()


def test_what_there_is_is_taken_together_in_its_order() -> None:
    reader = Reader(io.BytesIO(b"".join(json.dumps({"number": n}).encode() + b"\n" for n in range(MANY))))
    batches = everything(reader, 64)
    assert [one.data for batch in batches for one in batch] == [{"number": n} for n in range(MANY)]
    assert [one.line for batch in batches for one in batch] == list(range(1, MANY + 1))
    assert max(len(batch) for batch in batches) == 64


def test_a_closed_reader_lets_go_of_whoever_waits_and_of_its_thread() -> None:
    before = threading.active_count()
    stream = Endless(line_of(20))
    reader = Reader(stream)
    settled(stream)
    reader.close()
    while threading.active_count() > before:
        time.sleep(0.01)
    seen = stream.lines
    while reader.take(1, AHEAD):
        pass
    assert settled(stream) == seen


def test_what_was_read_before_an_error_is_taken_before_it_is_told() -> None:
    class Torn(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            read = super().readline(size)
            if not read:
                raise OSError("the disk is gone")
            return read

    reader = Reader(Torn(b'{"number": 1}\n{"number": 2}\n'))
    told: list[list[int] | str] = []
    try:
        while batch := reader.take(3, AHEAD):
            told.append([one.line for one in batch])
    except OSError as error:
        told.append(str(error))
    assert told == [[1, 2], "the disk is gone"]
