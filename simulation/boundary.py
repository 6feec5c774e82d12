"""Where a process meets the outside world: there, and only there, it may be held up, or die.

Between two boundaries a process does nothing that anybody else can see, so that dying anywhere in between is dying at
one of them.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, Literal, Protocol

Place = Literal["statement", "commit", "committed", "publish", "published", "fetch", "acknowledge"]


class Killed(BaseException):
    """This process is dead: what is left of it does nothing any more."""


class Traveller(Protocol):
    """A process, as far as a boundary knows it."""

    async def come_to(self, place: Place, cut: Callable[[], None] = lambda: None) -> None:
        """Come to a boundary: go on, later or never. `cut` breaks the connection that is used there."""
        ...


CURRENT: Final[ContextVar[Traveller | None]] = ContextVar("CURRENT", default=None)
"""The process whose code is running. None: the simulation itself, to which nothing happens."""
