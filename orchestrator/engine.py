"""The engine: take a batch of events, lock their sagas, ask the machine, write everything in one transaction.

Rule 1: sagas, log, timers and outbox are written together. Rule 7: rows are locked in id order and a revision is
checked on write. What the engine needs no table for: an inbox. A reply is applied only if it answers the command that
is out now, so a duplicate finds nothing to change (docs/adr/0004).

How a batch dies: before the commit nothing has happened and the broker, or the timer, brings it again; after the
commit the commands are in the outbox, and what is delivered again is ignored by the machine's gate.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy.exc import IntegrityError
from ulid import ULID

from orchestrator import machine, outgoing
from orchestrator.definition import Saga as Definition
from orchestrator.door import BadInput, IfTaken, StartRequest, StartResult, read_request
from orchestrator.events import Answered, DeadlinePassed, Event, TimedOut
from orchestrator.model import Phase, Saga
from orchestrator.registry import Definitions
from orchestrator.store import Change, LostRace, Store, Stored
from orchestrator.window import Windows
from outbox.clock import Clock
from outbox.errors import OutOfReach, SchemaMissing
from outbox.pump import Received
from outbox.unit_of_work import Outbox, UnitOfWork

log = structlog.get_logger()

TIMERS_AT_ONCE: Final = 500
POSTPONED: Final = timedelta(seconds=60)

Happening = tuple[str, Event, Received | None]
"""A saga's id, what happens to it, and the message that told us, if one did."""


class UnknownSaga(Exception):
    """No saga has this id."""


class NotLoaded(Exception):
    """This process does not have the definition that a saga began with."""


def new_saga_id() -> str:
    """A ULID: 26 characters, in the order of time."""
    return str(ULID())


