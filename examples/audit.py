"""The proof at the end of an example, read from its databases and not from its logs.

Two things are looked at. `EffectAuditor` answers, for one participant, what `saga verify` asks of every service: what
is left of this saga? And an example has claims of its own, about its seats or its money.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Column, select, true

from examples.stage import ORCHESTRATOR, Stage
from orchestrator import tables
from orchestrator.verify import Books, Verifier
from outbox.database import Database
from participants.runtime.audit import Effect, Finding, ids_in_batches

Claim = Callable[[Stage], Awaitable[Sequence[str]]]
"""Reads the databases, and returns what contradicts the claim."""


@dataclass(slots=True)
class EffectAuditor:
    """Audits a participant whose rows say whose they are, and how far they have come.

    Without a `status` a row is there or not, and is all there is to have.
    """

    participant: str
    database: Database
    owner: Column[str]
    status: Column[str] | None = None
    meaning: Mapping[str, Effect] = field(default_factory=dict)

    async def books(self) -> AsyncIterator[Finding]:
        """Nothing: whether they balance is the example's own claim."""
        nothing: tuple[Finding, ...] = ()
        for finding in nothing:
            yield finding

    def holders(self) -> AsyncIterator[list[str]]:
        """Whoever has an effect that was not undone."""
        left = [status for status, effect in self.meaning.items() if effect != "none"]
        condition = true() if self.status is None else self.status.in_(left)
        return ids_in_batches(self.database, self.owner, condition)

    async def effects(self, saga_ids: Sequence[str]) -> Mapping[str, Effect]:
        """What all rows of a saga say, if they say the same."""
        found: dict[str, set[Effect]] = defaultdict(set)
        columns = [self.owner] if self.status is None else [self.owner, self.status]
        query = select(*columns).where(self.database.any_of(self.owner, saga_ids))
        async with self.database.reading() as connection:
            for owner, *status in await connection.execute(query):
                found[owner].add(self.meaning.get(status[0], "partial") if status else "applied")
        return {owner: effects.pop() if len(effects) == 1 else "partial" for owner, effects in found.items()}


async def contradictions(stage: Stage, auditors: Sequence[EffectAuditor]) -> list[str]:
    """What `saga verify` finds: logs that do not replay, effects that do not fit the end of their saga, leftovers."""
    messaging = {name: participant.messaging for name, participant in stage.participants.items()}
    messaging[ORCHESTRATOR] = tables.messaging
    books = [Books(role, database, messaging[role]) for role, database in stage.databases.items()]
    verifier = Verifier(stage.databases[ORCHESTRATOR], stage.definitions, auditors, books)
    found = [finding.message async for finding in verifier.findings()]
    buried = await verifier.dead_letters()
    return found + [f"{count} messages could not be handled by {role}" for role, count in buried.items()]
