"""What every peer's `run.py` shares: its options, how sagas arrive, and the figures that come out of it.

Closed loop: a fixed number of sagas is under way at any time; as one ends the next begins. Open loop: sagas arrive
at fixed times whether or not earlier ones have ended, and latency counts from when a saga should have begun, so a
system that falls behind cannot hide it.

A run may be split over several processes, each with its share of the sagas: `spread` starts them and has them begin
together, `summary` puts their figures together. Nothing but the standard library is used: this runs in each peer's own
environment.
"""

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Final, Self

START_SECONDS: Final = 120.0
_barrier: Barrier | None = None  # in a process that `spread` started: where all of them meet

Run = Callable[[int], Awaitable[object]]  # carries out the saga with this number, from 0 on, to its end


@dataclass(frozen=True)
class Options:
    """How a peer was asked to run."""

    steps: int
    sagas: int
    in_flight: int
    rate: float | None
    empty: bool

    @classmethod
    def parse(cls, arguments: Sequence[str] | None = None, *, in_flight: int = 50) -> Self:
        """From the command line; ends the process with a sentence when it is wrong. `in_flight` is what suits best."""
        parser = argparse.ArgumentParser(description="Run sagas on this system, and print the figures as JSON.")
        parser.add_argument("--steps", type=_positive, default=3, help="steps of a saga")
        parser.add_argument("--sagas", type=_positive, default=1_000, help="sagas that are measured")
        parser.add_argument("--in-flight", type=_positive, default=in_flight, help="sagas under way at a time")
        parser.add_argument("--rate", type=float, default=None, help="sagas per second that arrive, instead of that")
        parser.add_argument("--empty", action="store_true", help="steps that do nothing")
        found = parser.parse_args(arguments)
        if found.rate is not None and not 0 < found.rate < math.inf:
            parser.error("--rate must be more than 0")
        return cls(found.steps, found.sagas, found.in_flight, found.rate, found.empty)


@dataclass(frozen=True)
class Share:
    """What one of several processes does of a run."""

    index: int
    processes: int
    sagas: int
    in_flight: int
    rate: float | None

    @classmethod
    def of(cls, options: Options, index: int, processes: int) -> Self:
        """Part `index` of `processes` equal ones; what does not divide goes to the first."""
        return cls(
            index,
            processes,
            _part(options.sagas, index, processes),
            max(1, _part(options.in_flight, index, processes)),
            None if options.rate is None else options.rate / processes,
        )

    async def measure(self, run: Run, *, helpers: Sequence[int] = ()) -> "Figures":
        """Carry out this share, and note how long each saga took, and the CPU time of this process and its helpers."""
        begun, busy = time.time(), _cpu_seconds(helpers)
        loop = self._closed(run) if self.rate is None else self._open(run)
        latencies = await loop
        return Figures(begun, time.time(), latencies, _cpu_seconds(helpers) - busy)

    async def all_ready(self) -> None:
        """Wait until every process has come this far."""
        if _barrier is not None:
            await asyncio.to_thread(_barrier.wait, START_SECONDS)

    async def _closed(self, run: Run) -> list[float]:
        latencies: list[float] = []
        numbers = iter(range(self.sagas))

        async def one_after_another() -> None:
            for number in numbers:
                start = time.perf_counter()
                await run(number)
                latencies.append(time.perf_counter() - start)

        await _all(one_after_another() for _ in range(self.in_flight))
        return latencies

    async def _open(self, run: Run) -> list[float]:
        assert self.rate is not None
        latencies: list[float] = []
        first = time.perf_counter() + self.index / (self.rate * self.processes)

        async def arriving(number: int, due: float) -> None:
            await run(number)
            latencies.append(time.perf_counter() - due)

        async with asyncio.TaskGroup() as sagas:
            for number in range(self.sagas):
                due = first + number / self.rate
                await asyncio.sleep(due - time.perf_counter())
                sagas.create_task(arriving(number, due))
        return latencies


