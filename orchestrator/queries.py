"""The reading side: lists of sagas, one saga with its history, and the event log as it grows."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, Select, false, func, or_, select

from orchestrator.definition import base_name
from orchestrator.engine import UnknownSaga
from orchestrator.entries import (
    ENTRIES,
    Asked,
    Done,
    DoneByHand,
    Dropped,
    Entry,
    RefusedStep,
    UndoAsked,
    Undone,
    UndoneByHand,
    UndoRefused,
)
from orchestrator.model import ENDED, SAGA, Saga
from orchestrator.registry import Definitions
from orchestrator.tables import saga_labels, saga_log, sagas
from outbox.database import Database

OVERLAP: Final = timedelta(seconds=5)
"""How long a log row may take from getting its position to being visible: a position is not commit order."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which sagas to list. Empty fields let everything pass."""

    statuses: Sequence[str] = ()
    definitions: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    incident: str | None = None
    started_before: datetime | None = None
    started_after: datetime | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Summary:
    """One saga in a list. `done` and `steps` count steps; `duration` is in seconds, up to now while it runs."""

    id: str
    definition: str
    key: str | None
    status: str
    done: int
    undone: int
    steps: int
    started_at: datetime
    duration: float
    reason: str | None


@dataclass(slots=True)
class StepView:
    """One step of one saga, as its log tells it. Times are None for what has not happened."""

    name: str
    kind: str
    participant: str
    status: str
    attempts: int = 0
    undo_attempts: int = 0
    asked_at: datetime | None = None
    answered_at: datetime | None = None
    undo_asked_at: datetime | None = None
    undone_at: datetime | None = None
    due_at: datetime | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class SagaView:
    """One saga with its steps."""

    summary: Summary
    version: int
    fingerprint: str
    data: dict[str, Any]
    ended_at: datetime | None
    steps: list[StepView] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    priority: int = 0
    begins_at: datetime | None = None
    deadline_at: datetime | None = None
    paused_by: str | None = None
    fork_of: str | None = None
    parent: str | None = None
    children: dict[str, str] = field(default_factory=dict)
    """Step -> the id of the saga that it started."""


@dataclass(frozen=True, slots=True)
class Incident:
    """Sagas that are stuck for the same reason."""

    name: str
    sagas: int
    first_at: datetime
    last_at: datetime
    example: str
    """The id of one of them."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One entry of the event log."""

    position: int
    saga_id: str
    revision: int
    at: datetime
    entry: Entry

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        body: dict[str, Any] = ENTRIES.dump_python([self.entry], mode="json")[0]
        head = {"position": self.position, "saga_id": self.saga_id, "revision": self.revision}
        return head | {"at": self.at.isoformat()} | body


