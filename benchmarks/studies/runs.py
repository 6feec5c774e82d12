"""One run of a study: a command in a process of its own, and the figures in the JSON that it prints.

A process of its own, because a run must find nothing of the one before it: no module, no pool, no memory.
"""

import importlib.metadata
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.errors import RunFailed
from orchestrator.embedded import die_with_parent

PATIENCE: Final = 3600.0
"""Seconds for a run, with all that is made before it."""

GRACE: Final = 30.0
"""Seconds in which a run that is broken off removes what it has made."""

TOLD_LINES: Final = 12
KEEPS_UP: Final = 0.9
"""The part of the rate at which sagas come that has to be reached, or the system falls behind."""

Row = dict[str, Any]
"""What a run is called, and what it has shown: its figures, or `error`."""


@dataclass(frozen=True, slots=True)
class Run:
    """What tells it from the study's other runs, and how it is made."""

    labels: Mapping[str, Any]
    command: tuple[str, ...]
    """What comes after `python -m`."""

    read: Callable[[Any], Row]
    """Takes the figures out of what was printed. Raises RunFailed when it tells of a wrong run."""

    ladder: str | None = None
    """Runs of one ladder are made from the lowest rate up, until one falls behind."""

    def carry_out(self) -> Row:
        """The figures. Raises RunFailed, in a sentence that may be long."""
        printed, complaints, status = _communicate(self.command)
        try:
            found = json.loads(printed)
        except ValueError:
            raise RunFailed(_broken(complaints, status)) from None
        return self.read(found)


def of_bench(report: Any) -> Row:
    """The figures of a report of `saga bench`."""
    if violations := report["violations"]:
        first = violations[0]
        raise RunFailed(f"{len(violations)} violations, the first of {first['check']}: {first['message']}")
    return {
        "version": importlib.metadata.version("amends"),
        "in_flight": report["in_flight"],
        "sagas": report["orders"],
        "sagas_per_second": report["sagas_per_second"],
        "p50_ms": report["p50_ms"],
        "p99_ms": report["p99_ms"],
        "cpu_ms": round(report["cpu_seconds_per_saga"]["all"] * 1000, 3),
        "roof_per_second": report["roof_per_second"],
    }


def of_peer(report: Any) -> Row:
    """The figures of a peer."""
    [result] = report["results"]
    if "error" in result:
        raise RunFailed(result["error"])
    kept = ("version", "sagas", "in_flight", "sagas_per_second", "p50_ms", "p99_ms")
    return {name: result[name] for name in kept}


def of_roof(roof: Any) -> Row:
    """The figures of work by hand."""
    return {
        "sagas": roof["sagas"],
        "sagas_per_second": round(roof["sagas_per_second"], 1),
        "p50_ms": round(roof["p50_ms"], 2),
        "p99_ms": round(roof["p99_ms"], 2),
        "cpu_ms": round(sum(roof["cpu_ms_per_saga"].values()), 3),
    }


def falls_behind(row: Row) -> bool:
    """Whether sagas came faster than they ended."""
    return "error" in row or ("rate" in row and row["sagas_per_second"] < KEEPS_UP * row["rate"])


def in_short(error: str) -> str:
    """The first line, and of each path its last part: what may stand on a page."""
    first = error.strip().splitlines()[0] if error.strip() else "no reason was given"
    return re.sub(r"(?<![\w<])/(?:[^\s/]+/)+", "", first)


def _broken(complaints: str, status: int) -> str:
    """What it said last, and under it some of what it said before."""
    lines = [line for line in complaints.splitlines() if line.strip()]
    if not lines:
        return f"it ended with status {status} and said nothing"
    return "\n".join([f"it ended with status {status}: {lines[-1].strip()}", *lines[-TOLD_LINES:-1]])


def _communicate(command: Sequence[str]) -> tuple[str, str, int]:
    """What the command printed on stdout and stderr, and its status. Ctrl-C lets it remove what it has made."""
    process = subprocess.Popen(
        [*die_with_parent(), sys.executable, "-m", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        printed, complaints = process.communicate(timeout=PATIENCE)
        return printed, complaints, process.returncode
    except subprocess.TimeoutExpired:
        raise RunFailed(f"it had not ended after {PATIENCE:g} s") from None
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Have it remove what it has made, if it has not ended; whoever is in a hurry waits for that."""
    if process.poll() is not None:
        return
    with _undisturbed():
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=GRACE)
        if process.poll() is None:
            process.kill()
            process.communicate()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Another Ctrl-C says nothing new: if we ended at once, the run would end with us and leave its folders."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
