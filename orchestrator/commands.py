"""The orchestrator as a participant: it starts sagas, undoes them and passes on signals when a command says so.

That is how a saga has children, and how a service starts a saga in the transaction in which it writes its own rows: it
puts a StartSaga into its outbox. Promise 1 is kept without an inbox, as for replies (docs/adr/0004): the id of
the command is the saga's key, so that the same command finds the saga that it has started, and an undo that comes
before its do leaves a saga that is compensated from the first, which the do then finds (rule 5).

How a batch dies: before the commit nothing has happened, and the broker brings it again; after it, it is found done.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Final

import structlog
from pydantic import ValidationError

from orchestrator import machine, outgoing
from orchestrator.definition import Saga, SagaData
from orchestrator.door import MAX_KEY, BadInput, StartRequest, read_request
from orchestrator.engine import Engine
from orchestrator.entries import SignalReceived
from orchestrator.events import Signalled, UndoRequested
from orchestrator.model import Caller, Phase
from orchestrator.steps import SagaUndone, SignalSaga, SignalTaken, StartSaga, UndoSaga
from orchestrator.store import Change, Stored
from outbox.contracts import Command
from outbox.envelope import Envelope
from outbox.pump import Received
from outbox.unit_of_work import UnitOfWork

log = structlog.get_logger()

LONGEST_ID: Final = 300
"""Characters: the id of an answer is made of the command's, and must still fit."""

MOST_TOLD: Final = 100
"""Sagas that are not loaded here, of which is told."""

COMMANDS: Final[Mapping[str, type[Command[Any]]]] = {one.type: one for one in (StartSaga, UndoSaga, SignalSaga)}


