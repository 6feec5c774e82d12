"""Admission: sagas that wait begin when their time has come and there is room, the most urgent first.

A definition may limit how many of its sagas are in flight and how many begin in a stretch of time; any saga may be
started for later; and the installation has a window, beyond which nobody's sagas begin (`window`). All of them wait in
the same state, and this is the one place that lets them begin. Whoever admits sagas within a limit locks the
definition's row in `throttles`, so two replicas never fill the last place twice.

How it dies: before the commit nobody has begun, after it the first commands are in the outbox.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

import structlog
from sqlalchemy import Select, bindparam, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.definition import Rate, Saga
from orchestrator.engine import Engine, Happening
from orchestrator.events import Admitted
from orchestrator.store import LostRace
from orchestrator.tables import sagas, throttles
from orchestrator.timers import TICK
from orchestrator.window import Window
from outbox.bulk import insert_rows
from outbox.database import among, each
from outbox.errors import OutOfReach, SchemaMissing
from outbox.loops import forever
from outbox.unit_of_work import UnitOfWork

log = structlog.get_logger()

AT_ONCE: Final = 500
CATCH_UP: Final = timedelta(seconds=2 * TICK)
"""How late a look may be and still let begin all who were due since the last one. Whoever finds more time unused starts
afresh with one: a rate that was not needed for a while is no licence for a crowd.
"""

POSTPONED: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Room:
    """How many sagas may begin now, and when the rate lets the next one begin after them."""

    places: int
    since: datetime

    def next_at(self, begun: int, rate: Rate) -> datetime:
        """When the next one may begin, after so many have."""
        return self.since + begun * rate.spacing


class Admission:
    """Lets sagas that wait begin."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._clock = engine.outbox.clock
        self._database = engine.outbox.database
        self._names = sorted({definition.name for definition in engine.definitions.every})
        self._say = _statements(self._database.dialect)

    async def admit(self) -> int:
        """Let begin what may begin now. Returns how many sagas that were."""
        return sum([await self._admit_all(name) for name in await self._waiting_definitions()])

    async def _admit_all(self, name: str) -> int:
        try:
            async with self._engine.outbox.unit_of_work() as unit:
                return await self._admit(unit, name)
        except (OutOfReach, SchemaMissing):
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            log.warning("sagas could not begin together and begin one by one", definition=name, reason=reason)
            return await self._admit_one_by_one(name)

    async def _admit_one_by_one(self, name: str) -> int:
        """One saga that cannot be handled holds nobody back (rule 9): it is moved out of the way."""
        async with self._database.reading() as connection:
            wanted = self._wanted(name, self._clock.now(), AT_ONCE)
            due = list((await connection.execute(self._say.due, wanted)).scalars())
        admitted = 0
        for saga_id in due:
            try:
                async with self._engine.outbox.unit_of_work() as unit:
                    admitted += await self._admit(unit, name, only=saga_id)
            except (OutOfReach, SchemaMissing):
                raise
            except LostRace:
                log.debug("somebody else has moved a saga that was to begin", saga=saga_id)
            except Exception as error:
                log.error("a saga cannot begin; see `saga verify`", saga=saga_id, reason=repr(error))
                await self._postpone(saga_id)
        return admitted

    async def _postpone(self, saga_id: str) -> None:
        async with self._engine.outbox.unit_of_work() as unit:
            waits = update(sagas).where(sagas.c.id == saga_id, sagas.c.status == "waiting")
            await unit.connection.execute(waits.values(begins_at=unit.now + POSTPONED))

    async def _waiting_definitions(self) -> list[str]:
        """One step into an index for each definition that is loaded, however many wait for later, or for a place."""
        async with self._database.glancing() as connection:
            wanted = {"names": self._names, "now": self._clock.now()}
            return sorted((await connection.execute(self._say.has_waiting, wanted)).scalars())

    async def _admit(self, unit: UnitOfWork, name: str, only: str | None = None) -> int:
        definition = self._engine.definitions.get(name)
        window = self._engine.windows.of(name)
        if definition is None or not (definition.is_limited or window):
            return len(await self._begin(unit, name, AT_ONCE, only))
        room = await self._room(unit, definition, window)
        begun = await self._begin(unit, name, min(room.places, AT_ONCE), only) if room.places else []
        if definition.rate is not None:
            next_at = {"next_at": room.next_at(len(begun), definition.rate)}
            await unit.connection.execute(update(throttles).where(throttles.c.definition == name).values(next_at))
        return len(begun)

    async def _begin(self, unit: UnitOfWork, name: str, limit: int, only: str | None) -> list[str]:
        wanted = self._wanted(name, unit.now, limit)
        if only is None:
            due = await unit.connection.execute(self._say.locking_due, wanted)
        else:
            due = await unit.connection.execute(self._say.locking_one, wanted | {"only": only})
        found = list(due.scalars())
        stored = await self._engine.store.lock(unit.connection, found)
        events: list[Happening] = [(saga_id, Admitted(), None) for saga_id in found]  # the most urgent first
        self._engine.apply(unit, stored, events)
        return found

    def _wanted(self, name: str, now: datetime, limit: int) -> dict[str, Any]:
        return {"name": name, "now": now, "loaded": list(self._engine.definitions.by_fingerprint), "most": limit}

    async def _room(self, unit: UnitOfWork, definition: Saga[Any], window: Window | None) -> Room:
        next_at = await self._lock(unit.connection, definition.name, unit.now)
        since, places = unit.now, AT_ONCE
        if definition.rate is not None:
            since = _resumes_at(definition.rate, next_at, unit.now)
            places = int((unit.now - since) / definition.rate.spacing) + 1 if since <= unit.now else 0
        if definition.max_in_flight is not None:
            places = min(places, max(0, definition.max_in_flight - await self._in_flight(unit, definition.name)))
        if window is not None:
            places = min(places, max(0, await window.places_in(unit.connection)))
        return Room(places, since)

    async def _lock(self, connection: AsyncConnection, name: str, now: datetime) -> datetime:
        await insert_rows(connection, throttles, [{"definition": name, "next_at": now}], known=True)
        found: datetime = (await connection.execute(self._say.locking_throttle, {"name": name})).scalar_one()
        return found

    async def _in_flight(self, unit: UnitOfWork, name: str) -> int:
        count: int = (await unit.connection.execute(self._say.in_flight, {"name": name})).scalar_one()
        return count


