"""Gathers the facts about one saga: from the databases, the outboxes, the dead letters, and the consumers in JetStream.

Whatever cannot be asked is told as a fact, and the rest is asked all the same: this is for when things are broken.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo
from nats.js.errors import NotFoundError
from sqlalchemy import and_, func, or_, select

from orchestrator.definition import Action, base_name
from orchestrator.definition import Saga as Definition
from orchestrator.entries import Asked, RefusedStep, UndoAsked, UndoRefused
from orchestrator.entries import Paused as PausedEntry
from orchestrator.model import ENDED, Phase, Saga, StepStatus
from orchestrator.queries import LogLine, Queries, SagaView
from orchestrator.registry import Definitions
from orchestrator.tables import sagas, throttles
from orchestrator.why.facts import Facts, Failing, Letter, Listeners, OpenStep, Paused, Queue, Relative, Stuck
from orchestrator.window import Windows
from outbox.broker import Broker
from outbox.database import Database
from outbox.dead_letters import Buried, buried_from
from outbox.errors import BrokerOutOfReach, DatabaseOutOfReach, SchemaMissing
from outbox.suspects import GIVE_UP_AFTER
from outbox.tables import MessagingTables
from outbox.topology import ACK_WAIT, Inlet, command_inlet
from outbox.within import within

PATIENCE: Final = 5.0
"""Seconds that one database, or the broker, is given to answer."""

LOOKS: Final = 4
BETWEEN_LOOKS: Final = 0.15
"""A replica asks anew for messages once a second: between two requests nobody seems to listen."""

REPLIES: Final = "replies"
"""What the orchestrator's consumer of replies is called among the services. Its commands are `orchestrator`."""

UNDER_WAY: Final = frozenset({StepStatus.ASKED, StepStatus.UNDOING})
TO_ASK_AGAIN: Final = frozenset({StepStatus.REFUSED, StepStatus.UNDO_REFUSED})


@dataclass(frozen=True, slots=True)
class Door:
    """How to look into one role's database. `open` raises DatabaseOutOfReach."""

    role: str
    open: Callable[[], Database]
    tables: MessagingTables


@dataclass(frozen=True, slots=True)
class Advisor:
    """What a person can order: for a saga that is stuck, to signal one that waits at a step, and where NATS is away."""

    stuck: Callable[[Definition[Any], Saga, datetime], tuple[str, ...]]
    signal: Callable[[Definition[Any], Saga, str], tuple[str, ...]]
    broker: tuple[str, ...]


@dataclass(slots=True)
class Found:
    """What one database holds of some commands, each by its id. `problem`: why it could not be asked."""

    answered: set[str] = field(default_factory=set)
    outgoing: set[str] = field(default_factory=set)
    letters: dict[str, Letter] = field(default_factory=dict)
    failing: dict[str, Failing] = field(default_factory=dict)
    problem: str | None = None


