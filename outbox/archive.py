"""Archives: lines of JSON, compressed, that are on the disk before anybody deletes the rows that they tell of.

A file is a chain of gzip members, one for each batch of lines; together they are one gzip file (`zcat FILE | jq`). When
a batch is closed it has been synced, and the rows may go. The first batch is written under another name, so that a file
with its final name always has something whole in it.

How a run dies: within a batch, the file ends in the middle of it, and `zcat` says so after all that is whole; the rows
of that batch are still in the database. After a batch and before its rows are deleted, a later run archives them again:
a line that is there twice harms nobody, it has the same id.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from gzip import GzipFile
from io import BufferedWriter
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Row

Write = Callable[[bytes], None]


class ArchiveFailed(Exception):
    """An archive cannot be written. What was not archived has not been deleted."""


class Archive:
    """One file of one run, made when the first batch comes. Only its owner may read it."""

    def __init__(self, folder: Path, name: str, at: datetime) -> None:
        stem = f"{name}-{at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"  # never the name of an earlier one
        self.path = folder / f"{stem}.ndjson.gz"
        self.is_there = False
        """Whether the file has its final name, and a whole batch in it."""

        self._partial = folder / f"{stem}.partial"
        self._file: BufferedWriter | None = None
        self._whole = 0

    @contextmanager
    def batch(self) -> Iterator[Write]:
        """Write lines, or pieces of lines. When the block has ended they are on the disk. Raises ArchiveFailed."""
        with self._told():
            file = self._opened()
            member = GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
        try:
            yield lambda piece: self._write(member, piece)
            with self._told():
                self._finish(member, file)
        except BaseException:
            self._abandon(member, file)
            raise

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, member: GzipFile, piece: bytes) -> None:
        with self._told():
            member.write(piece)

    def _finish(self, member: GzipFile, file: BufferedWriter) -> None:
        member.close()
        file.flush()
        os.fsync(file.fileno())
        if not self.is_there:
            self._partial.rename(self.path)
            _sync_folder(self.path.parent)
            self.is_there = True
        self._whole = file.tell()

    def _abandon(self, member: GzipFile, file: BufferedWriter) -> None:
        """Leave nothing of a batch that was not finished."""
        for one in (member, file):
            with suppress(OSError):
                one.close()
        with suppress(OSError):
            if self.is_there:
                os.truncate(self.path, self._whole)
            else:
                self._partial.unlink()

    def _opened(self) -> BufferedWriter:
        if self._file is None:
            _make_folder(self.path.parent.resolve())
            self._file = os.fdopen(os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        return self._file

    @contextmanager
    def _told(self) -> Iterator[None]:
        """As a sentence, and never taken for an error of the database."""
        try:
            yield
        except OSError as error:
            raise ArchiveFailed(
                f"the archive {self.path} cannot be written ({error.strerror or error}): what is not in it was not "
                "deleted; make room, or choose another folder, and run it again"
            ) from error


def as_line(value: Any) -> bytes:
    """One line of JSON."""
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def fields(row: Row[Any]) -> dict[str, Any]:
    """All columns of a row, those too that a later release has."""
    return {str(name): value for name, value in row._mapping.items()}  # the names may be more than a str


def _make_folder(folder: Path) -> None:
    """So that a folder is still there after the power has failed, whoever made it."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        _sync_folder(one.parent)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
