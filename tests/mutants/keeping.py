"""Mistakes in keeping sagas: store, engine, admission, and the orchestrator as a participant."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator import outgoing, store
from orchestrator.admission import Admission
from orchestrator.commands import OrchestratorCommands
from orchestrator.door import StartRequest
from orchestrator.engine import Engine, Happening
from orchestrator.events import TimedOut
from orchestrator.machine import Decision
from orchestrator.model import Caller, Phase, Saga
from orchestrator.steps import SagaUndone
from orchestrator.store import Change, Store, Stored
from orchestrator.tables import sagas
from orchestrator.window import Window, Windows
from outbox.bulk import Writes
from outbox.outages import Outages
from outbox.pump import Received
from outbox.unit_of_work import UnitOfWork
from tests.mutants.hearing import _any_direction, _fire_early
from tests.mutants.planting import MODULES, Bug, Decider

RIGHT_WRITE = Store.write
RIGHT_PLACES = Window.places_in
RIGHT_HOLD_BACK = Windows.hold_back
RIGHT_DUE_IDS = Store.due_ids
RIGHT_ROW = store._row
RIGHT_SEND_COMMANDS = outgoing._send_commands


class _Heedless(Writes):
    """Writes whatever the revision is now."""

    def insert(self, table: Any, rows: Any, *, known: bool = False, beaten: Exception | None = None) -> None:
        super().insert(table, rows, known=known or beaten is not None)

    def update(self, table: Any, rows: Any, *, unchanged: str | None = None, beaten: Exception | None = None) -> None:
        super().update(table, [{n: v for n, v in row.items() if n != "revision_before"} for row in rows])


def _without_looking(the_store: Any, writes: Writes, changes: Sequence[Change]) -> None:
    heedless = _Heedless()
    heedless._parts = writes._parts
    RIGHT_WRITE(the_store, heedless, changes)


def _only_the_last_of_a_batch(the_store: Any, writes: Writes, changes: Sequence[Change]) -> None:
    """A saga to which two things happen in one batch keeps a log of one."""
    last = {change.stored.saga.id: change for change in changes}
    RIGHT_WRITE(the_store, writes, list(last.values()))


async def _no_saga_has_a_key(_store: Any, _connection: Any, _keys: Any) -> dict[tuple[str, str], Stored]:
    return {}


async def _as_it_was_first_asked(
    the_store: Any, connection: AsyncConnection, fingerprints: Iterable[str], now: datetime, limit: int
) -> list[str]:
    """A statement that is built once keeps the moment for which it was built."""
    the_store.first_asked = getattr(the_store, "first_asked", now)
    return await RIGHT_DUE_IDS(the_store, connection, fingerprints, the_store.first_asked, limit)


def _no_timer_on_the_way_back(change: Change) -> dict[str, Any]:
    row = RIGHT_ROW(change)
    return row | {"due_at": None} if change.stored.saga.phase is Phase.COMPENSATING else row


def _a_new_id_for_each_attempt(unit: UnitOfWork, decision: Decision) -> None:
    renamed = [
        replace(one, command_id=one.command_id if one.attempt == 1 else f"{one.command_id}/{one.attempt}")
        for one in decision.dispatches
    ]
    RIGHT_SEND_COMMANDS(unit, replace(decision, dispatches=tuple(renamed)))


def _an_undo_of_nothing(unit: UnitOfWork, decision: Decision) -> None:
    RIGHT_SEND_COMMANDS(
        unit, replace(decision, dispatches=tuple(replace(one, undoes=None) for one in decision.dispatches))
    )


def _forget_whoever_asked(_unit: UnitOfWork, _saga: Saga, _caller: Caller) -> None:
    return None


def _all_at_once(the_engine: Any, unit: UnitOfWork, stored: dict[str, Stored]) -> None:
    """When one step of a saga is due, all of them are."""
    events: list[Happening] = [
        (saga_id, TimedOut(one.saga.command_id(name), step.attempt), None)
        for saga_id, one in stored.items()
        for name, step in one.saga.steps.items()
        if step.due_at is not None
    ]
    the_engine.apply(unit, stored, events)


async def _count_without_limit(_admission: Any, _unit: UnitOfWork, _name: str) -> int:
    return 0


def _never_over(_outages: Any, _noticed_by: str) -> None:
    """Whoever rests while NATS is away does not hear that it is back."""


async def _behind_itself(window: Any, connection: AsyncConnection) -> int:
    """Whoever waits for a place waits behind all who wait, and so behind itself."""
    waits = (sagas.c.status == "waiting", sagas.c.begins_at <= window._clock.now())
    ahead = await window._count(connection, sagas.c.definition == window._name, *waits)
    return int(await RIGHT_PLACES(window, connection)) - int(ahead)


async def _turn_away(
    windows: Any, connection: AsyncConnection, requests: Sequence[StartRequest], now: datetime
) -> list[StartRequest]:
    """What there is no room for is not begun, and not kept either."""
    held = await RIGHT_HOLD_BACK(windows, connection, requests, now)
    return [after for before, after in zip(requests, held, strict=True) if before == after]


async def _no_tombstone(commands: Any, unit: UnitOfWork, received: Received, command: Any, caller: Caller) -> None:
    outgoing.answer(unit, caller, received.envelope.subject, SagaUndone(saga_id=received.envelope.subject))


async def _answer_before_it_is_undone(
    commands: Any, unit: UnitOfWork, received: Received, saga_id: str, caller: Caller
) -> None:
    outgoing.answer(unit, caller, saga_id, SagaUndone(saga_id=saga_id))


def _start_again(commands: Any, unit: UnitOfWork, received: Received, command: Any, known: Stored | None) -> Any:
    """A child that was begun before is begun once more, under a key of its own."""
    if known is None:
        return RIGHT_START(commands, unit, received, command, known)
    caller = Caller(received.envelope.id, received.envelope.replyto or "", received.envelope.attempt)
    key = f"{received.envelope.id}#{received.envelope.attempt}"
    return commands._request(command.saga, command.input, key, caller, command.labels)


RIGHT_START = OrchestratorCommands._start


BUGS = (
    Bug("no version check", ((Store, "write", _without_looking),)),
    Bug("two decisions of a batch, one log row", ((Store, "write", _only_the_last_of_a_batch),)),
    Bug("a key is not looked up", ((Store, "find_by_key", _no_saga_has_a_key),)),
    Bug("timers are looked for as of the first look", ((Store, "due_ids", _as_it_was_first_asked),)),
    Bug("no timer is stored on the way back", ((store, "_row", _no_timer_on_the_way_back),)),
    Bug(
        "re-asked under a new command id",
        ((outgoing, "_send_commands", _a_new_id_for_each_attempt),),
        plain=True,
    ),
    Bug("an undo does not say what it undoes", ((outgoing, "_send_commands", _an_undo_of_nothing),), plain=True),
    Bug(
        "a reply's direction is inferred from the state",
        tuple((m, "_step_of", _any_direction) for m in MODULES[1:2]),
    ),
    Bug("a timer is not fenced", ((Engine, "_time_out", _all_at_once), (Decider, "time_out", _fire_early)), plain=True),
    Bug("timers rest after the outage is over", ((Outages, "ends", _never_over),)),
    Bug("the limit is not counted", ((Admission, "_in_flight", _count_without_limit),)),
    Bug("whoever waits for a place waits behind itself", ((Window, "places_in", _behind_itself),)),
    Bug("what there is no room for is turned away", ((Windows, "hold_back", _turn_away),)),
    Bug(
        "a child that was undone first leaves no tombstone",
        ((OrchestratorCommands, "_leave_tombstone", _no_tombstone),),
    ),
    Bug(
        "a child is said to be undone and is not",
        ((OrchestratorCommands, "_undo_known", _answer_before_it_is_undone),),
    ),
    Bug(
        "a child that is asked for again is not answered for",
        ((outgoing, "answer_again", _forget_whoever_asked),),
    ),
    Bug("a child that is asked for again is begun again", ((OrchestratorCommands, "_start", _start_again),)),
)
