"""The scheduler: starts the sagas of schedules when their time has come.

A saga is started in the transaction that moves its schedule on. How it dies: before the commit nothing has happened,
and the time is still due; after it, the time has been dealt with. Which times are missed, and what becomes of
them, is said in `cron`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import IntegrityError

from orchestrator.cron import TOLERANCE, BadCron, Plan, plan
from orchestrator.door import BadInput
from orchestrator.engine import Engine
from orchestrator.schedules import Schedule, request_of, rfc3339, schedule_of
from orchestrator.store import LostRace
from orchestrator.tables import schedules
from outbox.errors import OutOfReach, SchemaMissing
from outbox.loops import forever
from outbox.unit_of_work import UnitOfWork

log = structlog.get_logger()

TICK: Final = 1.0
"""Seconds between two looks at what is due."""

RETRIED_AFTER: Final = timedelta(seconds=10)
"""How long a schedule that cannot be started is left alone."""

IS_DUE: Final = (schedules.c.next_at <= bindparam("now"), schedules.c.paused.is_(False))
DUE: Final = select(schedules.c.name).where(*IS_DUE).order_by(schedules.c.next_at)


class Scheduler:
    """One replica's look at the clock."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._outbox = engine.outbox
        self._aside: dict[str, tuple[datetime, str]] = {}

    async def fire(self) -> int:
        """Start the sagas whose time has come, and move their schedules on. Returns for how many times.

        Each schedule has a transaction of its own: one that cannot be started holds nobody back (rule 9).
        """
        return sum([await self._fire(name) for name in await self._due()])

    async def _due(self) -> list[str]:
        now = self._outbox.clock.now()
        async with self._outbox.database.glancing() as connection:
            names = (await connection.execute(DUE, {"now": now})).scalars().all()
        self._aside = {name: self._aside[name] for name in names if name in self._aside}
        return [name for name in names if name not in self._aside or self._aside[name][0] <= now]

    async def _fire(self, name: str) -> int:
        try:
            return await self._fire_alone(name)
        except (OutOfReach, SchemaMissing):
            raise
        except Exception as error:
            self._set_aside(name, error)
            return 0

    def _set_aside(self, name: str, error: Exception) -> None:
        """Try again later, and say so once. `saga schedule ls` says it too."""
        reason = f"{type(error).__name__}: {error}"
        if self._aside.get(name, (None, ""))[1] != reason:
            expected = isinstance(error, BadCron | BadInput)
            log.error(
                "a schedule cannot be started", schedule=name, reason=reason, exc_info=None if expected else error
            )
        self._aside[name] = (self._outbox.clock.now() + RETRIED_AFTER, reason)

    async def _fire_alone(self, name: str) -> int:
        for _ in range(3):
            try:
                async with self._outbox.unit_of_work() as unit:
                    return await self._fire_within(unit, name)
            except IntegrityError as error:  # somebody has just started a saga of it by hand: look again
                log.debug("a schedule collided with another start", schedule=name, reason=str(error.orig))
        raise LostRace("its sagas are being started by somebody else at this moment")

    async def _fire_within(self, unit: UnitOfWork, name: str) -> int:
        query = select(schedules).where(schedules.c.name == name, *IS_DUE).with_for_update(skip_locked=True)
        row = (await unit.connection.execute(query, {"now": unit.now})).first()
        if row is None:
            return 0  # another replica has it in hand, or has had it
        schedule = schedule_of(row)
        planned = plan(schedule.missed, schedule.times(), row.next_at, unit.now)
        requests = [request_of(self._engine, schedule, at) for at in planned.times]
        requests = await self._engine.windows.hold_back(unit.connection, requests, unit.now)
        results = await self._engine.start_within(unit, requests)
        _tell(schedule, planned, unit.now, [result.saga_id for result in results if result.outcome == "conflict"])
        last_at = planned.times[-1] if planned.times else schedule.last_at
        moved = {"next_at": planned.next_at, "last_at": last_at}
        await unit.connection.execute(update(schedules).where(schedules.c.name == name).values(moved))
        return len(results)


def _tell(schedule: Schedule, planned: Plan, now: datetime, conflicts: Sequence[str]) -> None:
    """What an operator should hear of."""
    due = schedule.next_at
    if due is not None and (planned.times != (due,) or now - due > TOLERANCE):
        started = len(planned.times)
        log.warning("a schedule has missed times", schedule=schedule.name, since=rfc3339(due), started_now=started)
    for saga_id in conflicts:
        log.warning("a time of a schedule has run with another input", schedule=schedule.name, saga=saga_id)


async def run_schedules(scheduler: Scheduler) -> None:
    """Fire schedules until cancelled. An outage of the database is waited out; what was due is still due after it."""

    async def fire() -> float:
        return 0.0 if await scheduler.fire() else TICK

    await forever("fire the schedules", fire)