class Engine:
    """Runs the sagas of the definitions that it is given."""

    def __init__(
        self,
        definitions: Definitions,
        outbox: Outbox,
        *,
        clock: Clock,
        ids: Callable[[], str] = new_saga_id,
        max_in_flight: int = 0,
    ) -> None:
        self.definitions = definitions
        self.outbox = outbox
        self.store = Store(outbox.database)
        self.windows = Windows(outbox.database, clock, definitions, max_in_flight)
        self.ignored: Counter[str] = Counter()
        """How many events changed nothing, by kind."""

        self._clock = clock
        self._ids = ids
        self._left_alone: set[str] = set()

    # --- starting --------------------------------------------------------------------------------------------

    def request(
        self,
        definition: str,
        data: Mapping[str, Any],
        key: str | None = None,
        *,
        if_taken: IfTaken = "return",
        labels: Mapping[str, str] | None = None,
        priority: int | None = None,
        begins_at: datetime | None = None,
    ) -> StartRequest:
        """Check an input at the door. Raises KeyError for an unknown saga, BadInput for a bad input."""
        wanted = self.definitions[definition]
        return read_request(wanted, data, key, if_taken=if_taken, labels=labels, priority=priority, begins_at=begins_at)

    async def start(self, requests: Sequence[StartRequest]) -> list[StartResult]:
        """Accept sagas, in one transaction. When it returns, they will end, whatever happens."""
        for _ in range(3):
            try:
                async with self.outbox.unit_of_work() as unit:
                    return await self.start_within(unit, requests)
            except IntegrityError as error:  # another process has just used one of these keys: look again
                log.debug("start collided with another", reason=str(error.orig))
        raise LostRace("these keys are being used by somebody else at this moment; try again")

    async def start_within(self, unit: UnitOfWork, requests: Sequence[StartRequest]) -> list[StartResult]:
        """Accept sagas in the transaction that is given. A key that collides raises IntegrityError: do it again."""
        keyed = [(request.definition, request.key) for request in requests if request.key is not None]
        known = await self.store.find_by_key(unit.connection, keyed)
        changes: list[Change] = []
        results = [self._accept(unit, request, known, changes) for request in requests]
        self.store.write(unit.writes, changes)
        return results

    def _accept(
        self,
        unit: UnitOfWork,
        request: StartRequest,
        known: dict[tuple[str, str], Stored],
        changes: list[Change],
    ) -> StartResult:
        name = (request.definition, request.key or "")
        taken = known.get(name) if request.key is not None else None
        if taken is not None and not _may_start_again(taken, request):
            same = taken.digest == request.digest and request.if_taken != "reject"
            return StartResult("existing" if same else "conflict", taken.saga.id)
        definition, saga_id = self.definitions[request.definition], self.new_id()
        waits = definition.is_limited or request.begins_at is not None
        begins_at = request.begins_at or (unit.now if waits else None)
        terms = machine.Terms(waits, begins_at, request.caller, by=request.by, reason=request.reason)
        decision = machine.start(definition, saga_id, request.data, unit.now, terms)
        generation = 1 if taken is None else taken.generation + 1
        stored = Stored(
            decision.saga, 1, request.key, request.digest, unit.now, generation, request.priority, dict(request.labels)
        )
        changes.append(Change(stored, decision.entries, unit.now))
        outgoing.send(unit, decision)
        if request.key is not None:
            known[name] = stored
        return StartResult("started", saga_id)

    # --- replies and timers ------------------------------------------------------------------------------------

    def new_id(self) -> str:
        """The id of another saga."""
        return self._ids()

    async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """Apply a batch of replies, inside the transaction that is given."""
        events: list[Happening] = []
        for received in batch:
            envelope = received.envelope
            if envelope.answers is None or envelope.outcome is None:
                unit.bury(
                    received.dead_letter("it is not a reply: it does not say what it `answers`, or its `outcome`")
                )
                continue
            saga_id = envelope.answers.partition("/")[0]
            events.append((saga_id, Answered(envelope.answers, envelope.outcome, envelope.data), received))
        stored = await self.store.lock(unit.connection, (saga_id for saga_id, _, _ in events))
        self.apply(unit, stored, events)

    async def fire_timers(self) -> int:
        """Apply the timers that are due. Returns how many sagas had one."""
        loaded = self.definitions.by_fingerprint
        if not await self.store.any_due(loaded, self._clock.now()):
            return 0
        try:
            async with self.outbox.unit_of_work() as unit:
                stored = await self.store.lock_due(unit.connection, loaded, unit.now, TIMERS_AT_ONCE)
                self._time_out(unit, stored)
            return len(stored)
        except (OutOfReach, SchemaMissing):
            raise
        except Exception as error:
            log.warning("timers failed together and are fired one by one", reason=f"{type(error).__name__}: {error}")
            return await self._fire_one_by_one()

    async def _fire_one_by_one(self) -> int:
        """One saga that cannot be handled holds nobody back (rule 9): its timer is moved out of the way."""
        async with self.outbox.unit_of_work() as unit:
            loaded = self.definitions.by_fingerprint
            due = await self.store.due_ids(unit.connection, loaded, unit.now, TIMERS_AT_ONCE)
        for saga_id in due:
            try:
                async with self.outbox.unit_of_work() as unit:
                    self._time_out(unit, await self.store.lock(unit.connection, [saga_id]))
            except (OutOfReach, SchemaMissing):
                raise
            except LostRace:
                log.debug("somebody else has moved a saga whose timer was due", saga=saga_id)
            except Exception as error:
                log.error("the timer of a saga cannot be fired; see `saga verify`", saga=saga_id, reason=repr(error))
                async with self.outbox.unit_of_work() as unit:
                    await self.store.postpone(unit.connection, saga_id, unit.now, unit.now + POSTPONED)
        return len(due)

    def _time_out(self, unit: UnitOfWork, stored: dict[str, Stored]) -> None:
        events: list[Happening] = []
        for saga_id, one in stored.items():
            deadline = one.saga.deadline_at
            if deadline is not None and deadline <= unit.now:
                events.append((saga_id, DeadlinePassed(), None))
            events.extend(
                (saga_id, TimedOut(one.saga.command_id(name), step.attempt), None)
                for name, step in one.saga.steps.items()
                if step.due_at is not None and step.due_at <= unit.now
            )
        self.apply(unit, stored, events)

    # --- one saga, for people --------------------------------------------------------------------------------------

    async def tell(self, saga_id: str, event: Event) -> machine.Decision:
        """Let something happen to one saga: a signal, an order. Raises UnknownSaga, NotLoaded, BadInput."""
        async with self.outbox.unit_of_work() as unit:
            stored = await self.store.lock(unit.connection, [saga_id])
            decision = self.consider(stored.get(saga_id), saga_id, event, unit.now)
            if decision.ignored is None:
                self._write(unit, stored[saga_id], decision)
            return decision

    async def foresee(self, saga_id: str, event: Event) -> machine.Decision:
        """What `tell` would do, without doing it. Raises as `tell` does."""
        async with self.outbox.database.reading() as connection:
            stored = await self.store.read(connection, [saga_id])
        return self.consider(stored.get(saga_id), saga_id, event, self._clock.now())

    def consider(self, one: Stored | None, saga_id: str, event: Event, now: datetime) -> machine.Decision:
        """What an event means to a saga that was read before. Raises as `tell` does, and changes nothing."""
        if one is None:
            raise UnknownSaga(f"there is no saga {saga_id}: `saga ls` lists them")
        definition = self.definition_of(one.saga)
        if definition is None:
            raise NotLoaded(
                f"saga {saga_id} began with {one.saga.definition} v{one.saga.version} ({one.saga.fingerprint}), "
                "which is not loaded here: name its module in SAGA_DEFINITIONS"
            )
        try:
            return machine.decide(definition, one.saga, event, now)
        except machine.UnreadableReply as error:
            raise BadInput(str(error)) from error

    # --- what all have in common -----------------------------------------------------------------------------------

    def apply(
        self,
        unit: UnitOfWork,
        stored: dict[str, Stored],
        events: Sequence[Happening],
    ) -> None:
        """Ask the machine about each event in turn, and write what came of it."""
        changes: list[Change] = []
        for saga_id, event, received in events:
            decision = self._decide(unit, stored.get(saga_id), event, received)
            if decision is None:
                continue
            if decision.ignored is not None:
                self.ignored[type(event).__name__] += 1
                continue
            change = _change(stored[saga_id], decision, unit.now)
            stored[saga_id] = change.stored
            changes.append(change)
            outgoing.send(unit, decision)
        self.store.write(unit.writes, changes)

    def _decide(
        self, unit: UnitOfWork, one: Stored | None, event: Event, received: Received | None
    ) -> machine.Decision | None:
        if one is None:
            self.ignored["UnknownSaga"] += 1
            return None
        definition = self.definition_of(one.saga)
        if definition is None:
            self.ignored["NotLoaded"] += 1
            if received is not None:
                unit.defer(received.envelope)  # a replica that has the definition will get it
            return None
        try:
            return machine.decide(definition, one.saga, event, unit.now)
        except machine.UnreadableReply as error:
            log.error("reply buried as a dead letter", saga=one.saga.id, reason=str(error))
            if received is not None:
                unit.bury(received.dead_letter(str(error)))
            return None

    def _write(self, unit: UnitOfWork, one: Stored, decision: machine.Decision) -> None:
        outgoing.send(unit, decision)
        self.store.write(unit.writes, [_change(one, decision, unit.now)])

    def definition_of(self, saga: Saga) -> Definition[Any] | None:
        """The very definition that a saga began with. Without it the saga is left alone, and we say so once."""
        definition = self.definitions.by_fingerprint.get(saga.fingerprint)
        if definition is None and saga.fingerprint not in self._left_alone:
            self._left_alone.add(saga.fingerprint)
            log.warning(
                "sagas are left alone: their definition is not loaded, or was changed without a new version",
                definition=saga.definition,
                version=saga.version,
                fingerprint=saga.fingerprint,
            )
        return definition


def _change(one: Stored, decision: machine.Decision, now: datetime) -> Change:
    stuck_at = (one.stuck_at or now) if decision.saga.stuck else None
    after = replace(one, saga=decision.saga, revision=one.revision + 1, stuck_at=stuck_at)
    return Change(after, decision.entries, now)


def _may_start_again(taken: Stored, request: StartRequest) -> bool:
    return request.if_taken == "after-failure" and taken.saga.phase is Phase.COMPENSATED
