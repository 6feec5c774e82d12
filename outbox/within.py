"""So long and no longer, and no cancellation is lost on the way.

Python 3.11 loses one in several ways. `asyncio.wait_for` takes an answer that comes in the same turn as the
cancellation; nats-py does the same wherever it waits, and swallows what reaches it while it closes; and before 3.11.3
an `asyncio.timeout` that expires in a task which is being cancelled already raises no TimeoutError, but cancels again.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


def cancellations() -> int:
    """How often the task that asks was told to end, also by what somebody has swallowed."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """Raises TimeoutError when the block takes longer, and CancelledError when the task was cancelled in it, whatever
    the block has made of that.
    """
    before = cancellations()
    try:
        async with asyncio.timeout(seconds) as limit:  # noqa: TID251 (the one place)
            yield
    except asyncio.CancelledError:
        if limit.expired() and cancellations() == before:
            raise TimeoutError from None
        raise
    except Exception as error:
        if cancellations() > before:
            raise asyncio.CancelledError from error
        raise
    if cancellations() > before:
        raise asyncio.CancelledError
