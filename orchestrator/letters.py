"""The dead letters of all roles together. A database that is out of reach hides its own, and no others."""

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from orchestrator.settled import Settled
from outbox.database import Database
from outbox.dead_letters import LETTERS_AT_ONCE, Buried, DeadLetters, Order, Outcome, Wanted
from outbox.errors import DatabaseOutOfReach, SchemaMissing
from outbox.reasons import in_common

T = TypeVar("T")


class UnknownLetter(Exception):
    """There is no dead letter of this id."""


@dataclass(frozen=True, slots=True)
class Group:
    """Letters of one role that were buried for the same reason."""

    role: str
    reason: str
    letters: int
    first_at: datetime
    last_at: datetime
    example: str
    """The id of one of them."""


@dataclass(slots=True)
class Letters:
    """A look at several roles. `hidden`: which could not be looked at, and why.

    `orchestrator` opens its database, which knows what a person has answered for. Raises DatabaseOutOfReach.
    """

    boxes: dict[str, DeadLetters]
    orchestrator: Callable[[], Database]
    hidden: dict[str, str] = field(default_factory=dict)

    async def find(self, wanted: Wanted, limit: int | None = None) -> list[Buried]:
        """The newest first."""
        asked = await self._ask(lambda box: box.find(wanted, limit=limit))
        found = [letter for letters in asked.values() for letter in letters]
        return sorted(found, key=lambda letter: letter.at, reverse=True)[:limit]

    async def counted(self, wanted: Wanted) -> dict[str, int]:
        """role -> how many."""
        return {role: len(numbers) for role, numbers in (await self._ask(lambda box: box.numbers(wanted))).items()}

    async def groups(self, wanted: Wanted) -> list[Group]:
        """By role and reason, the most frequent first."""
        found: dict[tuple[str, str], list[tuple[int, datetime]]] = defaultdict(list)
        for role, reasons in (await self._ask(lambda box: box.reasons(wanted))).items():
            for number, at, reason in reasons:
                found[role, in_common(reason)].append((number, at))
        groups = [
            Group(role, reason, len(some), min(at for _, at in some), max(at for _, at in some), f"{role}/{some[0][0]}")
            for (role, reason), some in found.items()
        ]
        return sorted(groups, key=lambda group: (-group.letters, group.role, group.reason))

    async def one(self, role: str, number: int) -> Buried:
        """Raises UnknownLetter, DatabaseOutOfReach."""
        if role in self.hidden:
            raise DatabaseOutOfReach(self.hidden[role])
        found = await self.boxes[role].find(Wanted(numbers=[number]))
        if not found:
            raise UnknownLetter(f"there is no dead letter {role}/{number}: `saga dlq ls` lists them")
        return found[0]

    async def count(self, wanted: Wanted) -> int:
        """How many there are. Raises DatabaseOutOfReach when a role cannot be asked."""
        return sum([len(await box.numbers(wanted)) for box in self.boxes.values()])

    async def carry_out(self, order: Order, wanted: Wanted) -> AsyncIterator[list[Outcome]]:
        """Batch by batch, each in a transaction of its own. Raises DatabaseOutOfReach; what was told is done.

        What is buried again meanwhile is left alone: it is younger than the order.
        """
        settled = Settled(self.orchestrator)
        try:
            for box in self.boxes.values():
                numbers = await box.numbers(wanted)
                for start in range(0, len(numbers), LETTERS_AT_ONCE):
                    yield await box.carry_out(order, numbers[start : start + LETTERS_AT_ONCE], settled.why_not)
        finally:
            await settled.close()

    async def _ask(self, look: Callable[[DeadLetters], Awaitable[T]]) -> dict[str, T]:
        answers: dict[str, T] = {}
        for role, box in self.boxes.items():
            try:
                answers[role] = await look(box)
            except (DatabaseOutOfReach, SchemaMissing) as error:
                self.hidden[role] = str(error)
        return answers
