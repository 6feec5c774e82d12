"""The engine: take a batch of events, lock their sagas, ask the machine, write everything in one transaction.

Rule 1: sagas, log, timers and outbox are written together. Rule 7: rows are locked in id order and a revision is
checked on write. What the engine needs no table for: an inbox. A reply is applied only if it answers the command that
is out now, so a duplicate finds nothing to change (docs/adr/0004).

How a batch dies: before the commit nothing has happened and the broker, or the timer, brings it again; after the
commit the commands are in the outbox, and what is delivered again is ignored by the machine's gate.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final, Literal

import structlog
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from ulid import ULID

from orchestrator import machine
from orchestrator.definition import Saga as Definition
from orchestrator.definition import SagaData
from orchestrator.entries import Compensated, CompensationStarted, Completed, Started, Stuck
from orchestrator.events import Answered, Event, Retried, TimedOut
from orchestrator.model import Saga
from orchestrator.store import Change, LostRace, Store, Stored
from outbox.clock import Clock
from outbox.envelope import Envelope
from outbox.errors import OutOfReach, SchemaMissing
from outbox.loops import forever
from outbox.pump import Received
from outbox.unit_of_work import Outbox, UnitOfWork

log = structlog.get_logger()

TIMERS_AT_ONCE: Final = 500
POSTPONED: Final = timedelta(seconds=60)
MAX_INPUT_BYTES: Final = 256 * 1024
"""A saga's input is refused above this, so that every command made of it fits into a message."""

MAX_KEY: Final = 200
"""Characters: the width of the column."""


class BadInput(Exception):
    """An input that its saga does not allow. Says which field and why."""


class UnknownSaga(Exception):
    """No saga has this id."""


@dataclass(frozen=True, slots=True)
class StartRequest:
    """A saga to be started. The same `key` and the same input is the same saga."""

    definition: str
    data: SagaData
    digest: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class StartResult:
    """What came of a request: `started`, `existing` (same key, same input), or `conflict` (same key, another input)."""

    outcome: Literal["started", "existing", "conflict"]
    saga_id: str


def new_saga_id() -> str:
    """A ULID: 26 characters, in the order of time."""
    return str(ULID())