class Refusal(Exception):
    """A command that is answered "no"."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class OrchestratorCommands:
    """Carries out the commands that are addressed to the orchestrator."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._told: set[str] = set()

    async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        """Handle every command of the batch, in order: one that fails leaves nothing behind.

        Those that start sagas and follow each other are looked up and written together.
        """
        read = [(received, command) for received in batch if (command := self._read(unit, received)) is not None]
        for together, run in groupby(read, lambda one: isinstance(one[1], StartSaga)):
            if together:
                await self._start_all(unit, {one.envelope.id: (one, c) for one, c in run if isinstance(c, StartSaga)})
                continue
            for received, command in run:
                await unit.writes.flush(unit.connection)  # it may be about a saga of this very batch
                with self._refusing(unit, received):
                    await self._carry_out(unit, received, command)

    async def _carry_out(self, unit: UnitOfWork, received: Received, command: Command[Any]) -> None:
        match command:
            case UndoSaga():
                await self._undo(unit, received, command)
            case SignalSaga():
                await self._signal(unit, received, command)
            case _:
                raise TypeError(f"there is a type for {command.type}, and nobody to carry it out")

    # --- starting ----------------------------------------------------------------------------------------------------

    async def _start_all(self, unit: UnitOfWork, commands: Mapping[str, tuple[Received, StartSaga]]) -> None:
        """Begin sagas, by the ids of their commands."""
        await unit.writes.flush(unit.connection)
        keys = [(command.saga, key) for key, (_, command) in commands.items()]
        known = await self._engine.store.find_by_key(unit.connection, keys)
        children: list[StartRequest] = []
        others: list[StartRequest] = []
        for key, (received, command) in commands.items():
            with self._refusing(unit, received):
                if (request := self._start(unit, received, command, known.get((command.saga, key)))) is not None:
                    (children if received.envelope.source == outgoing.SOURCE else others).append(request)
        others = await self._engine.windows.hold_back(unit.connection, others, unit.now)
        await self._engine.start_within(unit, children + others)

    def _start(
        self, unit: UnitOfWork, received: Received, command: StartSaga, known: Stored | None
    ) -> StartRequest | None:
        """The saga that is to be begun, if it is to be."""
        envelope, caller = received.envelope, _caller(received.envelope)
        if known is not None:
            if caller is not None:
                outgoing.answer_again(unit, known.saga, caller)
            return None
        if command.saga not in self._engine.definitions:
            self._tell_of_unloaded(command.saga)
            unit.defer(envelope)  # a replica that has the definition will get it
            return None
        return self._request(command.saga, command.input, envelope.id, caller, command.labels)

    # --- one command each ------------------------------------------------------------------------------------------

    async def _undo(self, unit: UnitOfWork, received: Received, command: UndoSaga) -> None:
        envelope = received.envelope
        caller = _caller(envelope)
        if envelope.undoes is None or caller is None:
            raise Refusal("bad-command", "an undo says which command it `undoes`, and where its answer goes")
        if len(envelope.undoes) > MAX_KEY:
            raise Refusal(
                "bad-command", f"it undoes a command that no saga has as its key: {MAX_KEY} characters at most"
            )
        known = (await self._by_key(unit, command.saga, envelope.undoes)).get((command.saga, envelope.undoes))
        if known is None:
            await self._leave_tombstone(unit, received, command, caller)
        else:
            await self._undo_known(unit, received, known.saga.id, caller)

    async def _undo_known(self, unit: UnitOfWork, received: Received, saga_id: str, caller: Caller) -> None:
        stored = await self._engine.store.lock(unit.connection, [saga_id])
        saga = stored[saga_id].saga  # as it is now that nobody else can change it
        if saga.phase is Phase.COMPENSATED:
            outgoing.answer(unit, caller, saga_id, SagaUndone(saga_id=saga_id))
            return
        definition = self._engine.definition_of(saga)
        if definition is None:
            unit.defer(received.envelope)
            return
        event = UndoRequested(caller)
        decision = machine.decide(definition, saga, event, unit.now)
        if decision.ignored is not None and saga.phase is not Phase.COMPENSATING:
            raise Refusal("cannot-be-undone", f"saga {saga_id}: {decision.ignored}")
        self._engine.apply(unit, stored, [(saga_id, event, received)])

    async def _leave_tombstone(self, unit: UnitOfWork, received: Received, command: UndoSaga, caller: Caller) -> None:
        """A saga that was undone before it was begun: it never asks anybody anything."""
        if command.saga not in self._engine.definitions:
            unit.defer(received.envelope)
            return
        saga_id, definition = self._engine.new_id(), self._engine.definitions[command.saga]
        data, digest = _as_input(definition, command.input)
        held = machine.start(definition, saga_id, data, unit.now, machine.Terms(waits=True))
        undone = machine.decide(definition, held.saga, UndoRequested(caller), unit.now)
        stored = Stored(undone.saga, 1, received.envelope.undoes, digest, unit.now)
        self._engine.store.write(unit.writes, [Change(stored, held.entries + undone.entries, unit.now)])
        outgoing.send(unit, undone)

    async def _signal(self, unit: UnitOfWork, received: Received, command: SignalSaga) -> None:
        stored = await self._engine.store.lock(unit.connection, [command.saga_id])
        if command.saga_id not in stored:
            raise Refusal("unknown-saga", f"there is no saga {command.saga_id}")
        definition = self._engine.definition_of(stored[command.saga_id].saga)
        if definition is None:
            unit.defer(received.envelope)
            return
        event = Signalled(command.step, command.outcome, command.data, received.envelope.source)
        try:
            decision = machine.decide(definition, stored[command.saga_id].saga, event, unit.now)
        except machine.UnreadableReply as error:
            raise Refusal("bad-signal", str(error)) from error
        if decision.ignored is None:
            self._engine.apply(unit, stored, [(command.saga_id, event, received)])
        elif not await self._was_signalled(unit, command):
            raise Refusal("not-awaited", f"saga {command.saga_id}: {decision.ignored}")
        caller = _caller(received.envelope)
        if caller is not None:
            outgoing.answer(unit, caller, command.saga_id, SignalTaken())

    def _tell_of_unloaded(self, saga: str) -> None:
        """Once for each: it may be a misspelt name, and nobody else would ever say so."""
        if saga not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(saga)
            log.warning("a saga is to begin whose definition is not loaded here; it waits for a replica", saga=saga)

    # --- what they have in common --------------------------------------------------------------------------------

    def _read(self, unit: UnitOfWork, received: Received) -> Command[Any] | None:
        envelope = received.envelope
        kind = COMMANDS.get(envelope.type)
        if kind is None:
            problem = f"the orchestrator has no handler for {envelope.type}"
        elif len(envelope.id) > LONGEST_ID:
            problem = f"its id has {len(envelope.id)} characters, and an answer's id must still fit"
        elif not (envelope.replyto or "saga.reply.").startswith("saga.reply."):
            problem = f"no stream takes an answer to replyto {envelope.replyto!r}: it begins with saga.reply."
        else:
            try:
                return kind.model_validate(envelope.data)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                where = ".".join(str(part) for part in first["loc"]) or "data"
                problem = f"{envelope.type} cannot be read: {where}: {first['msg']}"
        log.error("command buried as a dead letter", message=envelope.id, reason=problem)
        unit.bury(received.dead_letter(problem))
        return None

    def _request(
        self, saga: str, data: Mapping[str, Any], key: str, caller: Caller | None, labels: Mapping[str, str]
    ) -> StartRequest:
        try:
            return read_request(self._engine.definitions[saga], data, key, labels=labels, caller=caller)
        except BadInput as error:
            raise Refusal("bad-input", f"{saga} cannot begin with this input: {error}") from error

    async def _was_signalled(self, unit: UnitOfWork, command: SignalSaga) -> bool:
        """Whether a signal for this step has been taken before: then this one may be the same, come again."""
        log = await self._engine.store.log(unit.connection, command.saga_id)
        return any(isinstance(entry, SignalReceived) and entry.step == command.step for entry in log)

    async def _by_key(self, unit: UnitOfWork, saga: str, key: str) -> dict[tuple[str, str], Stored]:
        return await self._engine.store.find_by_key(unit.connection, [(saga, key)])

    @contextmanager
    def _refusing(self, unit: UnitOfWork, received: Received) -> Iterator[None]:
        try:
            yield
        except Refusal as refusal:
            self._refuse(unit, received, refusal)

    def _refuse(self, unit: UnitOfWork, received: Received, refusal: Refusal) -> None:
        caller = _caller(received.envelope)
        if caller is None:
            reason = f"{received.envelope.type} was refused, and nobody asked to be told ({refusal})"
            log.error("command buried as a dead letter", message=received.envelope.id, reason=reason)
            unit.bury(received.dead_letter(reason))
        else:
            outgoing.refuse(unit, caller, received.envelope.subject, refusal.code, str(refusal))


def _caller(envelope: Envelope) -> Caller | None:
    return None if envelope.replyto is None else Caller(envelope.id, envelope.replyto, envelope.attempt)


def _as_input(definition: Saga[Any], data: Mapping[str, Any]) -> tuple[SagaData, str]:
    """What a tombstone keeps of an input. A bad one is no reason to refuse: whoever starts with it is refused, too."""
    try:
        request = read_request(definition, data)
    except BadInput:
        return SagaData(), ""
    return request.data, request.digest