class Witness:
    """Looks, and changes nothing."""

    def __init__(
        self,
        queries: Queries,
        database: Database,
        definitions: Definitions,
        doors: Iterable[Door],
        broker: Broker,
        inlets: Mapping[str, Inlet],
        advisor: Advisor,
        windows: Windows,
    ) -> None:
        self._queries = queries
        self._database = database
        self._definitions = definitions
        self._doors = {door.role: door for door in doors}
        self._broker = broker
        self._inlets = inlets
        self._advisor = advisor
        self._windows = windows

    async def facts(self, saga_id: str, now: datetime) -> Facts:
        """Everything that can be known of a saga. Raises UnknownSaga, and DatabaseOutOfReach for its own database."""
        view, saga = await self._queries.get(saga_id, now), await self._queries.state(saga_id)
        log = [line async for line in self._queries.whole_log(saga_id)]
        definition = self._definitions.by_fingerprint.get(saga.fingerprint)
        known = Facts(
            saga_id,
            saga.definition,
            saga.version,
            saga.fingerprint,
            saga.status,
            now,
            is_loaded=definition is not None,
            failure=saga.failure,
            ended_at=view.ended_at,
            deadline_at=None if saga.paused or saga.phase is not Phase.RUNNING else saga.deadline_at,
            is_compensating=saga.phase is Phase.COMPENSATING,
            paused=_paused(saga, log),
            queue=await self._queue(view, saga, definition, now),
        )
        if saga.phase in ENDED or definition is None:
            return replace(known, stuck=_stuck(saga))
        steps = [self._open_step(definition, saga, name, log) for name in _open(saga)]
        steps = [await self._with_child(step, view) for step in steps]
        return await self._with_surroundings(known, definition, saga, steps)

    # --- the saga ------------------------------------------------------------------------------------------------

    def _open_step(self, definition: Definition[Any], saga: Saga, name: str, log: Sequence[LogLine]) -> OpenStep:
        state, spec = saga.steps[name], definition.spec_of(name)
        undo = state.status in (StepStatus.UNDOING, StepStatus.UNDO_REFUSED)
        asked = [line.at for line in log if _asks(line, name, undo=undo)]
        command = spec.undo_command if undo else spec.command
        return OpenStep(
            name,
            spec.action,
            command.participant if command else None,
            undo,
            state.tries,
            (spec.undo_policy if undo else spec.policy).attempts,
            since=min(asked, default=None),
            last_asked_at=max(asked, default=None),
            due_at=state.due_at,
            refusal=_refusal(name, log) if state.status in TO_ASK_AGAIN else None,
            signal=self._advisor.signal(definition, saga, name) if spec.action is Action.WAIT else (),
        )

    async def _with_child(self, step: OpenStep, view: SagaView) -> OpenStep:
        child = view.children.get(base_name(step.name))
        if child is None or step.action is not Action.COMMAND:
            return step
        return replace(step, child=Relative(child, (await self._queries.statuses([child])).get(child, "unknown")))

    async def _queue(
        self, view: SagaView, saga: Saga, definition: Definition[Any] | None, now: datetime
    ) -> Queue | None:
        if saga.phase is not Phase.WAITING:
            return None
        ours = and_(sagas.c.definition == saga.definition, sagas.c.id != saga.id)
        waits = and_(ours, sagas.c.status == "waiting", sagas.c.begins_at <= now)
        sooner = and_(sagas.c.priority == view.priority, sagas.c.begins_at < (view.begins_at or now))
        ahead = select(func.count()).where(waits, or_(sagas.c.priority > view.priority, sooner))
        in_flight = select(func.count()).where(ours, sagas.c.ended_at.is_(None), sagas.c.begins_at.is_(None))
        next_at = select(throttles.c.next_at).where(throttles.c.definition == saga.definition)
        window = self._windows.of(saga.definition)
        async with self._database.reading() as connection:
            return Queue(
                view.begins_at,
                (await connection.execute(ahead)).scalar_one(),
                (await connection.execute(in_flight)).scalar_one(),
                definition.max_in_flight if definition else None,
                (await connection.execute(next_at)).scalar() if definition and definition.rate else None,
                window.size - await window.places_in(connection) if window else 0,
                window.size if window else None,
            )

    # --- what lies around it ---------------------------------------------------------------------------------------

    async def _with_surroundings(
        self, known: Facts, definition: Definition[Any], saga: Saga, steps: Sequence[OpenStep]
    ) -> Facts:
        """Ask the databases of those that take part, and the broker, at once."""
        commands = {step.name: saga.command_id(step.name) for step in steps if step.action is Action.COMMAND}
        roles = {step.participant for step in steps if step.participant}
        stuck = _stuck(saga)
        if stuck is not None:
            commands[stuck.step] = saga.command_id(stuck.step)
            roles |= {definition.spec_of(stuck.step).participant} - {""}
        consumers = self._consumers(roles, is_due=_is_due(known, steps))
        books, services = await asyncio.gather(
            self._books(roles, set(commands.values())), self._services(consumers, known.now)
        )
        if stuck is not None:
            letter = _letter(books, definition.spec_of(stuck.step).participant, commands[stuck.step])
            stuck = replace(stuck, command=self._advisor.stuck(definition, saga, known.now), letter=letter)
        return replace(
            known,
            stuck=stuck,
            steps=tuple(_placed(step, commands.get(step.name), books) for step in steps),
            services=_with_problems({} if isinstance(services, str) else services, books),
            broker=services if isinstance(services, str) else None,
            broker_command=self._advisor.broker,
        )

    async def _books(self, roles: Iterable[str], commands: Iterable[str]) -> dict[str, Found]:
        """What is in the databases of these roles, and in the orchestrator's."""
        asked = sorted({"orchestrator", *roles} & self._doors.keys())
        found = await asyncio.gather(*(self._found(self._doors[role], sorted(commands)) for role in asked))
        return dict(zip(asked, found, strict=True))

    async def _found(self, door: Door, commands: Sequence[str]) -> Found:
        try:
            async with within(PATIENCE):
                return await _look_into(door, commands)
        except DatabaseOutOfReach as error:
            return Found(problem=error.what)
        except SchemaMissing as error:
            return Found(problem=str(error))
        except TimeoutError:
            return Found(problem=f"the database of {door.role} does not answer within {PATIENCE:g} s")

    def _consumers(self, roles: Iterable[str], *, is_due: bool) -> list[str]:
        """Those of these roles, and that of the replies. None if it waits neither for them nor for a timer.

        A timer waits for NATS as well: none is fired while no command can leave (docs/adr/0027).
        """
        names = sorted(roles)
        return [*names, REPLIES] if names or is_due else []

    async def _services(self, names: Sequence[str], now: datetime) -> dict[str, Listeners] | str:
        """Who listens at these consumers; or why NATS cannot be asked."""
        if not names:
            return {}
        try:
            await self._broker.connect()
            looks = [await self._look(names)]
            for _ in range(LOOKS - 1):
                await asyncio.sleep(BETWEEN_LOOKS)
                looks.append(await self._look(names))
        except BrokerOutOfReach as error:
            return error.what
        except (NatsError, TimeoutError, OSError) as error:
            return f"NATS does not answer ({str(error) or type(error).__name__})"
        seen = {name: _listeners(name, [look[name] for look in looks], now) for name in names}
        return {name: replace(one, is_ours=name in self._inlets) for name, one in seen.items()}

    def _inlet_of(self, name: str) -> Inlet:
        """Also of a participant that somebody else runs."""
        return self._inlets.get(name) or command_inlet(name)

    async def _look(self, names: Sequence[str]) -> dict[str, ConsumerInfo | None]:
        return {name: await _consumer(self._broker.jetstream, self._inlet_of(name)) for name in names}


