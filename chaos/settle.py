"""The wait for the end: every saga has ended, and no outbox holds a message. Or what is left when patience is over."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from chaos.record import Violation
from orchestrator.composition import messaging_of, open_database
from orchestrator.settings import ROLES, Settings
from orchestrator.tables import sagas
from outbox.database import Database
from outbox.errors import OutOfReach

log = structlog.get_logger()

LIVENESS: Final = "every-saga-ends"
LOOK: Final = 0.25
SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Left:
    """What was left at the last look."""

    sagas: tuple[str, ...] = ()
    """Some of those that had not ended."""

    mail: tuple[str, ...] = ()
    """Roles whose outbox was not empty."""

    unseen: str = ""
    """Why nobody could look, if so. Then the rest is what was seen before."""

    @property
    def has_settled(self) -> bool:
        """All have ended, and somebody has seen it."""
        return not (self.sagas or self.mail or self.unseen)

    @property
    def violations(self) -> Iterator[Violation]:
        """Of the promise that everything ends."""
        for one in self.sagas:
            message = f"saga {one} has not ended: see `saga get {one}`"
            yield Violation(invariant=LIVENESS, message=message, saga_id=one)
        for role in self.mail:
            yield Violation(invariant=LIVENESS, message=f"the outbox of {role} still held messages in the end")
        if self.unseen:
            message = f"whether every saga has ended could not be seen: {self.unseen}"
            yield Violation(invariant=LIVENESS, message=message)


async def settle(settings: Settings, patience: float, advance: Callable[[str], None]) -> Left:
    """Wait until nothing is left, for so many seconds."""
    deadline = asyncio.get_running_loop().time() + patience
    databases = {role: open_database(settings, role) for role in ROLES}
    left = Left(unseen="nobody has looked")
    try:
        while not left.has_settled and asyncio.get_running_loop().time() < deadline:
            left = await _look(databases, left)
            advance(f"{len(left.sagas)}{'+' if len(left.sagas) == SHOWN else ''} left")
            await asyncio.sleep(0.0 if left.has_settled else LOOK)
        return left
    finally:
        for database in databases.values():
            await database.close()


async def _look(databases: Mapping[str, Database], before: Left) -> Left:
    try:
        unended = await _unended(databases["orchestrator"])
        return Left(unended, tuple([role for role, database in databases.items() if await _has_mail(database, role)]))
    except (OutOfReach, DBAPIError) as error:
        log.debug("the database is away", reason=str(error))
        return replace(before, unseen=str(error))


async def _unended(database: Database) -> tuple[str, ...]:
    query = select(sagas.c.id).where(sagas.c.ended_at.is_(None)).limit(SHOWN)
    async with database.reading() as connection:
        return tuple((await connection.execute(query)).scalars())


async def _has_mail(database: Database, role: str) -> bool:
    query = select(messaging_of(role).outbox.c.message_id).limit(1)
    async with database.reading() as connection:
        return (await connection.execute(query)).first() is not None
