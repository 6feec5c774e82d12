"""How much CPU a process and everything under it has used, those that have ended included."""

from collections.abc import Mapping

import psutil


class CpuMeter:
    """Counts from its making on. `processes` maps names to pids."""

    def __init__(self, processes: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in processes.items()}
        self._before = self._now()

    def seconds(self) -> dict[str, float]:
        """CPU seconds of each since then, in user and kernel mode."""
        now = self._now()
        return {name: now[name] - self._before[name] for name in now}

    def _now(self) -> dict[str, float]:
        return {name: _used(process) for name, process in self._processes.items()}


def _used(process: psutil.Process) -> float:
    try:
        times, children = process.cpu_times(), process.children()
    except psutil.NoSuchProcess:  # it ended just now
        return 0.0
    ended = times.children_user + times.children_system
    return float(times.user + times.system + ended + sum(_used(child) for child in children))
