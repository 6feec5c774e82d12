"""The window: how many sagas of one definition keep participants busy, and so how many more may begin.

Replies drive the orchestrator, so a slow participant slows what has begun all by itself. What has not begun must be
held back by whoever starts it: a saga that begins long before its participants can get to it has its timer running.
It is asked for again and again, and turned back in the end, although nothing is wrong with it but the queue.

The CLI holds its own input back (`saga start --in-flight`). What comes in another way is held back here: beyond
`SAGA_MAX_IN_FLIGHT` a saga that a service or a schedule starts is accepted, waits, and begins when the admission lets
it; so does one whose time has come. A child never waits for a place: its parent has one, and would keep it.

A saga is at work when its timer goes off soon: somebody was asked and owes an answer. One that waits for a person, for
a date, or to begin keeps nobody busy and takes no place; nor does one that is stuck or paused.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.definition import Action, Saga
from orchestrator.door import StartRequest
from orchestrator.registry import Definitions
from orchestrator.steps import MUST_SUCCEED
from orchestrator.tables import sagas
from outbox.clock import Clock
from outbox.database import Database


class Window:
    """At most `size` sagas of one definition are to be at work."""

    def __init__(self, database: Database, clock: Clock, definition: Saga[Any], size: int) -> None:
        self.size = size
        self._database = database
        self._clock = clock
        self._name = definition.name
        self._longest_wait = _longest_wait(definition)

    async def places(self) -> int:
        """How many more may begin now. A look that locks nothing, and counts no further than the window is large."""
        async with self._database.reading() as connection:
            return await self.places_in(connection)

    async def places_in(self, connection: AsyncConnection) -> int:
        """The same, in a transaction that is under way."""
        soon = self._clock.now() + self._longest_wait
        is_ours = (
            sagas.c.definition.concat("") == self._name
        )  # found by its timer, not among all that were ever started
        return self.size - await self._count(connection, sagas.c.due_at <= soon, is_ours)

    async def places_behind(self, connection: AsyncConnection) -> int:
        """How many more may begin when those that wait have begun: they were there first."""
        waits = (sagas.c.status == "waiting", sagas.c.begins_at <= self._clock.now())
        ahead = await self._count(connection, sagas.c.definition == self._name, *waits)
        return await self.places_in(connection) - ahead

    async def _count(self, connection: AsyncConnection, *conditions: ColumnElement[bool]) -> int:
        found = select(sagas.c.id).where(*conditions).limit(self.size)
        counted = await connection.execute(select(func.count()).select_from(found.subquery()))
        return int(counted.scalar_one())


class Windows:
    """A window of the same size for each definition. Of size 0 they hold nothing back."""

    def __init__(self, database: Database, clock: Clock, definitions: Definitions, size: int) -> None:
        self.size = size
        self._windows = {name: Window(database, clock, definitions[name], size) for name in definitions} if size else {}
        self._definitions = definitions

    def of(self, name: str) -> Window | None:
        """The window of a definition, if it has one."""
        return self._windows.get(name)

    async def hold_back(
        self, connection: AsyncConnection, requests: Sequence[StartRequest], now: datetime
    ) -> list[StartRequest]:
        """As many begin as there are places for; the rest waits.

        Those of a definition with limits wait anyway, and those that are for later take no place now.
        """
        places: dict[str, int] = {}
        held = []
        for request in requests:
            window = self._windows.get(request.definition)
            is_for_later = request.begins_at is not None and request.begins_at > now
            if window is None or is_for_later or self._definitions[request.definition].is_limited:
                held.append(request)
                continue
            if request.definition not in places:
                places[request.definition] = await window.places_behind(connection)
            places[request.definition] -= 1
            has_place = places[request.definition] >= 0
            held.append(request if has_place else replace(request, begins_at=request.begins_at or now))
        return held


def _longest_wait(definition: Saga[Any]) -> timedelta:
    """The longest that a participant is given to answer before it is asked again; child sagas have their own time."""
    asked = [spec for spec in definition.steps.values() if spec.action is Action.COMMAND and spec.child is None]
    policies = [policy for spec in asked for policy in (spec.policy, spec.undo_policy)] or [MUST_SUCCEED]
    return max(policy.cap * (1 + policy.jitter) for policy in policies)