@dataclass(frozen=True, slots=True)
class _Statements:
    """What is asked all the time, and therefore built once."""

    has_waiting: Select[str]
    due: Select[str]
    locking_due: Select[str]
    locking_one: Select[str]
    locking_throttle: Select[datetime]
    in_flight: Select[int]


@cache
def _statements(dialect: str) -> _Statements:
    is_ours = sagas.c.definition == bindparam("name")
    due = (
        select(sagas.c.id)
        .where(is_ours, sagas.c.status == "waiting", sagas.c.begins_at <= bindparam("now"))
        .where(among(dialect, sagas.c.fingerprint, "loaded"))
        .order_by(sagas.c.priority.desc(), sagas.c.begins_at)
        .limit(bindparam("most"))
    )
    locking_due = due.with_for_update(skip_locked=True)
    throttle = select(throttles.c.next_at).where(throttles.c.definition == bindparam("name"))
    return _Statements(
        has_waiting=_has_waiting(dialect),
        due=due,
        locking_due=locking_due,
        locking_one=locking_due.where(sagas.c.id == bindparam("only")),
        locking_throttle=throttle.with_for_update(),
        in_flight=select(func.count()).where(is_ours, sagas.c.ended_at.is_(None), sagas.c.begins_at.is_(None)),
    )


def _has_waiting(dialect: str) -> Select[str]:
    name, waiting = each(dialect, "names"), sagas.alias("waiting")
    conditions = (waiting.c.status == "waiting", waiting.c.begins_at <= bindparam("now"))
    return select(name).where(exists().where(waiting.c.definition == name, *conditions))


def _resumes_at(rate: Rate, next_at: datetime, now: datetime) -> datetime:
    """Where a rate goes on: as it was laid down if that is still to come, or was missed by the look alone."""
    is_missed_by_the_look = rate.spacing < CATCH_UP and now - next_at <= CATCH_UP
    return next_at if is_missed_by_the_look else max(next_at, now)


async def run_admission(admission: Admission) -> None:
    """Let waiting sagas begin until cancelled. An outage of the database is waited out."""

    async def admit() -> float:
        return 0.0 if await admission.admit() >= AT_ONCE else TICK

    await forever("let waiting sagas begin", admit)
