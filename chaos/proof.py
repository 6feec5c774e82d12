"""What must hold when the faults are over: `saga verify`, and what only the run knows.

It knows what was ordered, which orders had to be refused, that the processes were to run on, and that whatever is a
dead letter was garbage when it came.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, select

from chaos import orders
from chaos.garbage import MARK
from chaos.load import Load
from chaos.record import Invariant, Violation
from chaos.settle import LIVENESS, Left
from orchestrator.composition import messaging_of, open_database, open_verifier
from orchestrator.entries import ENTRIES, GivenUp
from orchestrator.settings import ROLES, Settings
from orchestrator.tables import saga_log, sagas
from outbox.database import Database

BATCH: Final = 1000
MOST_SHOWN: Final = 100
"""Violations that are kept; more of them say no more."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found."""

    statuses: dict[str, int]
    invariants: tuple[Invariant, ...]
    violations: tuple[Violation, ...]


async def prove(
    settings: Settings, load: Load, surprises: Sequence[str], left: Left, advance: Callable[[int], None]
) -> Proof:
    """Hold every claim against the databases. Nothing runs any more."""
    findings: list[Violation] = [*_surprises(surprises), *left.violations]
    findings += [Violation(invariant="one-saga-an-order", message=message) for message in load.conflicts]
    async with open_verifier(settings) as verifier:
        async for one in verifier.findings(advance):
            findings.append(Violation(invariant=one.check, message=one.message, saga_id=one.saga_id, rows=one.rows))
        verified = verifier.sagas
    statuses: Counter[str] = Counter()
    database = open_database(settings, "orchestrator")
    try:
        async for batch in _sagas(database):
            statuses.update(row.status for row in batch)
            findings += [found for row in batch if (found := _wrong_end(load, row)) is not None]
            findings += await _without_reason(database, batch)
        findings += await _ordered_once(database, load)
    finally:
        await database.close()
    letters, buried = await _dead_letters(settings)
    findings += buried
    return Proof(dict(statuses), _invariants(verified, len(load.started), letters), tuple(findings[:MOST_SHOWN]))


def _invariants(verified: int, ordered: int, letters: int) -> tuple[Invariant, ...]:
    said = {
        "log-replays-to-state": ("the log of every saga replays to its stored state", verified),
        "effects-match-outcome": ("what a saga has left with each service is what its end says", verified),
        "effects-have-a-saga": ("whatever a service holds belongs to a saga", verified),
        "books-balance": ("stock is constant, the ledger sums to zero, money taken equals orders confirmed", verified),
        "outbox-is-empty": ("no message is left in an outbox", len(ROLES)),
        "one-saga-an-order": ("every order that was taken has exactly one saga, the one that we were told of", ordered),
        "ends-as-ordered": ("orders that had to be refused were undone, and no others", ordered),
        LIVENESS: ("every saga has ended, and every outbox was empty, before patience was over", ordered),
        "processes-stay-up": ("no process has ended by itself", 2 * len(ROLES)),
        "dead-letters-are-garbage": (
            f"whatever a service has buried as a dead letter was garbage when it came; {letters:,} were buried",
            len(ROLES),
        ),
    }
    return tuple(Invariant(name=name, sentence=text, checked=count) for name, (text, count) in said.items())


def _surprises(surprises: Sequence[str]) -> list[Violation]:
    return [Violation(invariant="processes-stay-up", message=message) for message in surprises]


async def _sagas(database: Database) -> AsyncIterator[list[Row[Any]]]:
    last = ""
    while True:
        query = select(sagas.c.id, sagas.c.key, sagas.c.status).where(sagas.c.id > last).order_by(sagas.c.id)
        async with database.reading() as connection:
            batch: list[Row[Any]] = list(await connection.execute(query.limit(BATCH)))
        if not batch:
            return
        yield batch
        last = batch[-1].id


def _number(row: Row[Any]) -> int:
    return int(row.key.rpartition("-")[2])


def _wrong_end(load: Load, row: Row[Any]) -> Violation | None:
    """A saga that nobody has ordered, or that completed although it had to be refused."""
    number = _number(row)
    if load.started.get(number) != row.id:
        message = f"saga {row.id} carries out order {number}, whose saga is {load.started.get(number)}"
        return Violation(invariant="one-saga-an-order", message=message, saga_id=row.id)
    refusal = orders.refusal(number)
    if refusal is not None and row.status == "completed":
        message = f"order {number} had to be refused ({refusal}), and saga {row.id} has completed"
        return Violation(invariant="ends-as-ordered", message=message, saga_id=row.id)
    return None


async def _without_reason(database: Database, batch: Sequence[Row[Any]]) -> list[Violation]:
    """Sagas that were undone although their orders could be filled: their log must say that an answer never came."""
    undone = [row for row in batch if row.status == "compensated" and orders.refusal(_number(row)) is None]
    if not undone:
        return []
    query = select(saga_log.c.saga_id, saga_log.c.entries).where(
        database.any_of(saga_log.c.saga_id, [row.id for row in undone])
    )
    excused = set()
    async with database.reading() as connection:
        for row in await connection.execute(query):
            if any(isinstance(entry, GivenUp) for entry in ENTRIES.validate_json(row.entries)):
                excused.add(row.saga_id)
    return [
        Violation(
            invariant="ends-as-ordered",
            message=f"order {_number(row)} could be filled, and saga {row.id} was undone although no step was given up",
            saga_id=row.id,
        )
        for row in undone
        if row.id not in excused
    ]


async def _ordered_once(database: Database, load: Load) -> list[Violation]:
    """Orders that were taken and have no saga."""
    findings, numbers = [], sorted(load.started)
    for start in range(0, len(numbers), BATCH):
        ids = {load.started[number]: number for number in numbers[start : start + BATCH]}
        async with database.reading() as connection:
            query = select(sagas.c.id).where(database.any_of(sagas.c.id, list(ids)))
            found = set((await connection.execute(query)).scalars())
        findings += [
            Violation(invariant="one-saga-an-order", message=f"order {number} was taken as saga {one}, which is gone")
            for one, number in ids.items()
            if one not in found
        ]
    return findings


async def _dead_letters(settings: Settings) -> tuple[int, list[Violation]]:
    """How many there are, and those that were no garbage."""
    count, findings = 0, []
    for role in ROLES:
        database, table = open_database(settings, role), messaging_of(role).dead_letters
        try:
            async with database.reading() as connection:
                for row in await connection.execute(select(table.c.subject, table.c.reason, table.c.body)):
                    count += 1
                    if MARK not in row.body:
                        message = f"{role} has buried a message on {row.subject}: {row.reason}"
                        findings.append(Violation(invariant="dead-letters-are-garbage", message=message))
        finally:
            await database.close()
    return count, findings
