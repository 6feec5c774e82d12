"""Whether this code may take over from the one that is running: the definitions here against the sagas in flight there.

A saga stays on the definition that it began with. If the code that is about to be deployed does not have that
definition any more, the saga would be left alone for ever: a broken promise that nobody notices. So it is asked first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, select

from orchestrator.engine import new_saga_id
from orchestrator.model import SAGA
from orchestrator.registry import Definitions
from orchestrator.tables import sagas
from outbox.database import Database

ID_LENGTH = len(new_saga_id())


class Verdict(StrEnum):
    """What a deployment means for one version of one saga."""

    SAFE = "safe"
    KEEP = "keep"
    FREE = "free"
    STRANDED = "stranded"


@dataclass(frozen=True, slots=True)
class Finding:
    """One version of one saga: how many are in flight, what that means, and what to do."""

    definition: str
    version: int
    fingerprint: str
    verdict: Verdict
    in_flight: int
    example: str | None
    advice: str


@dataclass(frozen=True, slots=True)
class InFlight:
    """Sagas that still need their definition."""

    definition: str
    version: int
    fingerprint: str
    count: int
    example: str


async def in_flight(database: Database) -> list[InFlight]:
    """What has not ended, and what has completed but may still be undone by its parent, by definition."""
    query = (
        select(sagas.c.definition, sagas.c.fingerprint, func.count().label("found"), func.min(sagas.c.id).label("id"))
        .where(or_(sagas.c.ended_at.is_(None), _may_be_undone()))
        .group_by(sagas.c.definition, sagas.c.fingerprint)
        .order_by(sagas.c.definition, sagas.c.fingerprint)
    )
    async with database.reading() as connection:
        rows = (await connection.execute(query)).all()
        examples = select(sagas.c.id, sagas.c.state).where(database.any_of(sagas.c.id, [row.id for row in rows]))
        states = {row.id: SAGA.validate_json(row.state) for row in await connection.execute(examples)}
    return [InFlight(row.definition, states[row.id].version, row.fingerprint, row.found, row.id) for row in rows]


def check(definitions: Definitions, running: Sequence[InFlight]) -> list[Finding]:
    """What a deployment of `definitions` means, version by version; those that would be stranded come first."""
    by_fingerprint = {one.fingerprint: one for one in running}
    here = [_finding_here(definitions, saga, by_fingerprint.get(saga.fingerprint)) for saga in definitions.every]
    gone = [_stranded(definitions, one) for one in running if one.fingerprint not in definitions.by_fingerprint]
    return gone + here


def _finding_here(definitions: Definitions, saga: Any, running: InFlight | None) -> Finding:
    count = running.count if running else 0
    newest = definitions[saga.name].fingerprint == saga.fingerprint
    if newest:
        verdict, advice = Verdict.SAFE, "new sagas begin on it"
    elif count:
        verdict, advice = Verdict.KEEP, "keep it loaded until those in flight have ended"
    else:
        verdict, advice = Verdict.FREE, "nothing needs it any more: it may be removed"
    example = running.example if running else None
    return Finding(saga.name, saga.version, saga.fingerprint, verdict, count, example, advice)


def _stranded(definitions: Definitions, one: InFlight) -> Finding:
    twin = next((s for s in definitions.every if (s.name, s.version) == (one.definition, one.version)), None)
    if twin is not None:
        advice = (
            f"its structure was changed without a new version (now {twin.fingerprint}): "
            f"give the changed one version {one.version + 1} and keep the old one beside it"
        )
    else:
        advice = "keep the module that defines it in SAGA_DEFINITIONS until those in flight have ended"
    return Finding(one.definition, one.version, one.fingerprint, Verdict.STRANDED, one.count, one.example, advice)


def _may_be_undone() -> ColumnElement[bool]:
    """A child that has completed, and whose parent has not ended. Its key is the command that started it."""
    parent = sagas.alias("parent")
    has_parent = exists().where(parent.c.id == func.substr(sagas.c.key, 1, ID_LENGTH), parent.c.ended_at.is_(None))
    return and_(sagas.c.status == "completed", sagas.c.key.contains("/"), has_parent)