class Queries:
    """Reads, and locks nothing."""

    def __init__(self, database: Database, definitions: Definitions) -> None:
        self._database = database
        self._definitions = definitions

    async def find(self, text: str) -> str:
        """The id of the saga with this id, key, or beginning or end of an id. Raises UnknownSaga."""
        if not (part := text.strip().upper()):
            raise UnknownSaga("no saga has an empty id: `saga ls` lists them")
        exact = or_(sagas.c.id == part, func.coalesce(sagas.c.key == text, false()))
        either_end = or_(sagas.c.id.startswith(part, autoescape=True), sagas.c.id.endswith(part, autoescape=True))
        query = select(sagas.c.id, exact.label("exact")).where(or_(exact, either_end)).order_by(exact.desc()).limit(3)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).all()
        found = [row.id for row in rows if row.exact] or [row.id for row in rows]
        if part in found or len(found) == 1:
            return part if part in found else found[0]
        if found:
            raise UnknownSaga(f"{text!r} could be several sagas ({', '.join(found)}, …): write more of the id")
        raise UnknownSaga(f"there is no saga {text!r}: `saga ls` lists them")

    async def search(self, wanted: Filter, now: datetime) -> list[Summary]:
        """The newest first."""
        query = self._filtered(select(sagas), wanted)
        query = query.order_by(sagas.c.started_at.desc(), sagas.c.id.desc()).limit(wanted.limit)
        async with self._database.reading() as connection:
            return [_summary(row, now) for row in await connection.execute(query)]

    async def statuses(self, saga_ids: Sequence[str]) -> dict[str, str]:
        """id -> status."""
        query = select(sagas.c.id, sagas.c.status).where(self._database.any_of(sagas.c.id, saga_ids))
        async with self._database.reading() as connection:
            return {row.id: row.status for row in await connection.execute(query)}

    async def counts(self) -> dict[str, int]:
        """status -> how many sagas."""
        query = select(sagas.c.status, func.count().label("sagas")).group_by(sagas.c.status)
        async with self._database.reading() as connection:
            return {row.status: row.sagas for row in await connection.execute(query)}

    async def get(self, saga_id: str, now: datetime) -> SagaView:
        """Everything about one saga. Raises UnknownSaga."""
        async with self._database.reading() as connection:
            row = (await connection.execute(select(sagas).where(sagas.c.id == saga_id))).first()
            if row is None:
                raise UnknownSaga(f"there is no saga {saga_id}: `saga ls` lists them")
            query = select(saga_log).where(saga_log.c.saga_id == saga_id).order_by(saga_log.c.revision)
            log = [line for one in await connection.execute(query) for line in _lines(one)]
            labels = select(saga_labels).where(saga_labels.c.saga_id == saga_id).order_by(saga_labels.c.name)
            named = {one.name: one.value for one in await connection.execute(labels)}
            started = select(sagas.c.key, sagas.c.id).where(sagas.c.key.startswith(f"{saga_id}/", autoescape=True))
            children = {one.key.split("/")[1]: one.id for one in await connection.execute(started)}
        saga = SAGA.validate_json(row.state)
        return SagaView(
            _summary(row, now),
            saga.version,
            saga.fingerprint,
            saga.data,
            row.ended_at,
            self._step_views(saga, log),
            named,
            row.priority,
            row.begins_at,
            saga.deadline_at,
            saga.paused,
            saga.fork_of,
            saga.caller.command_id.partition("/")[0] if saga.caller else None,
            children,
        )

    async def state(self, saga_id: str) -> Saga:
        """The state of one saga. Raises UnknownSaga."""
        async with self._database.reading() as connection:
            row = (await connection.execute(select(sagas.c.state).where(sagas.c.id == saga_id))).first()
        if row is None:
            raise UnknownSaga(f"there is no saga {saga_id}: `saga ls` lists them")
        return SAGA.validate_json(row.state)

    async def incidents(self) -> list[Incident]:
        """What sagas are stuck for, the most frequent first."""
        query = (
            select(
                sagas.c.incident,
                func.count().label("sagas"),
                func.min(sagas.c.stuck_at).label("first_at"),
                func.max(sagas.c.stuck_at).label("last_at"),
                func.min(sagas.c.id).label("example"),
            )
            .where(sagas.c.incident.is_not(None))
            .group_by(sagas.c.incident)
            .order_by(func.count().desc(), sagas.c.incident)
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).all()
        return [Incident(row.incident, row.sagas, row.first_at, row.last_at, row.example) for row in rows]

    async def count(self, wanted: Filter) -> int:
        """How many sagas a filter lets pass."""
        query = self._filtered(select(func.count()).select_from(sagas), wanted)
        async with self._database.reading() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def ids(self, wanted: Filter, *, after: str = "", limit: int = 500) -> list[str]:
        """The ids of the sagas that a filter lets pass, in their order, a page at a time."""
        query = self._filtered(select(sagas.c.id), wanted).where(sagas.c.id > after)
        async with self._database.reading() as connection:
            return list((await connection.execute(query.order_by(sagas.c.id).limit(limit))).scalars())

    async def log(self, saga_id: str | None = None, *, after: int = 0, limit: int = 1000) -> list[LogLine]:
        """The next rows of the event log after a position, oldest first."""
        query = select(saga_log).where(saga_log.c.position > after).order_by(saga_log.c.position).limit(limit)
        if saga_id is not None:
            query = query.where(saga_log.c.saga_id == saga_id)
        async with self._database.reading() as connection:
            return [line for row in await connection.execute(query) for line in _lines(row)]

    async def last_position(self) -> int:
        """The position of the newest row of the log; 0 when it is empty."""
        async with self._database.reading() as connection:
            return (await connection.execute(select(func.max(saga_log.c.position)))).scalar_one() or 0

    async def whole_log(self, saga_id: str | None = None) -> AsyncIterator[LogLine]:
        """The log from its beginning, in bounded memory."""
        after = 0
        while lines := await self.log(saga_id, after=after):
            for line in lines:
                yield line
            after = lines[-1].position

    def _filtered(self, query: Select[Any], wanted: Filter) -> Select[Any]:
        if wanted.statuses:
            query = query.where(sagas.c.status.in_(wanted.statuses))
        if wanted.definitions:
            query = query.where(sagas.c.definition.in_(wanted.definitions))
        if wanted.incident is not None:
            query = query.where(sagas.c.incident == wanted.incident)
        for name, value in wanted.labels.items():
            labelled = select(saga_labels.c.saga_id).where(saga_labels.c.name == name, saga_labels.c.value == value)
            query = query.where(sagas.c.id.in_(labelled))
        if wanted.started_before is not None:
            query = query.where(sagas.c.started_at < wanted.started_before)
        if wanted.started_after is not None:
            query = query.where(sagas.c.started_at >= wanted.started_after)
        return query

    def _step_views(self, saga: Saga, log: Sequence[LogLine]) -> list[StepView]:
        definition = self._definitions.by_fingerprint.get(saga.fingerprint)
        views = {}
        for name, state in saga.steps.items():
            spec = definition.steps.get(base_name(name)) if definition else None
            views[name] = StepView(
                name=name,
                kind=spec.kind.value if spec else "?",
                participant=(spec.participant or spec.action.value) if spec else "?",
                status=state.status.value,
                due_at=None if saga.phase in ENDED else state.due_at,
            )
        for line in log:
            step = getattr(line.entry, "step", None)
            if step in views:
                _note(views[step], line)
        for name, state in saga.steps.items():
            views[name].note = state.stuck or views[name].note
        return list(views.values())