class Engine:
    """Runs the sagas of the definitions that it is given."""

    def __init__(
        self,
        definitions: Mapping[str, Definition[Any]],
        outbox: Outbox,
        *,
        clock: Clock,
        ids: Callable[[], str] = new_saga_id,
    ) -> None:
        self._definitions = definitions
        self._by_fingerprint = {definition.fingerprint: definition for definition in definitions.values()}
        self._left_alone: set[str] = set()
        self._outbox = outbox
        self._store = Store(outbox.database)
        self._clock = clock
        self._ids = ids
        self.ignored: Counter[str] = Counter()
        """Why events changed nothing, counted."""

    # --- starting --------------------------------------------------------------------------------------------

    def request(self, definition: str, data: Mapping[str, Any], key: str | None = None) -> StartRequest:
        """Check an input at the door. Raises KeyError for an unknown saga, BadInput for a bad input."""
        if "saga_id" in data:
            raise BadInput("saga_id: is minted by the saga; leave it out")
        try:
            read = self._definitions[definition].data.model_validate(dict(data))
        except ValidationError as error:
            raise BadInput("; ".join(_problem(detail) for detail in error.errors(include_url=False)[:5])) from error
        if (problem := _key_problem(key)) is not None:
            raise BadInput(problem)
        content = read.model_dump(mode="json", exclude_unset=True)  # a new optional field is no other input
        if (place := _place_of_nul(content)) is not None:
            raise BadInput(f"{place}: has the character U+0000 in it, which PostgreSQL cannot keep")
        text = json.dumps(content, sort_keys=True)
        if len(text.encode()) > MAX_INPUT_BYTES:
            raise BadInput(f"the input has {len(text.encode()):,} bytes, the limit is {MAX_INPUT_BYTES:,}")
        return StartRequest(definition, read, sha256(text.encode()).hexdigest(), key)

    async def start(self, requests: Sequence[StartRequest]) -> list[StartResult]:
        """Accept sagas, in one transaction. When it returns, they will end, whatever happens."""
        for _ in range(3):
            try:
                async with self._outbox.unit_of_work() as unit:
                    return await self._start(unit, requests)
            except IntegrityError as error:  # another process has just used one of these keys: look again
                log.debug("start collided with another", reason=str(error.orig))
        raise LostRace("these keys are being used by somebody else at this moment; try again")

    async def _start(self, unit: UnitOfWork, requests: Sequence[StartRequest]) -> list[StartResult]:
        keyed = [(request.definition, request.key) for request in requests if request.key is not None]
        found = await self._store.find_by_key(unit.connection, keyed)
        known = {key: (stored.saga.id, stored.digest) for key, stored in found.items()}
        changes: list[Change] = []
        results = [self._accept(unit, request, known, changes) for request in requests]
        await self._store.write(unit.connection, changes)
        return results

    def _accept(
        self,
        unit: UnitOfWork,
        request: StartRequest,
        known: dict[tuple[str, str], tuple[str, str]],
        changes: list[Change],
    ) -> StartResult:
        if request.key is not None and (request.definition, request.key) in known:
            saga_id, digest = known[request.definition, request.key]
            return StartResult("existing" if digest == request.digest else "conflict", saga_id)
        saga_id = self._ids()
        data = request.data.model_copy(update={"saga_id": saga_id})
        decision = machine.start(self._definitions[request.definition], saga_id, data, unit.now)
        stored = Stored(decision.saga, 1, request.key, request.digest, unit.now)
        changes.append(Change(stored, decision.entries, unit.now))
        self._send(unit, decision)
        if request.key is not None:
            known[request.definition, request.key] = (saga_id, request.digest)
        return StartResult("started", saga_id)

    # --- replies, timers, people -------------------------------------------------------------------------------

    async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """Apply a batch of replies, inside the transaction that is given."""
        events: list[tuple[str, Event, Received | None]] = []
        for received in batch:
            envelope = received.envelope
            if envelope.answers is None or envelope.outcome is None:
                unit.bury(
                    received.dead_letter("it is not a reply: it does not say what it `answers`, or its `outcome`")
                )
                continue
            saga_id = envelope.answers.partition("/")[0]
            events.append((saga_id, Answered(envelope.answers, envelope.outcome, envelope.data), received))
        stored = await self._store.lock(unit.connection, (saga_id for saga_id, _, _ in events))
        await self._apply(unit, stored, events)

    async def fire_timers(self) -> int:
        """Apply the timers that are due. Returns how many sagas had one."""
        if not await self._store.any_due(self._by_fingerprint, self._clock.now()):
            return 0
        try:
            async with self._outbox.unit_of_work() as unit:
                stored = await self._store.lock_due(unit.connection, self._by_fingerprint, unit.now, TIMERS_AT_ONCE)
                await self._time_out(unit, stored)
            return len(stored)
        except (OutOfReach, SchemaMissing):
            raise
        except Exception as error:
            log.warning("timers failed together and are fired one by one", reason=f"{type(error).__name__}: {error}")
            return await self._fire_one_by_one()

    async def _fire_one_by_one(self) -> int:
        """One saga that cannot be handled holds nobody back (rule 9): its timer is moved out of the way."""
        async with self._outbox.unit_of_work() as unit:
            due = await self._store.due_ids(unit.connection, self._by_fingerprint, unit.now, TIMERS_AT_ONCE)
        for saga_id in due:
            try:
                async with self._outbox.unit_of_work() as unit:
                    await self._time_out(unit, await self._store.lock(unit.connection, [saga_id]))
            except (OutOfReach, SchemaMissing):
                raise
            except Exception as error:
                log.error("the timer of a saga cannot be fired; see `saga verify`", saga=saga_id, reason=repr(error))
                async with self._outbox.unit_of_work() as unit:
                    await self._store.postpone(unit.connection, saga_id, unit.now + POSTPONED)
        return len(due)

    async def _time_out(self, unit: UnitOfWork, stored: dict[str, Stored]) -> None:
        events: list[tuple[str, Event, Received | None]] = [
            (saga_id, TimedOut(one.saga.command_id(name), step.attempt), None)
            for saga_id, one in stored.items()
            for name, step in one.saga.steps.items()
            if step.due_at is not None and step.due_at <= unit.now
        ]
        await self._apply(unit, stored, events)

    async def retry(self, saga_id: str, *, by: str, reason: str) -> str | None:
        """Try again what is stuck. Returns why nothing was done, or None. Raises UnknownSaga."""
        async with self._outbox.unit_of_work() as unit:
            stored = await self._store.lock(unit.connection, [saga_id])
            if saga_id not in stored:
                raise UnknownSaga(f"there is no saga {saga_id}")
            reasons = await self._apply(unit, stored, [(saga_id, Retried(by, reason), None)])
        return reasons[0] if reasons else None

    async def _apply(
        self,
        unit: UnitOfWork,
        stored: dict[str, Stored],
        events: Sequence[tuple[str, Event, Received | None]],
    ) -> list[str]:
        """Ask the machine about each event in turn, and write what came of it. Returns why events were ignored."""
        changes: list[Change] = []
        reasons: list[str] = []
        for saga_id, event, received in events:
            one = stored.get(saga_id)
            if one is None:
                reasons.append("unknown saga")
                continue
            definition = self._definition_of(one.saga)
            if definition is None:
                reasons.append(f"its definition {one.saga.definition} {one.saga.fingerprint} is not loaded")
                if received is not None:
                    unit.defer(received.envelope)  # a replica that has the definition will get it
                continue
            try:
                decision = machine.decide(definition, one.saga, event, unit.now)
            except machine.UnreadableReply as error:
                log.error("reply buried as a dead letter", saga=saga_id, reason=str(error))
                if received is not None:
                    unit.bury(received.dead_letter(str(error)))
                continue
            if decision.ignored is not None:
                reasons.append(decision.ignored)
                continue
            after = replace(one, saga=decision.saga, revision=one.revision + 1)
            stored[saga_id] = after
            changes.append(Change(after, decision.entries, unit.now))
            self._send(unit, decision)
        self.ignored.update(reasons)
        await self._store.write(unit.connection, changes)
        return reasons

    def _definition_of(self, saga: Saga) -> Definition[Any] | None:
        """The very definition that a saga began with. Without it the saga is left alone, and we say so once."""
        definition = self._by_fingerprint.get(saga.fingerprint)
        if definition is None and saga.fingerprint not in self._left_alone:
            self._left_alone.add(saga.fingerprint)
            log.warning(
                "sagas are left alone: their definition is not loaded, or was changed without a new version",
                definition=saga.definition,
                version=saga.version,
                fingerprint=saga.fingerprint,
            )
        return definition

    # --- what leaves -------------------------------------------------------------------------------------------

    def _send(self, unit: UnitOfWork, decision: machine.Decision) -> None:
        saga = decision.saga
        for dispatch in decision.dispatches:
            command = dispatch.command
            envelope = Envelope(
                id=dispatch.command_id,
                source="/orchestrator",
                type=command.type,
                subject=saga.id,
                time=unit.now,
                data=command.model_dump(mode="json"),
                attempt=dispatch.attempt,
                replyto=f"saga.reply.{command.participant}",
                undoes=dispatch.undoes,
            )
            unit.send(command.subject(), envelope)
        for number, entry in enumerate(decision.entries):
            if isinstance(entry, Started | CompensationStarted | Completed | Compensated | Stuck):
                self._announce(unit, saga, entry.kind, number)

    def _announce(self, unit: UnitOfWork, saga: Saga, kind: str, number: int) -> None:
        """Tell whoever listens what has become of a saga, on `saga.event.<definition>.<kind>`."""
        envelope = Envelope(
            id=f"{saga.id}/event/{kind}/{unit.now.timestamp():.6f}/{number}",
            source="/orchestrator",
            type=f"{saga.definition}.{kind}",
            subject=saga.id,
            time=unit.now,
            data={"status": saga.status, "failure": saga.failure, "stuck": saga.stuck},
        )
        unit.send(f"saga.event.{saga.definition}.{kind}", envelope)


def _problem(detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    return f"{where}: {detail['msg']}" if where else str(detail["msg"])


def _key_problem(key: str | None) -> str | None:
    """Why a key cannot be kept; what the databases would otherwise say, each in its own way."""
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY:
        return "the key is empty" if not key else f"the key is longer than {MAX_KEY} characters"
    if "\x00" in key or key.encode(errors="replace") != key.encode(errors="surrogatepass"):
        return "the key has a character in it that is no text"
    return None


def _place_of_nul(value: Any, place: str = "") -> str | None:
    """The path of the first text with U+0000 in it."""
    if isinstance(value, str):
        return place if "\x00" in value else None
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = (_place_of_nul(item, f"{place}.{name}".lstrip(".")) for name, item in pairs)
    return next((one for one in found if one is not None), None)


TICK: Final = 0.2
"""Seconds between two looks at what is due."""


async def run_timers(engine: Engine) -> None:
    """Fire timers until cancelled. An outage of the database is waited out; the timers are still there after it."""

    async def fire() -> float:
        return 0.0 if await engine.fire_timers() == TIMERS_AT_ONCE else TICK

    await forever("fire the timers", fire)
