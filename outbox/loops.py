"""A loop that an on-call engineer can trust: it never dies, never spins, and says once what keeps it from working."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from outbox.errors import OutOfReach, SchemaMissing
from outbox.outages import outages
from outbox.within import cancellations

log = structlog.get_logger()

LONGEST_PAUSE: Final = 5.0

SURVIVED: Final = "not working; trying again"
"""What is logged of an error that nobody has foreseen."""


async def forever(name: str, job: Callable[[], Awaitable[float]]) -> None:
    """Do a job again and again until cancelled; it returns how many seconds to pause.

    What it raises is told when the trouble begins and when it ends; what is out of reach, once for all loops of a role
    (see `outages`). In between the pause grows up to five seconds.
    """
    pause, is_told = 0.0, False
    while True:
        try:
            wait = await job()
            if is_told:
                log.info("working again", job=name)
            if pause:
                outages().ends(name)
            pause, is_told = 0.0, False
        except (OutOfReach, SchemaMissing) as error:
            outages().notice(error, name)
            pause = wait = _longer(pause)
        except Exception as error:  # whatever it is, the next try may go well, and nothing is lost by it
            if not is_told:
                log.warning(SURVIVED, job=name, reason=str(error), exc_info=error)
            pause, is_told = _longer(pause), True
            wait = pause
        if cancellations():
            raise asyncio.CancelledError  # which somebody has swallowed
        await asyncio.sleep(wait)


def _longer(pause: float) -> float:
    return min(LONGEST_PAUSE, max(0.25, pause * 2))
