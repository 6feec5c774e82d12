"""Ends what is left of a run that was killed: `python -m chaos.guard FOLDER`, a process in a session of its own.

Its stdin is a pipe whose other end only the run holds. However the run ends, the pipe is closed, and then everything
that runs in the folder is killed, also what stands still, disks are unmounted, and the folder is deleted, unless the
run has said before that it should stay.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

KEEP: Final = b"keep"
GONE_WITHIN: Final = 10.0


@contextmanager
def guarded(folder: Path) -> Iterator["Guard"]:
    """Whatever happens in the block, or to us in it, nothing runs in the folder after it."""
    command = [sys.executable, "-m", __name__, str(folder)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    guard = Guard(process)
    try:
        yield guard
    finally:
        guard.dismiss()


class Guard:
    """The process, as the run knows it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def keep(self) -> None:
        """Let the folder stay."""
        assert self._process.stdin is not None
        self._process.stdin.write(KEEP)
        self._process.stdin.flush()

    def dismiss(self) -> None:
        """The run is over: let it look round, and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main(folder: Path) -> None:
    """Wait for the end of the run, and clean up after it."""
    keep = sys.stdin.buffer.read() == KEEP
    processes = list(living_in(folder))
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, GONE_WITHIN)
    for partition in psutil.disk_partitions(all=False):
        if Path(partition.mountpoint).is_relative_to(folder):
            subprocess.run(["umount", "--lazy", partition.mountpoint], check=False)
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)


def living_in(folder: Path) -> Iterator[psutil.Process]:
    """Every process that works in this folder or below."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(folder):
                yield process


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
