"""The window: how many sagas of one definition keep participants busy, and so how many more may begin.

Replies drive the orchestrator, so a slow participant slows what has begun all by itself. What has not begun must be
held back by whoever starts it: a saga that begins long before its participants can get to it has its timer running.
It is asked for again and again, and turned back in the end, although nothing is wrong with it but the queue.

A saga is at work when its timer goes off soon: somebody was asked and owes an answer. One that waits for a person, for
a date, or to begin keeps nobody busy and takes no place; nor does one that is stuck or paused.
"""

from datetime import timedelta
from typing import Any

from sqlalchemy import func, select

from orchestrator.definition import Action, Saga
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
        soon = self._clock.now() + self._longest_wait
        is_ours = (
            sagas.c.definition.concat("") == self._name
        )  # found by its timer, not among all that were ever started
        at_work = select(sagas.c.id).where(sagas.c.due_at <= soon, is_ours).limit(self.size)
        async with self._database.reading() as connection:
            counted = await connection.execute(select(func.count()).select_from(at_work.subquery()))
            return self.size - int(counted.scalar_one())


def _longest_wait(definition: Saga[Any]) -> timedelta:
    """The longest that a participant is given to answer before it is asked again; child sagas have their own time."""
    asked = [spec for spec in definition.steps.values() if spec.action is Action.COMMAND and spec.child is None]
    policies = [policy for spec in asked for policy in (spec.policy, spec.undo_policy)] or [MUST_SUCCEED]
    return max(policy.cap * (1 + policy.jitter) for policy in policies)