@dataclass(frozen=True)
class Figures:
    """What one process measured: wall-clock times of its begin and end, latencies and CPU time in seconds."""

    begun: float
    ended: float
    latencies: list[float] = field(repr=False)
    cpu_seconds: float


Worker = Callable[[Options, Share], Coroutine[Any, Any, Figures]]


def spread(worker: Worker, options: Options, processes: int) -> list[Figures]:
    """Run `worker`, a function of a module, in so many fresh processes, with its share each. One failure fails all."""
    context = multiprocessing.get_context("spawn")
    meeting = context.Barrier(processes)
    with ProcessPoolExecutor(processes, context, _join, (meeting,)) as pool:
        shares = [Share.of(options, index, processes) for index in range(processes)]
        return list(pool.map(_work, [worker] * processes, [options] * processes, shares))


def warm_up_of(options: Options) -> int:
    """How many sagas go before the measured ones, uncounted: enough for pools and plans to be there."""
    return min(200, max(20, options.sagas // 10))


def urls() -> Mapping[str, str]:
    """Where the empty databases are: order, inventory, payment, and system, which is the peer's own."""
    given = os.environ.get("PEER_POSTGRES_URLS")
    if given is None:
        sys.exit("PEER_POSTGRES_URLS is not set. Run this peer with: python -m benchmarks.peers NAME")
    found: dict[str, str] = json.loads(given)
    return found


def folder() -> Path:
    """A folder on a real disk that the peer may fill; it is deleted afterwards."""
    return Path(os.environ.get("PEER_FOLDER", ".")).resolve()


def say(message: str) -> None:
    """Tell whoever watches how far the run is."""
    print(message, file=sys.stderr, flush=True)


def report(
    options: Options,
    figures: Sequence[Figures],
    *,
    system: str,
    version: str,
    settings: Mapping[str, Any],
    warm_up: int,
) -> None:
    """Print the one JSON object that `python -m benchmarks.peers` reads, on stdout."""
    shown = {"system": system, "version": version, **summary(options, figures), "warm_up": warm_up}
    print(json.dumps(shown | {"settings": dict(settings)}), flush=True)


def summary(options: Options, figures: Sequence[Figures]) -> dict[str, Any]:
    """Rate, latency in milliseconds and CPU time of all processes together."""
    latencies = sorted(latency for part in figures for latency in part.latencies)
    elapsed = max(part.ended for part in figures) - min(part.begun for part in figures)
    return {
        "steps": options.steps,
        "sagas": len(latencies),
        "in_flight": options.in_flight if options.rate is None else None,
        "rate": options.rate,
        "empty": options.empty,
        "sagas_per_second": round(len(latencies) / elapsed, 1),
        **{f"p{percent}_ms": round(percentile(latencies, percent) * 1000, 1) for percent in (50, 95, 99)},
        "max_ms": round(latencies[-1] * 1000, 1),
        "cpu_ms_per_saga": round(sum(part.cpu_seconds for part in figures) * 1000 / len(latencies), 2),
    }


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of 100 are not above; `ordered` rises and is not empty."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _join(meeting: Barrier) -> None:
    global _barrier  # what a process pool hands to a process before it has a task
    _barrier = meeting


def _work(worker: Worker, options: Options, share: Share) -> Figures:
    try:
        return asyncio.run(worker(options, share))
    except BaseException:
        if _barrier is not None:
            _barrier.abort()  # nobody need wait for us
        raise


async def _all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for coroutine in coroutines:
            group.create_task(coroutine)


def _part(whole: int, index: int, parts: int) -> int:
    return whole // parts + (index < whole % parts)


def _cpu_seconds(helpers: Sequence[int]) -> float:
    """Of this process and those: the kernel counts it in ticks, after the name, which may hold anything."""
    after_name = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in helpers]
    ticks = sum(int(fields[11]) + int(fields[12]) for fields in after_name)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