async def _look_into(door: Door, commands: Sequence[str]) -> Found:
    """What one database holds of these commands: in its inbox, its outbox, its dead letters, its suspects."""
    database, tables, found = door.open(), door.tables, Found()
    inbox, outbox, letters, suspects = tables.inbox.c, tables.outbox.c, tables.dead_letters, tables.suspects.c
    try:
        async with database.reading() as connection:
            known = select(inbox.message_id).where(database.any_of(inbox.message_id, commands))
            found.answered |= set((await connection.execute(known)).scalars())
            for command in commands:
                quoted = f'"{command}"'
                waits = select(outbox.message_id).where(outbox.body.contains(quoted, autoescape=True)).limit(1)
                if (await connection.execute(waits)).first() is not None:
                    found.outgoing.add(command)
                buried = letters.c.body.contains(quoted, autoescape=True)
                newest = select(letters).where(buried).order_by(letters.c.id.desc()).limit(1)
                if row := (await connection.execute(newest)).first():
                    count = await connection.execute(select(func.count()).select_from(letters).where(buried))
                    found.letters[command] = _as_letter(buried_from(door.role, row), count.scalar_one() - 1)
                ids = (command, f"{command}/reply")
                failing = select(suspects.failed, suspects.reason).where(suspects.message_id.in_(ids))
                failing = failing.where(suspects.failed > 0).order_by(suspects.at.desc()).limit(1)
                if row := (await connection.execute(failing)).first():
                    found.failing[command] = Failing(row.failed, GIVE_UP_AFTER, row.reason or "")
    finally:
        await database.close()
    return found


def _as_letter(buried: Buried, alike: int) -> Letter:
    return Letter(buried.id, buried.reason, (buried.impossible or buried.useless) is not None, alike)


def _with_problems(services: Mapping[str, Listeners], books: Mapping[str, Found]) -> dict[str, Listeners]:
    """The services, and which of their databases cannot be reached."""
    problems = {role: one.problem for role, one in books.items() if one.problem is not None}
    unknown = {role: Listeners(role) for role in problems}
    return {name: replace(one, database=problems.get(name)) for name, one in {**unknown, **services}.items()}


