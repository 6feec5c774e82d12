"""What a person has answered for is not to be done by a participant as well.

A command whose step was resolved or skipped by hand may still lie among the dead letters, or that of a pivot of which a
person says that it did not happen. Whoever handled it now would do a second time what a person has done, or do what a
person has said did not happen; and no saga would ever undo it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy import select

from orchestrator.model import SAGA, Phase, Saga, StepStatus
from orchestrator.tables import sagas
from outbox.database import Database
from outbox.dead_letters import Buried
from outbox.envelope import Envelope, decode
from outbox.errors import DatabaseOutOfReach

BY_HAND: Final = "a person has answered for {step} of saga {saga}, and it would be done all the same"
TURNED_BACK: Final = "saga {saga} has turned back at {step}, which would be done all the same, and never undone"
UNASKED: Final = "make it reachable: it knows what a person has answered for; or send without asking it, with --force"


class Settled:
    """Looks into the orchestrator's database, once there is something to look for."""

    def __init__(self, open_database: Callable[[], Database]) -> None:
        self._open = open_database
        self._database: Database | None = None

    async def why_not(self, letters: Sequence[Buried]) -> dict[int, str]:
        """Of those whose command is to be handled no more: number -> why. Raises DatabaseOutOfReach."""
        commands = {letter.number: list(_commands(letter)) for letter in letters}
        known = await self._look({one.subject for some in commands.values() for one in some})
        found = ((number, _why_not(known, one)) for number, some in commands.items() for one in some)
        return {number: why_not for number, why_not in found if why_not is not None}

    async def close(self) -> None:
        """Look no more."""
        if self._database is not None:
            await self._database.close()

    async def _look(self, wanted: set[str]) -> dict[str, Saga]:
        if not wanted:
            return {}
        try:
            self._database = self._database or self._open()
            query = select(sagas.c.id, sagas.c.state).where(self._database.any_of(sagas.c.id, sorted(wanted)))
            async with self._database.reading() as connection:
                return {row.id: SAGA.validate_json(row.state) for row in await connection.execute(query)}
        except DatabaseOutOfReach as error:
            raise DatabaseOutOfReach(error.what, UNASKED) from error


def _commands(letter: Buried) -> Iterable[Envelope]:
    """An answer is of no harm: nobody waits for it, and nobody heeds it."""
    events = (event for event in decode(letter.body.encode()) if isinstance(event, Envelope))
    return (event for event in events if event.answers is None)


def _why_not(known: Mapping[str, Saga], command: Envelope) -> str | None:
    saga = known.get(command.subject)
    step = command.id.removeprefix(f"{command.subject}/").partition("/")[0]
    if saga is None or step not in saga.steps:
        return None
    if saga.steps[step].by_hand:
        return BY_HAND.format(step=step, saga=saga.id)
    has_turned_back = saga.phase in (Phase.COMPENSATING, Phase.COMPENSATED)
    if has_turned_back and saga.steps[step].status is StepStatus.REFUSED:  # it was never to be undone
        return TURNED_BACK.format(step=step, saga=saga.id)  # who did refuse it would refuse it again
    return None
