"""Schedules, as people keep them: made, replaced, paused, triggered, backfilled. The clock is the scheduler's.

Every time of a schedule has one saga, whose key is `<name>@<the time>`. So two replicas, a crash, a trigger that is
sent twice, and a backfill over times that have run all meet the saga that is there. What passes while a schedule is
paused is not missed but left out; a backfill makes up for it.
"""

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, get_args

import orjson
from sqlalchemy import Row, Select, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.cron import AT_ONCE, LONGEST, TOLERANCE, BadCron, Cron, Missed
from orchestrator.door import BadInput, StartRequest
from orchestrator.engine import Engine
from orchestrator.tables import sagas, schedules

SCHEDULED_AT: Final = "{scheduled_at}"
"""Wherever this stands in a text of a schedule's input, a saga gets its own time, as in 2026-03-29T01:00:00Z."""

NAME: Final = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")


class UnknownSchedule(Exception):
    """No schedule has this name."""


class ScheduleExists(Exception):
    """Another schedule has this name."""


class BadSchedule(Exception):
    """A schedule that cannot be kept. Says what to change."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What a schedule is to do, as somebody has written it."""

    name: str
    definition: str
    input: Mapping[str, Any]
    cron: str
    timezone: str
    missed: Missed


@dataclass(frozen=True, slots=True)
class Schedule(Spec):
    """A schedule as it stands. `next_at` is the next time that has not been dealt with, `last_at` the last that ran."""

    paused: bool
    paused_by: str | None
    next_at: datetime | None
    last_at: datetime | None
    created_at: datetime

    def times(self) -> Cron:
        """Raises BadCron when this machine cannot read its expression or does not know its zone."""
        return Cron(self.cron, self.timezone)


@dataclass(frozen=True, slots=True)
class Run:
    """One time of a schedule, and what came of it: `started`, `existing`, or `conflict` (it ran with another input)."""

    scheduled_at: str
    key: str
    outcome: str
    saga_id: str | None


@dataclass(frozen=True, slots=True)
class PastRun:
    """A saga that a schedule has started, by the clock or by hand."""

    scheduled_at: str
    saga_id: str
    status: str
    started_at: datetime
    ended_at: datetime | None


def key_of(name: str, at: datetime) -> str:
    """What the saga of one time is known by."""
    return f"{name}@{rfc3339(at)}"


def rfc3339(at: datetime) -> str:
    """A moment in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


class Schedules:
    """Keeps schedules, and starts their sagas through an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._database = engine.outbox.database
        self._clock = engine.outbox.clock

    # --- keeping ---------------------------------------------------------------------------------------------

    async def create(self, spec: Spec) -> Schedule:
        """Keep a new schedule. Raises BadCron, BadInput, BadSchedule and ScheduleExists."""
        return await self._put(spec, anew=True)

    async def replace(self, spec: Spec) -> Schedule:
        """Keep a schedule, in the place of the one that has its name if one has.

        A pause stays. So does a time that is due, when the cron and the zone are the same: no run is lost by this.
        """
        return await self._put(spec, anew=False)

    async def ls(self) -> list[Schedule]:
        """All of them, by name."""
        async with self._database.reading() as connection:
            rows = await connection.execute(select(schedules).order_by(schedules.c.name))
            return [schedule_of(row) for row in rows]

    async def get(self, name: str) -> Schedule:
        """Raises UnknownSchedule."""
        async with self._database.reading() as connection:
            return await _find(connection, name)

    async def pause(self, name: str, by: str) -> Schedule:
        """Start no more sagas. Returns the schedule as it was."""
        async with self._database.transaction() as connection:
            before = await _find(connection, name, lock=True)
            if not before.paused:
                await _change(connection, name, {"paused": True, "paused_by": by})
        return before

    async def resume(self, name: str) -> Schedule:
        """Go on with the next time that is to come. Returns the schedule as it was: what lies between its `next_at` and
        now is left out. Raises BadCron.
        """
        async with self._database.transaction() as connection:
            before = await _find(connection, name, lock=True)
            if before.paused:
                next_at = before.times().first_after(self._clock.now())
                await _change(connection, name, {"paused": False, "paused_by": None, "next_at": next_at})
        return before

    async def remove(self, name: str) -> None:
        """Forget a schedule. Its sagas stay. Raises UnknownSchedule."""
        async with self._database.transaction() as connection:
            await _find(connection, name, lock=True)
            await connection.execute(delete(schedules).where(schedules.c.name == name))

    async def past_runs(self, schedule: Schedule, limit: int) -> list[PastRun]:
        """The sagas of a schedule, those of the latest times first."""
        async with self._database.reading() as connection:
            rows = (await connection.execute(past_runs_of(schedule, limit))).all()
        return [PastRun(row.key.rpartition("@")[2], *row[1:]) for row in rows]

    def is_late(self, schedule: Schedule) -> bool:
        """Whether its time has passed, and nobody has dealt with it."""
        return not schedule.paused and schedule.next_at is not None and self._clock.now() - schedule.next_at > TOLERANCE

    def problem(self, schedule: Schedule) -> str | None:
        """Why this process could not start a saga of it."""
        try:
            schedule.times()
            request_of(self._engine, schedule, schedule.next_at or self._clock.now())
        except (BadCron, BadInput) as error:
            return str(error)
        return None

    # --- by hand ---------------------------------------------------------------------------------------------

    async def trigger(self, name: str) -> Run:
        """Start a saga now, paused or not. Twice in the same second is once."""
        schedule = await self.get(name)
        [run] = await self._start(schedule, [self._clock.now()])
        return run

    async def backfill(
        self, name: str, begin: datetime, end: datetime, *, dry: bool = False
    ) -> AsyncIterator[list[Run]]:
        """Start a saga for each time from `begin` to `end` that has come and has none; `dry`, only tell what would be.

        Yields the runs in batches, in order. Each batch is a transaction of its own.
        """
        schedule = await self.get(name)
        times = schedule.times().between(begin, min(end, self._clock.now()))
        while batch := list(islice(times, AT_ONCE)):
            yield await (self._rehearse(schedule, batch) if dry else self._start(schedule, batch))

    async def _start(self, schedule: Schedule, times: Sequence[datetime]) -> list[Run]:
        results = await self._engine.start([request_of(self._engine, schedule, at) for at in times])
        return [
            Run(rfc3339(at), key_of(schedule.name, at), result.outcome, result.saga_id)
            for at, result in zip(times, results, strict=True)
        ]

    async def _rehearse(self, schedule: Schedule, times: Sequence[datetime]) -> list[Run]:
        requests = {key_of(schedule.name, at): (at, request_of(self._engine, schedule, at)) for at in times}
        async with self._database.reading() as connection:
            found = await self._engine.store.find_by_key(connection, [(schedule.definition, key) for key in requests])
        runs = []
        for key, (at, request) in requests.items():
            taken = found.get((schedule.definition, key))
            if taken is None:
                runs.append(Run(rfc3339(at), key, "would start", None))
            else:
                same = taken.digest == request.digest
                runs.append(Run(rfc3339(at), key, "existing" if same else "conflict", taken.saga.id))
        return runs

    # --- checks ----------------------------------------------------------------------------------------------

    async def _put(self, spec: Spec, *, anew: bool) -> Schedule:
        now = self._clock.now()
        cron = self._checked(spec, now)
        values = {field.name: getattr(spec, field.name) for field in fields(Spec)}
        values |= {"input": _as_json(spec.input), "cron": cron.text}
        next_at = cron.first_after(now)
        new = {**values, "next_at": next_at, "paused": False, "created_at": now}
        async with self._database.transaction() as connection:
            inserted = await connection.execute(self._database.insert_new(schedules).values(new))
            found = await _find(connection, spec.name, lock=True)
            if inserted.rowcount:
                return found
            if anew:
                raise ScheduleExists(f"there is a schedule {spec.name} already; --replace puts this one in its place")
            if (found.cron, found.timezone) == (cron.text, spec.timezone):
                next_at = found.next_at
            await _change(connection, spec.name, values | {"next_at": next_at})
            return await _find(connection, spec.name)

    def _checked(self, spec: Spec, now: datetime) -> Cron:
        if not NAME.fullmatch(spec.name) or len(spec.name) > LONGEST:
            raise BadSchedule(
                f"{spec.name!r} is no name for a schedule: use lower-case letters and digits, joined by hyphens, dots "
                f"or underscores, at most {LONGEST} characters"
            )
        if spec.missed not in get_args(Missed):
            raise BadSchedule(f"missed times are dealt with by {', '.join(get_args(Missed))}, not by {spec.missed!r}")
        cron = Cron(spec.cron, spec.timezone)
        request_of(self._engine, replace(spec, input=_as_json(spec.input)), cron.first_after(now) or now)
        return cron


