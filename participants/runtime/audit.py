"""What an auditor asks of every service: do your books balance, and what is left of this saga?"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Effect = Literal["none", "partial", "applied"]
"""What a service holds of one saga: nothing, something that is not final, or all of it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken promise: which check found it, whose saga it is (if it is one's), which rows show it."""

    check: str
    message: str
    saga_id: str | None = None
    rows: tuple[str, ...] = ()


class Auditor(Protocol):
    """Reads one service's database, and writes nothing."""

    participant: str

    def books(self) -> AsyncIterator[Finding]:
        """Whatever does not balance within this service."""
        ...

    async def effects(self, saga_ids: Sequence[str]) -> Mapping[str, Effect]:
        """What this service holds of these sagas. A saga that is not in the answer has left nothing."""
        ...
