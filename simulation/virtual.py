"""An event loop whose clock stands still while anybody has work, and then jumps to whatever is due next.

So minutes of timeouts cost nothing, and a run depends on nothing but its seed: there is no selector, no thread, no
signal, and tasks run in the order in which they became ready.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

MOST_TURNS: Final = 30_000
"""Turns of the loop at one moment, which takes some dozens. More than that is somebody who spins."""

MOST_TURNS_IN_ALL: Final = 100_000
"""Turns of the loop in one schedule, which takes some hundreds, and at most some thousands."""


class Spinning(Exception):
    """Somebody works without end, and no time goes by."""


class Idle(Exception):
    """Everybody waits for somebody else: nothing will ever happen again."""


class _Selector:
    """Waits for no file; it only lets time go by."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = 0
        self.turns_in_all = 0

    def select(self, timeout: float | None) -> list[Any]:
        self.turns += 1
        self.turns_in_all += 1
        if self.turns > MOST_TURNS or self.turns_in_all > MOST_TURNS_IN_ALL:
            raise Spinning(f"{self.turns:,} turns at {self.now:.3f} s, and {self.turns_in_all:,} in all")
        if timeout is None:
            raise Idle(f"nobody has anything to do any more, at {self.now:.3f} s")
        if timeout > 0:
            self.now += timeout
            self.turns = 0
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop of one schedule. `time()` is in virtual seconds, from 0."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Selector()
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._selector.now

    def rest(self) -> None:
        """Forget how many turns it has made."""
        self._selector.turns = self._selector.turns_in_all = 0

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody is on another thread."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, and everything that it starts, in virtual time."""
    loop = VirtualLoop()
    loop.set_exception_handler(lambda _loop, _context: None)  # whoever was killed is no news
    try:
        return loop.run_until_complete(main)
    finally:
        _end(loop)


def _end(loop: VirtualLoop) -> None:
    """Nobody goes on."""
    loop.rest()
    try:
        if left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    finally:
        loop.close()
