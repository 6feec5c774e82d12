"""The proof, read from the databases and not from the logs: nothing was lost and nothing happened twice.

- every saga's log replays to its stored state;
- an ended saga's effects are all there (`completed`) or all gone (`compensated`), in every service; but not of
  steps that a person has answered for, and not of forks, whose effects are those of the saga that was copied;
- what a service holds, or a log tells of, has a saga (or is old enough for a saga that was pruned);
- every service's own books balance (stock is constant, the ledger sums to zero, …);
- once things are quiet no row is left over in any outbox.

Sagas that are still under way are read, replayed, and not yet judged by their effects.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import Row, Select, Table, bindparam, exists, func, select

from orchestrator import machine
from orchestrator.entries import ENTRIES
from orchestrator.model import ENDED, SAGA, Phase, Saga, StepStatus
from orchestrator.registry import Definitions
from orchestrator.retention import missing
from orchestrator.tables import saga_log, sagas
from outbox.database import Database, among
from outbox.tables import MessagingTables
from participants.runtime.audit import Auditor, Effect, Finding

__all__ = ["Books", "Finding", "Verifier"]

BATCH: Final = 500
QUIET_PATIENCE: Final = 5.0

NEXT: Final = select(sagas).where(sagas.c.id > bindparam("last")).order_by(sagas.c.id).limit(BATCH)

ORPHANS: Final = (
    select(saga_log.c.saga_id)
    .distinct()
    .where(saga_log.c.saga_id > bindparam("last"), ~exists().where(sagas.c.id == saga_log.c.saga_id))
    .limit(20)
)

UNDER_WAY: Final = select(sagas.c.id).where(sagas.c.status.in_(["running", "compensating"])).limit(1)


@cache
def _logs(dialect: str) -> Select[Any]:
    of_sagas = select(saga_log).where(among(dialect, saga_log.c.saga_id, "sagas"))
    return of_sagas.order_by(saga_log.c.saga_id, saga_log.c.revision)


@cache
def _left_in(outbox: Table) -> Select[str]:
    return select(outbox.c.message_id).limit(20)


@dataclass(frozen=True, slots=True)
class Books:
    """A service's database, as far as messaging goes."""

    role: str
    database: Database
    tables: MessagingTables