def to_json(view: Summary | SagaView) -> dict[str, Any]:
    """For scripts."""
    if isinstance(view, Summary):
        return asdict(view)
    whole = asdict(view)
    summary: dict[str, Any] = whole.pop("summary")
    return summary | whole


def _note(view: StepView, line: LogLine) -> None:
    match line.entry:
        case Asked(attempt=attempt):
            view.attempts = attempt
            view.asked_at = view.asked_at or line.at
        case Done():
            view.answered_at = line.at
        case DoneByHand(by=by, reason=reason):
            view.answered_at, view.note = line.at, f"by hand, {by}: {reason}"
        case RefusedStep(reason=reason):
            view.answered_at, view.note = line.at, reason
        case UndoAsked(attempt=attempt):
            view.undo_attempts = attempt
            view.undo_asked_at = view.undo_asked_at or line.at
        case Undone() | Dropped():
            view.undone_at = line.at
        case UndoneByHand(by=by, reason=reason):
            view.undone_at, view.note = line.at, f"by hand, {by}: {reason}"
        case UndoRefused(reason=reason):
            view.note = reason
        case _:
            pass


def _lines(row: Row[Any]) -> list[LogLine]:
    return [LogLine(row.position, row.saga_id, row.revision, row.at, e) for e in ENTRIES.validate_json(row.entries)]


def _summary(row: Row[Any], now: datetime) -> Summary:
    saga = SAGA.validate_json(row.state)
    statuses = [step.status.value for step in saga.steps.values()]
    return Summary(
        id=row.id,
        definition=row.definition,
        key=row.key,
        status=row.status,
        done=statuses.count("done"),
        undone=statuses.count("undone"),
        steps=len(statuses),
        started_at=row.started_at,
        duration=((row.ended_at or now) - row.started_at).total_seconds(),
        reason=saga.stuck or saga.failure,
    )
