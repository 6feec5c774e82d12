"""What a person has answered for is not to be done by a participant as well.

A command whose step was resolved or skipped by hand may still lie among the dead letters. Whoever handled it now would
do a second time what a person has done, or do what a person has said did not happen; and no saga would ever undo it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy import select

from orchestrator.model import SAGA, Saga
from orchestrator.tables import sagas
from outbox.database import Database
from outbox.dead_letters import Buried
from outbox.envelope import Envelope, decode

WHY_NOT: Final = "a person has answered for {step} of saga {saga}, and it would be done all the same"


async def settled_by_hand(database: Database, letters: Sequence[Buried]) -> dict[int, str]:
    """The numbers of those letters of which a command is awaited no more since a person has answered for its step, and
    why not to send them. `database` is the orchestrator's. Raises DatabaseOutOfReach.
    """
    commands = {letter.number: list(_commands(letter)) for letter in letters}
    wanted = {command.subject for some in commands.values() for command in some}
    query = select(sagas.c.id, sagas.c.state).where(database.any_of(sagas.c.id, sorted(wanted)))
    async with database.reading() as connection:
        known = {row.id: SAGA.validate_json(row.state) for row in await connection.execute(query)}
    found = ((number, _settled(known, one)) for number, some in commands.items() for one in some)
    return {number: why_not for number, why_not in found if why_not is not None}


def _commands(letter: Buried) -> Iterable[Envelope]:
    """An answer is of no harm: nobody waits for it, and nobody heeds it."""
    events = (event for event in decode(letter.body.encode()) if isinstance(event, Envelope))
    return (event for event in events if event.answers is None)


def _settled(known: Mapping[str, Saga], command: Envelope) -> str | None:
    saga = known.get(command.subject)
    step = command.id.removeprefix(f"{command.subject}/").partition("/")[0]
    if saga is None or step not in saga.steps or not saga.steps[step].by_hand:
        return None
    return WHY_NOT.format(step=step, saga=saga.id)
