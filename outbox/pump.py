"""The pump: batch in, one transaction, acknowledge. The hot path of every role.

    received -> (process, write) -> before-commit -> committed -> before-ack -> acked

Rule 9: one event that fails holds nobody back. A batch that fails as a whole is done again event by event, each in
a transaction of its own; a message whose event still fails is put back with a delay, and is buried as a dead
letter when it has been delivered `GIVE_UP_AFTER` times. The broker itself never gives up.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from outbox.courier import Source
from outbox.envelope import Envelope, Unreadable
from outbox.errors import DatabaseOutOfReach, SchemaMissing
from outbox.intake import Delivery
from outbox.unit_of_work import DeadLetter, Outbox, UnitOfWork

log = structlog.get_logger()

GIVE_UP_AFTER: Final = 8
NOT_OPENED_AFTER: Final = 40
"""Deliveries after which a message is buried without a look: it must have killed us every time."""

LONGEST_DELAY: Final = 30.0


@dataclass(frozen=True, slots=True)
class Received:
    """One readable event of a delivery."""

    envelope: Envelope
    subject: str
    deliveries: int

    def dead_letter(self, reason: str) -> DeadLetter:
        """This event, as something that a person should look at."""
        return DeadLetter(self.subject, self.envelope.id, reason, self.envelope.encode(), self.deliveries)


class Processor(Protocol):
    """What a role does with a batch, inside the transaction that is given to it."""

    async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """Handle every event of the batch, or raise and leave nothing behind."""
        ...


class Pump:
    """Moves deliveries through a processor."""

    def __init__(self, source: Source, outbox: Outbox, processor: Processor) -> None:
        self._source = source
        self._outbox = outbox
        self._processor = processor
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until `stop` is called, and then to the end of the batch in hand."""
        stopping = asyncio.create_task(self._stopping.wait())
        taking: asyncio.Task[list[Delivery]] | None = None
        try:
            while not self._stopping.is_set():
                taking = asyncio.create_task(self._source.take())
                await asyncio.wait({taking, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if taking.done():
                    await self.handle(taking.result())
        finally:
            stopping.cancel()
            if taking is not None:
                taking.cancel()

    def stop(self) -> None:
        """Finish the batch in hand, take no other."""
        self._stopping.set()

    async def handle(self, deliveries: Sequence[Delivery]) -> None:
        """Commit what the deliveries ask for, then acknowledge them."""
        self._outbox.reach("received")
        try:
            failed = await self._commit(deliveries)
        except (DatabaseOutOfReach, SchemaMissing) as error:
            outlasted = await self._outlast(deliveries, error)
            if outlasted is None:
                return
            failed = outlasted
        self._outbox.reach("before-ack")
        for delivery in deliveries:
            if id(delivery) in failed:
                await delivery.put_back(min(LONGEST_DELAY, 0.5 * 2**delivery.deliveries))
            else:
                await delivery.ack()
        self._outbox.reach("acked")

    async def _commit(self, deliveries: Sequence[Delivery]) -> set[int]:
        """Returns the `id`s of the deliveries that have to come again."""
        exhausted = [delivery for delivery in deliveries if delivery.deliveries > NOT_OPENED_AFTER]
        fresh = [delivery for delivery in deliveries if delivery.deliveries <= NOT_OPENED_AFTER]
        try:
            async with self._outbox.unit_of_work() as unit:
                _bury(unit, exhausted)
                await self._processor.process(unit, _sort(unit, fresh))
            return {id(one) for one in fresh if any(id(event) in unit.deferred for event in one.events)}
        except (DatabaseOutOfReach, SchemaMissing):
            raise
        except Exception as error:
            log.warning("a batch failed and is done again one by one", reason=_words(error), events=_count(fresh))
        async with self._outbox.unit_of_work() as unit:
            _bury(unit, exhausted)
            one_by_one = [(delivery, _sort(unit, [delivery])) for delivery in fresh]
        return {id(delivery) for delivery, events in one_by_one if not await self._each(delivery, events)}

    async def _each(self, delivery: Delivery, events: Sequence[Received]) -> bool:
        """Handle the events of one delivery one by one. Returns whether all are settled."""
        settled = True
        for event in events:
            try:
                async with self._outbox.unit_of_work() as unit:
                    await self._processor.process(unit, [event])
                settled &= not unit.deferred
            except (DatabaseOutOfReach, SchemaMissing):
                raise
            except Exception as error:
                settled &= await self._give_up(event, delivery, error)
        return settled

    async def _give_up(self, event: Received, delivery: Delivery, error: Exception) -> bool:
        reason = f"handling failed: {_words(error)}"
        if delivery.deliveries < GIVE_UP_AFTER:
            log.warning("message put back", message=event.envelope.id, reason=reason, tries=delivery.deliveries)
            return False
        log.error("message given up and buried in dead_letters", message=event.envelope.id, reason=reason)
        async with self._outbox.unit_of_work() as unit:
            unit.bury(event.dead_letter(reason))
        return True

    async def _outlast(self, deliveries: Sequence[Delivery], error: Exception) -> set[int] | None:
        """Hold on to the batch until the database takes it: an outage costs no message its tries.

        Returns what `_commit` does; None when we are told to stop before the database is back.
        """
        log.warning("the database is out of reach; everything waits until it is back", reason=str(error))
        self._source.hold()
        delay = 0.25
        while not await self._is_stopping_within(delay):
            for delivery in deliveries:
                await delivery.still_working()
            with suppress(DatabaseOutOfReach, SchemaMissing):
                failed = await self._commit(deliveries)
                log.info("the database is back")
                return failed
            delay = min(5.0, delay * 2)
        for delivery in deliveries:
            await delivery.put_back(1.0)
        return None

    async def _is_stopping_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()


def _sort(unit: UnitOfWork, deliveries: Sequence[Delivery]) -> list[Received]:
    """The readable events, in the order in which they came; the unreadable ones are buried."""
    readable: list[Received] = []
    for delivery in deliveries:
        for event in delivery.events:
            if isinstance(event, Unreadable):
                log.error("unreadable message buried", subject=delivery.subject, reason=event.reason)
                unit.bury(DeadLetter(delivery.subject, None, event.reason, event.text, delivery.deliveries))
            else:
                readable.append(Received(event, delivery.subject, delivery.deliveries))
    return readable


def _bury(unit: UnitOfWork, deliveries: Sequence[Delivery]) -> None:
    for delivery in deliveries:
        text = delivery.message.data.decode("utf-8", "backslashreplace").replace("\x00", "\\x00")
        reason = f"delivered {delivery.deliveries} times without being handled"
        unit.bury(DeadLetter(delivery.subject, None, reason, text, delivery.deliveries))


def _count(deliveries: Sequence[Delivery]) -> int:
    return sum(len(delivery.events) for delivery in deliveries)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