async def _consumer(stream: JetStreamContext, inlet: Inlet) -> ConsumerInfo | None:
    try:
        found: ConsumerInfo = await stream.consumer_info(inlet.stream, inlet.durable)
    except NotFoundError:
        return None
    return found


def _listeners(name: str, looks: Sequence[ConsumerInfo | None], now: datetime) -> Listeners:
    """What the last look at a consumer tells, and whoever listened in any of them."""
    role, last = "orchestrator" if name == REPLIES else name, looks[-1]
    if last is None:
        return Listeners(role, listeners=0, waiting=None)
    seen = [look for look in looks if look is not None]
    listeners = max(look.num_waiting or 0 for look in seen)
    return Listeners(role, listeners, last.num_pending or 0, last.num_ack_pending or 0, is_at_work(seen, now))


def is_at_work(looks: Sequence[ConsumerInfo], now: datetime) -> bool:
    """Whether a consumer gives out messages, or hears of them: between two looks, or within its ack_wait.

    A batch may take seconds, and moves nothing meanwhile. What takes longer than ack_wait is given to others.
    """
    if len({_progress(look) for look in looks}) > 1:
        return True
    last = looks[-1]
    moved = [one.last_active for one in (last.delivered, last.ack_floor) if one and one.last_active]
    patience = timedelta(seconds=last.config.ack_wait or ACK_WAIT.total_seconds())
    return any(at + patience > now for at in moved)


def _progress(look: ConsumerInfo) -> tuple[int, ...]:
    given, heard = (one.consumer_seq if one else 0 for one in (look.delivered, look.ack_floor))
    return given, heard, look.num_ack_pending or 0


def _placed(step: OpenStep, command: str | None, books: Mapping[str, Found]) -> OpenStep:
    """A step, and where its command and the answer to it are."""
    ours, theirs = books.get("orchestrator", Found()), books.get(step.participant or "", Found())
    if command is None:
        return step
    placed = replace(step, unpublished_since=step.last_asked_at if command in ours.outgoing else None)
    if step.participant == "orchestrator":  # it keeps no inbox, and its outbox and letters are ours
        return replace(placed, letter=ours.letters.get(command), failing=ours.failing.get(command))
    return replace(
        placed,
        is_answered=None if theirs.problem else command in theirs.answered,
        is_answer_unpublished=command in theirs.outgoing,
        letter=theirs.letters.get(command),
        answer_letter=ours.letters.get(command),
        failing=theirs.failing.get(command),
        answer_failing=ours.failing.get(command),
    )


def _letter(books: Mapping[str, Found], participant: str, command: str) -> Letter | None:
    """The dead letter that a command, or the answer to it, has become."""
    found = (books[role].letters.get(command) for role in (participant, "orchestrator") if role in books)
    return next((letter for letter in found if letter is not None), None)


def _open(saga: Saga) -> list[str]:
    """The steps that something is awaited of."""
    waiting = {name: one for name, one in saga.steps.items() if not one.stuck}
    return [
        name
        for name, one in waiting.items()
        if one.status in UNDER_WAY or (one.status in TO_ASK_AGAIN and one.due_at is not None)
    ]


def _is_due(known: Facts, steps: Sequence[OpenStep]) -> bool:
    """Whether the time has come for one of its timers."""
    return any(at is not None and at <= known.now for at in (known.deadline_at, *(step.due_at for step in steps)))


def _asks(line: LogLine, step: str, *, undo: bool) -> bool:
    entry = line.entry
    return isinstance(entry, UndoAsked if undo else Asked) and entry.step == step


def _refusal(step: str, log: Sequence[LogLine]) -> str:
    reasons = [
        line.entry.reason
        for line in log
        if isinstance(line.entry, RefusedStep | UndoRefused) and line.entry.step == step
    ]
    return reasons[-1] if reasons else "without a reason"


def _paused(saga: Saga, log: Sequence[LogLine]) -> Paused | None:
    if saga.paused is None:
        return None
    orders = [line for line in log if isinstance(line.entry, PausedEntry)]
    if orders and isinstance(entry := orders[-1].entry, PausedEntry):
        return Paused(saga.paused, entry.reason, orders[-1].at)
    return Paused(saga.paused, "", None)


def _stuck(saga: Saga) -> Stuck | None:
    return next((Stuck(name, step.stuck) for name, step in saga.steps.items() if step.stuck), None)