class Verifier:
    """Looks for broken promises. Bounded memory: sagas are read in batches."""

    def __init__(
        self,
        database: Database,
        definitions: Definitions,
        auditors: Sequence[Auditor],
        books: Sequence[Books],
    ) -> None:
        self._database = database
        self._definitions = definitions
        self._auditors = auditors
        self._books = books
        self.sagas = 0
        """How many sagas were looked at."""

    async def count(self, after: str = "") -> int:
        """How many sagas there are, after an id."""
        async with self._database.reading() as connection:
            query = select(func.count()).select_from(sagas).where(sagas.c.id > after)
            return (await connection.execute(query)).scalar_one()

    async def findings(
        self, advance: Callable[[int], None] = lambda _: None, *, after: str = ""
    ) -> AsyncIterator[Finding]:
        """Everything that is wrong. `advance` is told how many more sagas have been looked at.

        Of the sagas, only those after an id are looked at. The books of the services are looked at as a whole.
        """
        async for batch, logs in self._batches(after):
            for row in batch:
                for finding in _replay_findings(row, logs[row.id]):
                    yield finding
            async for finding in self._effect_findings(_readable(batch)):
                yield finding
            self.sagas += len(batch)
            advance(len(batch))
        async for finding in self._orphan_findings(after):
            yield finding
        for auditor in self._auditors:
            async for finding in auditor.books():
                yield finding
        async for finding in self._outbox_findings():
            yield finding

    async def _batches(self, last: str) -> AsyncIterator[tuple[list[Row[Any]], dict[str, list[Row[Any]]]]]:
        while True:
            async with self._database.reading() as connection:
                batch = list(await connection.execute(NEXT, {"last": last}))
                ids = [row.id for row in batch]
                logs: dict[str, list[Row[Any]]] = defaultdict(list)
                for row in await connection.execute(_logs(self._database.dialect), {"sagas": ids}):
                    logs[row.saga_id].append(row)
            if not batch:
                return
            yield batch, logs
            last = ids[-1]

    async def _effect_findings(self, batch: Sequence[Saga]) -> AsyncIterator[Finding]:
        ended = [saga for saga in batch if saga.phase in ENDED and saga.fork_of is None]
        for auditor in self._auditors:
            expected = {saga.id: self._expected(auditor.participant, saga) for saga in ended}
            concerned = [saga for saga in ended if expected[saga.id]]
            if not concerned:
                continue
            effects = await auditor.effects([saga.id for saga in concerned])
            for saga in concerned:
                found = effects.get(saga.id, "none")
                if found not in expected[saga.id]:
                    yield Finding(
                        "effects-match-outcome",
                        f"saga {saga.id} is {saga.phase}, so its effects in {auditor.participant} should be "
                        f"{' or '.join(expected[saga.id])}, and they are {found}",
                        saga_id=saga.id,
                        rows=(f"sagas/{saga.id}",),
                    )

    def _expected(self, participant: str, saga: Saga) -> tuple[Effect, ...]:
        """What a saga that has ended may have left with a participant; nothing where the machine cannot know."""
        definition = self._definitions.by_fingerprint.get(saga.fingerprint)
        if definition is None:
            return ()
        steps = [step for name, step in saga.steps.items() if definition.spec_of(name).participant == participant]
        if not steps or any(step.by_hand for step in steps):
            return ()  # it takes no part, or a person has answered for it
        skipped = [step.status is StepStatus.SKIPPED for step in steps]
        if saga.phase is Phase.COMPENSATED or all(skipped):
            return ("none",)
        if any(skipped):
            return ()
        return ("applied",) if definition.pivot else ("applied", "partial")  # without a pivot it can still be undone

    async def _orphan_findings(self, after: str) -> AsyncIterator[Finding]:
        """What belongs to a saga that is not there: log rows, and effects in a service."""
        async with self._database.reading() as connection:
            missing = list((await connection.execute(ORPHANS, {"last": after})).scalars())
        for saga_id in missing:
            yield Finding("log-has-a-saga", f"saga {saga_id} has a log and no row", saga_id, (f"saga_log/{saga_id}",))
        for auditor in self._auditors:
            async for batch in auditor.holders():
                for saga_id in await self._unknown([one for one in batch if one > after]):
                    message = f"{auditor.participant} holds something of saga {saga_id}, which is not there"
                    yield Finding("effects-have-a-saga", message, saga_id, (f"{auditor.participant}/{saga_id}",))

    async def _unknown(self, saga_ids: Sequence[str]) -> list[str]:
        async with self._database.reading() as connection:
            return sorted(await missing(connection, self._database, saga_ids))

    async def dead_letters(self) -> dict[str, int]:
        """role -> how many messages it could not handle. They are for a person to look at, and no broken promise."""
        found = {}
        for books in self._books:
            async with books.database.reading() as connection:
                query = select(func.count()).select_from(books.tables.dead_letters)
                found[books.role] = (await connection.execute(query)).scalar_one()
        return {role: count for role, count in found.items() if count}

    async def _outbox_findings(self) -> AsyncIterator[Finding]:
        """Only when no saga is under way: until then rows come and go."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + QUIET_PATIENCE
        while await self._is_quiet():
            left = {books: rows for books in self._books if (rows := await _leftovers(books))}
            if not left:
                return
            if loop.time() > deadline:
                for books, rows in left.items():
                    yield Finding(
                        "outbox-is-empty",
                        f"all sagas have ended, and messages wait in the outbox of {books.role}: is it running?",
                        rows=tuple(f"{books.role}.outbox/{row}" for row in rows),
                    )
                return
            await asyncio.sleep(0.1)

    async def _is_quiet(self) -> bool:
        async with self._database.reading() as connection:
            return (await connection.execute(UNDER_WAY)).first() is None


async def _leftovers(books: Books) -> list[str]:
    async with books.database.reading() as connection:
        return list((await connection.execute(_left_in(books.tables.outbox))).scalars())


def _readable(batch: Sequence[Row[Any]]) -> list[Saga]:
    """The states that are states. Of the others it is known by now that their log tells something else."""
    return [state for row in batch if (state := _state(row)) is not None]


def _replay_findings(row: Row[Any], log: Sequence[Row[Any]]) -> list[Finding]:
    """Whether the log of one saga tells how its row came to be."""
    problem = _replay_problem(row, log)
    if problem is None:
        return []
    rows = (f"sagas/{row.id}", *(f"saga_log/{one.position}" for one in log))
    return [Finding("log-replays-to-state", f"saga {row.id}: {problem}", saga_id=row.id, rows=rows)]


def _state(row: Row[Any]) -> Saga | None:
    """The stored state; an older release's may lack what this one has a default for."""
    try:
        return SAGA.validate_json(row.state)
    except ValidationError:
        return None


def _replay_problem(row: Row[Any], log: Sequence[Row[Any]]) -> str | None:
    if [one.revision for one in log] != list(range(1, row.revision + 1)):
        return f"its log has the revisions {[one.revision for one in log]}, its row is at {row.revision}"
    try:
        replayed = machine.replay(row.id, (entry for one in log for entry in ENTRIES.validate_json(one.entries)))
    except (KeyError, ValueError) as error:
        return f"its log cannot be replayed: {error}"
    if replayed != _state(row):
        return "its log replays to another state than the stored one"
    ended = replayed.phase in ENDED
    if row.status != replayed.status:
        return f"its row says {row.status}, its state says {replayed.status}"
    if (row.ended_at is not None) != ended:
        return f"its state says {replayed.status}, and its row has {'no' if ended else 'a'} time of its end"
    if row.due_at != (None if ended else replayed.due_at):
        return f"its timer stands at {row.due_at}, its state says {replayed.due_at}"
    return None
