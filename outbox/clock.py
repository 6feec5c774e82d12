"""Time, as something that a test can own. The clock for deadlines is one clock: the database's."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from sqlalchemy import func, select

from outbox.database import Database


class Clock(Protocol):
    """Tells the time. Every deadline and every timestamp comes from one of these."""

    def now(self) -> datetime:
        """The current time, with the time zone UTC."""
        ...

    async def sync(self, database: Database) -> None:
        """Set the clock by the database's."""
        ...


class DatabaseClock:
    """The database's clock, carried on between two looks at it by this machine's monotonic one.

    So replicas on machines whose clocks differ agree on what is due, and a jump of the local clock changes nothing.
    With SQLite there is one machine, whose clock it is.
    """

    def __init__(self) -> None:
        self._anchor = datetime.now(UTC)
        self._at = time.monotonic()

    def now(self) -> datetime:
        """The current time, with the time zone UTC."""
        return self._anchor + timedelta(seconds=time.monotonic() - self._at)

    async def sync(self, database: Database) -> None:
        """Set the clock by the database's."""
        anchor = datetime.now(UTC)
        if database.dialect == "postgresql":
            async with database.glancing() as connection:
                anchor = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
        self._anchor, self._at = anchor, time.monotonic()
