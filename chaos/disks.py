"""A disk that can be filled: a file system of its own, in a file, mounted while the run lasts.

A real ext4 on a loop device, so that fsync is as real as it is beside it. It takes the right to mount; where that is
missing the run fails with a sentence, because a disk that was never full has shown nothing.
"""

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from chaos.errors import ChaosFailed

SIZE: Final = 4 * 1024**3
"""Bytes; the file is sparse, so that only what is used takes room."""


class Disk:
    """One such disk, as a context manager."""

    def __init__(self, folder: Path, size: int = SIZE) -> None:
        self.folder = folder
        self._image = folder.with_suffix(".img")
        self._ballast = folder / "ballast"
        self._size = size

    def fill(self) -> int:
        """Leave no room on it. Returns how many bytes were left until now."""
        before = self.free
        with self._ballast.open("wb") as ballast:
            for piece in (1 << 26, 1 << 20, 1 << 12):
                while _grow(ballast.fileno(), piece):
                    pass
        return before

    def relieve(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)

    @property
    def free(self) -> int:
        """Bytes that are left for anybody."""
        state = os.statvfs(self.folder)
        return state.f_bavail * state.f_frsize

    def __enter__(self) -> Self:
        self.folder.mkdir()
        with self._image.open("wb") as image:
            image.truncate(self._size)
        _call("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(self._image))
        _call("mount", "-o", "loop", str(self._image), str(self.folder))
        self.folder.chmod(0o711)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], capture_output=True, check=False)
        self._image.unlink(missing_ok=True)


def _grow(descriptor: int, size: int) -> bool:
    end = os.lseek(descriptor, 0, os.SEEK_END)
    try:
        os.posix_fallocate(descriptor, end, size)
    except OSError:
        return False
    return True


def _call(*command: str) -> None:
    """Raises ChaosFailed."""
    program = shutil.which(command[0])
    if program is None:
        raise ChaosFailed(f"a disk that fills needs {command[0]}, which is not installed here; run another scenario")
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it did not say why"])[0].strip(" .")
        raise ChaosFailed(
            f"a disk that fills needs the right to mount one, and {command[0]} failed ({reason}): "
            "run it as root, on a machine that lets you mount; or run another scenario"
        )
