"""Holds the rows after a run against what must have come of it: a fast wrong run is a failed run."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from benchmarks.roof.schema import ORCHESTRATOR_SUMS, PARTICIPANT_SUMS
from benchmarks.roof.wire import PARTICIPANTS

ROLES: Final = ("orchestrator", *PARTICIPANTS)


class RoofFailed(RuntimeError):
    """The run went wrong, so its figure is worth nothing; the message says what was found."""


async def check(urls: Mapping[str, str], steps: int, sagas: int) -> None:
    """Every saga has ended, every step has had its effect once, and nothing is left to send. Raises RoofFailed."""
    found = {"orchestrator": await _row(urls["orchestrator"], ORCHESTRATOR_SUMS, steps)}
    expected: dict[str, tuple[int, ...]] = {"orchestrator": (sagas, sagas * (steps + 1), 0)}
    for number, participant in enumerate(PARTICIPANTS):
        effects = sagas * len(range(number, steps, len(PARTICIPANTS)))
        found[participant] = await _row(urls[participant], PARTICIPANT_SUMS)
        expected[participant] = (effects, effects, effects, 0)
    if found != expected:
        raise RoofFailed(f"The rows after the run are wrong: {found} instead of {expected}.")


async def _row(url: str, query: str, *arguments: object) -> tuple[int, ...]:
    async with connected(url) as connection:
        row = await connection.fetchrow(query, *arguments)
    return tuple(int(value) for value in row)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """One connection."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()
