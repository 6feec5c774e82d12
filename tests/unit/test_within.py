"""Waiting for so long and no longer: whatever is waited for, a cancellation is heard."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from outbox.within import cancellations, within

Work = Callable[[asyncio.Event], Awaitable[None]]


async def wait(news: asyncio.Event) -> None:
    await news.wait()


async def wait_as_nats_py_does(news: asyncio.Event) -> None:
    await asyncio.wait_for(news.wait(), 30)


async def swallow(news: asyncio.Event) -> None:
    """As nats-py while it closes."""
    with suppress(asyncio.CancelledError):
        await news.wait()


async def fail(news: asyncio.Event) -> None:
    """The same, and it ends with an error of its own."""
    await swallow(news)
    raise OSError("it did not close")


@pytest.mark.parametrize("work", [wait, wait_as_nats_py_does, swallow, fail])
@pytest.mark.parametrize("turns", range(4))
async def test_a_cancellation_is_heard_whenever_it_comes(work: Work, turns: int) -> None:
    news, went_on = asyncio.Event(), False

    async def waiting() -> None:
        nonlocal went_on
        async with within(30):
            await work(news)
            await asyncio.sleep(0)
        went_on = True

    task = asyncio.create_task(waiting())
    for _ in range(3):
        await asyncio.sleep(0)
    news.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    was_over = task.done()
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert was_over or (task.cancelled() and not went_on)


async def test_what_takes_longer_is_given_up() -> None:
    with pytest.raises(TimeoutError):
        async with within(0.01):
            await asyncio.sleep(30)


async def test_what_is_in_time_says_what_it_has_to_say() -> None:
    with pytest.raises(KeyError):
        async with within(30):
            raise KeyError
    async with within(30):
        pass


async def test_whoever_cleans_up_after_a_cancellation_is_told_that_it_takes_too_long() -> None:
    """Before Python 3.11.3 `asyncio.timeout` would cancel once more, and the rest were not cleaned up."""
    told: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            try:
                async with within(0.01):
                    await asyncio.sleep(30)
            except TimeoutError:
                told.append(f"too long, and {cancellations()} before")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert (task.cancelled(), told) == (True, ["too long, and 1 before"])
