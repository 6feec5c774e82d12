"""Many schedules, in several processes, and what came of all of them.

Schedule number n of a run with seed S is the schedule of seed S + n. So whatever is found is found again by that one
seed: `saga simulate --seed S+n --schedules 1`.
"""

import gc
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from simulation import process
from simulation.rack import Rack
from simulation.schedule import Outcome, play

CHUNK: Final = 20
"""Schedules that a process plays between two reports."""

CLEAN_EVERY: Final = 20
"""Schedules between two collections of garbage: a world is full of cycles, and looking for them all the time costs."""


@dataclass(slots=True)
class Report:
    """What came of a run."""

    seed: int
    schedules: int = 0
    sagas: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[int, str, str]] = field(default_factory=list)
    """The schedule's seed, the promise, and how it is broken."""

    virtual_seconds: float = 0.0
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Another schedule."""
        self.schedules += 1
        self.sagas += outcome.sagas
        self.ends.update(outcome.ends)
        self.faults.update(outcome.faults)
        self.violations += [(outcome.seed, one.check, one.message) for one in outcome.violations]
        self.virtual_seconds += outcome.seconds

    @property
    def per_minute(self) -> float:
        """Schedules a minute."""
        return 60 * self.schedules / self.seconds if self.seconds else 0.0

    @property
    def nothing_shown(self) -> str | None:
        """Why the run proves nothing, if it does not: nothing went wrong, or nothing went well."""
        if not self.faults:
            return "no fault fired"
        return None if self.ends["completed"] else "no saga completed"

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "schedules": self.schedules,
            "seed": self.seed,
            "sagas": self.sagas,
            "ends": dict(sorted(self.ends.items())),
            "faults": dict(sorted(self.faults.items())),
            "violations": [
                {"seed": seed, "check": check, "message": message, "reproduce": command_of(seed)}
                for seed, check, message in self.violations
            ],
            "schedules_per_minute": round(self.per_minute),
            "virtual_hours": round(self.virtual_seconds / 3600, 2),
            "seconds": round(self.seconds, 1),
        }


def command_of(seed: int) -> str:
    """What plays one schedule again, and tells what happens in it."""
    return f"saga simulate --seed {seed} --schedules 1 --trace"


def run(seed: int, schedules: int, jobs: int, watch: Callable[[Report], None] = lambda _: None) -> Report:
    """Play so many schedules. `watch` is shown the report as it grows."""
    report, begun = Report(seed), time.monotonic()
    for outcomes in _all_outcomes(seed, schedules, min(jobs, -(-schedules // CHUNK))):
        for outcome in outcomes:
            report.add(outcome)
        report.seconds = time.monotonic() - begun
        watch(report)
    report.violations.sort()
    return report


class Player:
    """Plays schedules in this process, one after the other."""

    def __init__(self) -> None:
        heeded = structlog.make_filtering_bound_logger(logging.WARNING)  # a role tells of every fault
        structlog.configure(processors=[process.heed], wrapper_class=heeded)
        self._rack = Rack.build()
        self._played = 0
        gc.collect()
        gc.freeze()

    def play(self, seed: int, *, tracing: bool = False) -> Outcome:
        """The schedule of one seed."""
        self._played += 1
        if self._played % CLEAN_EVERY == 0:
            gc.collect()
        gc.disable()
        try:
            return play(self._rack, seed, tracing=tracing)
        finally:
            gc.enable()


def _all_outcomes(seed: int, schedules: int, jobs: int) -> Iterator[list[Outcome]]:
    chunks = [range(first, min(first + CHUNK, seed + schedules)) for first in range(seed, seed + schedules, CHUNK)]
    if jobs <= 1:
        player = Player()
        for chunk in chunks:
            yield [player.play(one) for one in chunk]
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin) as pool:
        try:
            yield from _as_they_come(pool, chunks)
        finally:
            pool.shutdown(cancel_futures=True)


def _as_they_come(pool: ProcessPoolExecutor, chunks: list[range]) -> Iterator[list[Outcome]]:
    with _deaf():
        waiting: set[Future[list[Outcome]]] = {pool.submit(_play_chunk, chunk) for chunk in chunks}
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


_players: list[Player] = []


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started here never hear Ctrl-C, not even before they have begun: their parent ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which they inherit; ours only waits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _players.append(Player())


def _die_with_parent() -> None:
    """One that is killed cannot take its players along, and they would wait for work for ever."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _play_chunk(seeds: range) -> list[Outcome]:
    return [_players[0].play(seed) for seed in seeds]