def past_runs_of(schedule: Schedule, limit: int) -> Select[Any]:
    """Key, id, status and times of the sagas whose key begins like the schedule's. The range says so to the index."""
    prefix = f"{schedule.name}@"
    begins_so = sagas.c.key.startswith(prefix, autoescape=True) & sagas.c.key.between(prefix, f"{prefix}9999")
    return (
        select(sagas.c.key, sagas.c.id, sagas.c.status, sagas.c.started_at, sagas.c.ended_at)
        .where(sagas.c.definition == schedule.definition, begins_so)
        .order_by(sagas.c.key.desc(), sagas.c.generation.desc())
        .limit(limit)
    )


def request_of(engine: Engine, spec: Spec, at: datetime) -> StartRequest:
    """The saga of one time of a schedule. Raises BadInput."""
    if spec.definition not in engine.definitions:
        raise BadInput(f"there is no saga {spec.definition!r} among the definitions that are loaded here")
    data = {name: _filled(value, rfc3339(at)) for name, value in spec.input.items()}
    return engine.request(spec.definition, data, key_of(spec.name, at))


def _as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """An input as the database will give it back."""
    try:
        json.dumps(value, allow_nan=False)
        kept: dict[str, Any] = orjson.loads(orjson.dumps(value))
        return kept
    except (TypeError, ValueError) as error:
        raise BadInput(f"the input cannot be kept as JSON: {error}") from error


def _filled(value: Any, scheduled_at: str) -> Any:
    """A value with its placeholders replaced, however deep they are."""
    if isinstance(value, str):
        return value.replace(SCHEDULED_AT, scheduled_at)
    if isinstance(value, dict):
        return {name: _filled(item, scheduled_at) for name, item in value.items()}
    return [_filled(item, scheduled_at) for item in value] if isinstance(value, list) else value


async def _find(connection: AsyncConnection, name: str, *, lock: bool = False) -> Schedule:
    query = select(schedules).where(schedules.c.name == name)
    if NAME.fullmatch(name):  # what is no name, or not even text, is not asked for
        row = (await connection.execute(query.with_for_update() if lock else query)).first()
        if row is not None:
            return schedule_of(row)
    raise UnknownSchedule(f"there is no schedule {name!r}: `saga schedule ls` lists them")


async def _change(connection: AsyncConnection, name: str, values: dict[str, Any]) -> None:
    await connection.execute(update(schedules).where(schedules.c.name == name).values(values))


def schedule_of(row: Row[Any]) -> Schedule:
    """A row of the table."""
    return Schedule(**row._asdict())
