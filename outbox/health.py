"""How a role is: whether it works, and if not, what it lacks, in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import func, select

from outbox.errors import OutOfReach, SchemaMissing
from outbox.moments import moment
from outbox.outages import Outages, Resource
from outbox.unit_of_work import Outbox
from outbox.within import within

PATIENCE: Final = 3.0
"""Seconds that the database is given to answer."""

OVERDUE: Final = 30.0
"""Seconds. A row of the outbox that is overdue by more has been passed over by every sweep."""

MANY: Final = 10_000
"""Rows of the outbox that are counted."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """One role. `unpublished`: rows of its outbox (at most `MANY`); the first is `overdue` by so many seconds."""

    role: str
    problems: list[str] = field(default_factory=list)
    unpublished: int | None = None
    overdue: float | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it does its work."""
        return not self.problems


async def readiness(
    role: str, outbox: Outbox, outages: Outages, others: Sequence[str] = (), *, has_started: bool
) -> Readiness:
    """Ask the database, and tell what the loops have noticed, and other problems. Never raises."""
    problems = [
        f"{resource} {resource.trouble} since {moment(outage.since)}: {outage.reason}"
        for resource, outage in outages.current.items()
    ]
    problems += others
    unpublished, overdue = None, None
    try:
        async with within(PATIENCE):
            unpublished, overdue = await _backlog(outbox)
    except (OutOfReach, SchemaMissing, TimeoutError) as error:
        if outages.current.keys().isdisjoint((Resource.DATABASE, Resource.TABLES)):
            problems.append(str(error) or f"the database does not answer within {PATIENCE:g} s")
    if overdue is not None and overdue > OVERDUE:
        problems.append(f"{unpublished:,} messages wait in the outbox, the oldest for {overdue:.0f} s too long")
    if not has_started and not problems:
        problems.append("it is starting")
    return Readiness(role, problems, unpublished, overdue)


async def _backlog(outbox: Outbox) -> tuple[int, float]:
    """How many rows are in the outbox, and by how many seconds the first is overdue."""
    table = outbox.tables.outbox
    some = select(table.c.due_at).order_by(table.c.due_at).limit(MANY).subquery()
    query = select(func.count().label("rows"), func.min(some.c.due_at).label("first"))
    async with outbox.database.reading() as connection:
        rows, first = (await connection.execute(query)).one()
    return rows, 0.0 if first is None else max(0.0, (outbox.clock.now() - first).total_seconds())
