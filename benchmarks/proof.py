"""The proof that a run was right: a fast wrong run is a failed run.

`saga verify`, and what only the benchmark knows: how many sagas should have completed and how many should have been
undone, and that nothing is left in an outbox, also while sagas wait.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select

from benchmarks.history import AFTER_COPIES
from benchmarks.load import Sample
from benchmarks.options import Options
from benchmarks.stages import Stage
from orchestrator.composition import messaging_of, open_database, open_verifier
from orchestrator.settings import ROLES, Settings
from orchestrator.verify import Finding

PATIENCE: Final = 20.0


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found."""

    verified: int
    """How many sagas were replayed: all but copies."""

    violations: list[Finding]
    dead_letters: Mapping[str, int]
    """Role -> messages that it could not handle."""


async def prove(options: Options, settings: Settings, sample: Sample, stage: Stage) -> Proof:
    """Look for broken promises. Nothing runs any more."""
    violations = [*_wrong_ends(options, sample), *await _leftovers(settings)]
    async with open_verifier(settings) as verifier:
        with stage("verifying", await verifier.count(AFTER_COPIES)) as advance:
            violations += [finding async for finding in verifier.findings(advance, after=AFTER_COPIES)]
        return Proof(verifier.sagas, violations, await verifier.dead_letters())


def _wrong_ends(options: Options, sample: Sample) -> list[Finding]:
    refusals = options.refusals
    expected = {"completed": options.orders - refusals, "compensated": refusals}
    if {status: count for status, count in expected.items() if count} == dict(sample.statuses):
        return []
    found = ", ".join(f"{count:,} {status}" for status, count in sorted(sample.statuses.items()))
    message = f"{expected['completed']:,} sagas should have completed and {refusals:,} been undone; there are {found}"
    return [Finding("ends-as-ordered", message)]


async def _leftovers(settings: Settings) -> list[Finding]:
    left = await settle(settings, patience=0.0)
    return [Finding("outbox-is-empty", f"messages are left in the outbox of {role}") for role in left]


async def settle(settings: Settings, patience: float = PATIENCE) -> list[str]:
    """Wait until every outbox is empty. Returns the roles whose outbox is not, when that takes too long."""
    deadline = asyncio.get_running_loop().time() + patience
    async with AsyncExitStack() as stack:
        databases = {role: open_database(settings, role) for role in ROLES}
        for database in databases.values():
            stack.push_async_callback(database.close)
        while True:
            left = []
            for role, database in databases.items():
                async with database.reading() as connection:
                    query = select(messaging_of(role).outbox.c.message_id).limit(1)
                    if (await connection.execute(query)).first() is not None:
                        left.append(role)
            if not left or asyncio.get_running_loop().time() > deadline:
                return left
            await asyncio.sleep(0.05)
