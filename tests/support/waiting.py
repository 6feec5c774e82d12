"""Waiting for the outside world: look until it is so, and say what was awaited when it never is."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(look: Callable[[], Awaitable[T]], what: str, *, seconds: float = 30.0) -> T:
    """Look again and again until what is seen is true, and return it."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (seen := await look()):
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds:g} s: {what} (last seen: {seen!r})"
        await asyncio.sleep(0.02)
    return seen
