"""The intake: what comes to a role fills a small queue, from which batches are taken.

A batch is what is already waiting: at light load one message, under load hundreds of events. Nothing lingers
to make a batch bigger. The broker is asked for as many messages as there is room for, and hands each over as it
comes (docs/adr/0024). The queue is short, so a slow service stops asking, and the broker holds what it cannot take:
that is the backpressure.
"""

import asyncio
from contextlib import suppress
from typing import Final

import structlog

from outbox.delivery import Delivery, Message
from outbox.errors import BrokerOutOfReach
from outbox.loops import forever
from outbox.pull import PullSubscription
from outbox.within import within

log = structlog.get_logger()

QUEUE_MESSAGES: Final = 64
"""With so many in the queue no more are asked for."""

QUEUE_BYTES: Final = 1024 * 1024
"""Nor with so much: a message may hold hundreds of events, and what waits for longer than `ack_wait` comes again."""

AT_ONCE: Final = 16
"""Messages that are asked for together. They are sent to us even when we hang meanwhile, and come to others later."""

EXPIRES: Final = 1.0
"""Seconds after which the broker forgets what it was asked for. It is asked again then, in case it forgot before."""

SLACK: Final = 0.2
"""Seconds by which the broker's word that a request is over may be late."""

MAX_EVENTS: Final = 500
MAX_BYTES: Final = 4 * 1024 * 1024
"""A batch ends at the first of these two, so that large messages do not make a large transaction."""

PUT_BACK: Final = 1.0
"""Seconds after which others are sent what we had been sent, and did not take."""


class Intake:
    """What comes to one role, in batches."""

    def __init__(
        self,
        subscription: PullSubscription,
        *,
        room: int = QUEUE_MESSAGES,
        at_once: int = AT_ONCE,
        expires: float = EXPIRES,
    ) -> None:
        self._subscription = subscription
        self._most = room
        self._at_once = at_once
        self._expires = expires
        self._queue: asyncio.Queue[Message] = asyncio.Queue()
        self._bytes = 0  # that are in the queue
        self._room = asyncio.Event()
        self._room.set()
        self._asked = 0  # how often the broker was
        self._missing = 0  # messages that it has been asked for, and has not sent
        self._answered = asyncio.Event()
        self._pause = 0.0  # when nobody can serve us at the moment: nothing is gained by haste
        self._asking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to ask, unless it does already. The stream and its consumer must be there. Raises BrokerOutOfReach."""
        if self._asking is not None:
            return
        await self._subscription.open(self)
        self._asking = asyncio.create_task(forever("ask for messages", self._ask))

    async def stop(self) -> None:
        """Ask no more, and give back what was sent and not taken: others get it as soon as we are gone."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
            self._asking = None
        try:
            await self._subscription.leave()
            while not self._queue.empty():
                await Delivery(self._taken(self._queue.get_nowait())).put_back(PUT_BACK)
        except BrokerOutOfReach as error:  # what we hold comes again after ack_wait
            log.debug("the intake could not take its leave", reason=str(error))
        await self._subscription.close()

    def hold(self) -> None:
        """Ask no more until something is taken again."""
        self._room.clear()

    async def take(self) -> list[Delivery]:
        """Wait for a message, and take with it what else is already there."""
        if not self._is_full:
            self._room.set()  # whoever was held up goes on, or nothing would ever come
        deliveries = [Delivery(self._taken(await self._queue.get()))]
        events, size = len(deliveries[0].events), len(deliveries[0].message.data)
        while events < MAX_EVENTS and size < MAX_BYTES and not self._queue.empty():
            deliveries.append(Delivery(self._taken(self._queue.get_nowait())))
            events += len(deliveries[-1].events)
            size += len(deliveries[-1].message.data)
        if not self._is_full:
            self._room.set()
        return deliveries

    @property
    def _is_full(self) -> bool:
        return self._queue.qsize() >= self._most or self._bytes >= QUEUE_BYTES

    def _taken(self, message: Message) -> Message:
        self._bytes -= len(message.data)
        return message

    async def _ask(self) -> float:
        """Ask once, and wait until everything has been sent or the request is over."""
        await self._room.wait()
        await self._subscription.open(self)
        if not self._subscription.is_up:
            return SLACK  # what is asked now would be asked many times over when the broker is back
        self._asked += 1
        self._missing = max(1, min(self._at_once, self._most - self._queue.qsize()))
        self._pause = 0.0
        self._answered.clear()
        await self._subscription.ask(self._asked, self._missing, self._expires)
        with suppress(TimeoutError):
            async with within(self._expires + SLACK):
                await self._answered.wait()
        return self._pause

    def hear(self, message: Message) -> None:
        """Keep a message until it is taken."""
        self._queue.put_nowait(message)
        self._bytes += len(message.data)
        if self._is_full:
            self._room.clear()
        self._missing -= 1
        if self._missing <= 0:
            self._answered.set()

    def hear_end(self, request: int, *, in_time: bool) -> None:
        """Ask again, at once or a little later."""
        if request == self._asked:
            self._pause = 0.0 if in_time else SLACK
            self._answered.set()
