"""The pump: batch in, one transaction, acknowledge. The hot path of every role.

    received -> (process, write) -> before-commit -> committed -> before-ack -> acked

Rule 9: one event that fails holds nobody back. A batch that fails as a whole is done again event by event, each in
a transaction of its own; a message whose event still fails is put back with a delay, and the event is buried as a dead
letter when its handling has failed `GIVE_UP_AFTER` times. What was delivered very often is handled after the others and
with more care (see `suspects`), and buried only when it kills. The broker itself never gives up.

A database that is out of reach, or whose tables somebody locks, is no failure of an event: the batch is held, and done
again as a whole, until that is over.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Final, Protocol

import structlog

from outbox.courier import Source
from outbox.delivery import Delivery
from outbox.envelope import Envelope, Unreadable
from outbox.errors import DatabaseOutOfReach, SchemaMissing
from outbox.outages import outages
from outbox.suspects import DEADLY_AFTER, GIVE_UP_AFTER, SUSPECT_AFTER, Suspects
from outbox.unit_of_work import DeadLetter, Outbox, UnitOfWork
from outbox.within import within

log = structlog.get_logger()

LONGEST_DELAY: Final = 30.0
"""Seconds until a message comes again whose handling has failed."""

LONGEST_DEFERRAL: Final = 300.0
"""The same for one that no replica takes. There may be many, and the broker brings them before all others."""

DEFERRED_AT_MOST: Final = 580
"""Deliveries of a message that no replica takes: about two days of them. The broker would forget it after three."""

Again = dict[int, float]
"""What has to come again, by its `id`, and after how many seconds at the latest."""


@dataclass(frozen=True, slots=True)
class Received:
    """One readable event of a delivery."""

    envelope: Envelope
    subject: str
    deliveries: int

    def dead_letter(self, reason: str) -> DeadLetter:
        """This event, as something that a person should look at."""
        return DeadLetter(self.subject, self.envelope.id, reason, self.envelope.encode(), self.deliveries)

    @property
    def digest(self) -> str:
        """What it is known by among the suspects, and among the dead letters."""
        return self.dead_letter("").digest


class Processor(Protocol):
    """What a role does with a batch, inside the transaction that is given to it."""

    async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """Handle every event of the batch, or raise and leave nothing behind."""
        ...


class Pump:
    """Moves deliveries through a processor. By its `name` a service with several of them tells them apart, and by
    `monotonic`, in seconds, it is told whether it hangs.
    """

    def __init__(
        self,
        source: Source,
        outbox: Outbox,
        processor: Processor,
        *,
        name: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = f"the pump {name}".rstrip()
        self._source = source
        self._outbox = outbox
        self._processor = processor
        self._suspects = Suspects(outbox)
        self._stopping = asyncio.Event()
        self._monotonic = monotonic
        self._moved_at: float | None = None

    @property
    def hangs_for(self) -> float:
        """For how many seconds nothing has come of the batch in hand. A large one may take long, and not hang."""
        return 0.0 if self._moved_at is None else self._monotonic() - self._moved_at

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
                    self._moved_at = None
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
        parts = _trusted_first(deliveries)
        for number, part in enumerate(parts):
            self._moves()
            again = await self._settle(part)
            if again is None:
                for delivery in chain(*parts[number:]):
                    await delivery.put_back(1.0)
                return
            self._outbox.reach("before-ack")
            for delivery in part:
                if id(delivery) in again:
                    await delivery.put_back(min(again[id(delivery)], 0.5 * 2 ** min(10, delivery.deliveries)))
                else:
                    await delivery.ack()
        self._outbox.reach("acked")

    async def _settle(self, deliveries: Sequence[Delivery]) -> Again | None:
        """Commit, however long it takes. Returns what `_commit` does; None when we are told to stop before."""
        try:
            try:
                return await self._commit(deliveries)
            except (DatabaseOutOfReach, SchemaMissing) as error:
                return await self._outlast(deliveries, error)
        except Exception as error:  # none of a message: of the counting, say
            log.warning("a batch is put back", reason=_words(error), messages=len(deliveries), exc_info=error)
            outages().ends(self._name)  # an error is an answer too
            return {id(delivery): LONGEST_DELAY for delivery in deliveries}
        finally:
            self._suspects.let_go()

    async def _commit(self, deliveries: Sequence[Delivery]) -> Again:
        """Returns which deliveries have to come again."""
        if deliveries[0].deliveries > SUSPECT_AFTER:
            return await self._commit_with_care(deliveries)
        try:
            async with self._outbox.unit_of_work() as unit:
                events = _sort(unit, deliveries)
                await self._process(unit, events)
            return _of(deliveries, _deferred(unit))
        except (DatabaseOutOfReach, SchemaMissing):
            raise
        except Exception as error:
            log.warning("a batch failed and is done again one by one", reason=_words(error), messages=len(deliveries))
        async with self._outbox.unit_of_work() as unit:
            events = _sort(unit, deliveries)
        return _of(deliveries, {id(event.envelope): LONGEST_DELAY for event in events if not await self._one(event)})

    async def _commit_with_care(self, deliveries: Sequence[Delivery]) -> Again:
        """The same for suspects: all that nobody has died of in one transaction, the others with nothing else in hand.

        Each is opened in a transaction before the one that handles it: so we know of whom a process has died.
        """
        async with self._outbox.unit_of_work() as unit:
            events = _sort(unit, deliveries)
            deaths = await self._suspects.deaths(unit, (event.digest for event in events))
            await self._bury(unit, [(one, deaths[one.digest]) for one in events if deaths[one.digest] >= DEADLY_AFTER])
            alone = [event for event in events if 0 < deaths[event.digest] < DEADLY_AFTER]
            together = [event for event in events if not deaths[event.digest]]
            await self._suspects.open(unit, (event.digest for event in together))
        again: Again = {}
        try:
            async with self._outbox.unit_of_work() as unit:
                await self._process(unit, together)
            again |= _deferred(unit)
        except (DatabaseOutOfReach, SchemaMissing):
            raise
        except Exception as error:
            log.warning("a batch failed and is done again one by one", reason=_words(error), messages=len(deliveries))
            alone = together + alone
        for event in alone:
            async with self._outbox.unit_of_work() as unit:
                await self._suspects.open(unit, [event.digest])
            if not await self._one(event):
                again[id(event.envelope)] = LONGEST_DELAY
        return _of(deliveries, again)

    async def _process(self, unit: UnitOfWork, events: Sequence[Received]) -> None:
        """Handle these, and close those that may be suspects."""
        await self._processor.process(unit, events)
        known = [event for event in events if event.deliveries > 1]
        deferred = [event for event in known if id(event.envelope) in unit.deferred]
        for event in deferred:
            if event.deliveries > DEFERRED_AT_MOST:
                log.error("message buried that no replica takes", message=event.envelope.id)
                unit.bury(event.dead_letter(f"no replica took it, in {event.deliveries:,} deliveries"))
                unit.deferred.discard(id(event.envelope))
        if deferred:
            await self._suspects.close(unit, (event.digest for event in deferred))
        if settled := [event.digest for event in known if id(event.envelope) not in unit.deferred]:
            await self._suspects.forget(unit, settled)

    async def _one(self, event: Received) -> bool:
        """Handle one event in a transaction of its own. Returns whether it is settled."""
        self._moves()
        try:
            async with self._outbox.unit_of_work() as unit:
                await self._process(unit, [event])
            return not unit.deferred
        except (DatabaseOutOfReach, SchemaMissing):
            raise
        except Exception as error:
            return await self._give_up(event, f"handling failed: {_words(error)}")

    async def _give_up(self, event: Received, reason: str) -> bool:
        async with self._outbox.unit_of_work() as unit:
            tries = await self._suspects.note_failure(unit, event.digest, event.envelope.id, reason)
            if tries >= GIVE_UP_AFTER:
                unit.bury(event.dead_letter(reason))
                await self._suspects.forget(unit, [event.digest])
        if tries < GIVE_UP_AFTER:
            log.warning("message put back", message=event.envelope.id, reason=reason, tries=tries)
            return False
        log.error("message given up and buried in dead_letters", message=event.envelope.id, reason=reason)
        return True

    async def _bury(self, unit: UnitOfWork, deadly: Sequence[tuple[Received, int]]) -> None:
        for event, deaths in deadly:
            log.error("message buried that kills whoever handles it", message=event.envelope.id, deaths=deaths)
            unit.bury(event.dead_letter(f"{deaths} processes died with it in hand, and lately with nothing else"))
        if deadly:
            await self._suspects.forget(unit, (event.digest for event, _ in deadly))

    async def _outlast(self, deliveries: Sequence[Delivery], error: Exception) -> Again | None:
        """Hold on to the batch until the database takes it: an outage or a lock costs no message its tries."""
        outages().notice(error, self._name)
        self._source.hold()
        delay = 0.25
        while not await self._is_stopping_within(delay):
            self._moves()
            for delivery in deliveries:
                await delivery.still_working()
            try:
                again = await self._commit(deliveries)
                outages().ends(self._name)
                self._moves()
                return again
            except (DatabaseOutOfReach, SchemaMissing) as another:
                outages().notice(another, self._name)
            delay = min(5.0, delay * 2)
        return None

    def _moves(self) -> None:
        """It does not hang: another part of the batch, or another try, begins."""
        self._moved_at = self._monotonic()

    async def _is_stopping_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with within(seconds):
                await self._stopping.wait()
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


def _trusted_first(deliveries: Sequence[Delivery]) -> list[list[Delivery]]:
    """In two parts, if there are suspects: what they may do is to harm nobody else."""
    trusted = [delivery for delivery in deliveries if delivery.deliveries <= SUSPECT_AFTER]
    suspects = [delivery for delivery in deliveries if delivery.deliveries > SUSPECT_AFTER]
    return [part for part in (trusted, suspects) if part]


def _deferred(unit: UnitOfWork) -> Again:
    """The envelopes that another replica should have."""
    return dict.fromkeys(unit.deferred, LONGEST_DEFERRAL)


def _of(deliveries: Sequence[Delivery], envelopes: Again) -> Again:
    """The deliveries that carry one of these envelopes."""
    waits = {id(one): [envelopes[id(event)] for event in one.events if id(event) in envelopes] for one in deliveries}
    return {delivery: min(seconds) for delivery, seconds in waits.items() if seconds}


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
