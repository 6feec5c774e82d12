"""Once a second somebody looks how many sagas there are, and how many have ended.

While the database is away nothing is seen; what it says afterwards is what counts.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from chaos.record import Sample
from orchestrator.tables import sagas
from outbox.database import Database
from outbox.errors import OutOfReach

EVERY: Final = 1.0
ENDED: Final = ("completed", "compensated")


@dataclass(slots=True)
class Watch:
    """Keeps what it has seen."""

    database: Database
    now: Callable[[], float]
    samples: list[Sample] = field(default_factory=list)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with suppress(OutOfReach, DBAPIError):
                await self.look()
            await asyncio.sleep(EVERY)

    async def look(self) -> dict[str, int]:
        """How many sagas there are by status, now."""
        query = select(sagas.c.status, func.count().label("sagas")).group_by(sagas.c.status)
        async with self.database.reading() as connection:
            counts = {row.status: row.sagas for row in await connection.execute(query)}
        seen = {status: counts.get(status, 0) for status in (*ENDED, "stuck")}
        self.samples.append(Sample(at=self.now(), started=sum(counts.values()), **seen))
        return counts
