"""A courier without a broker: carries what waits in the orchestrator's outbox, as badly as a test wants it carried.

It brings the orchestrator's commands to itself and its answers back, and answers for every other participant. So a
parent and its children can be led through a whole life on a real database, deterministically, with a clock that the
test owns; `tests/integration/test_children.py` does the same over a real NATS.
"""

from collections.abc import Iterable

from sqlalchemy import select

from outbox.envelope import Envelope
from outbox.unit_of_work import UnitOfWork
from tests.support.desk import Desk, answer
from tests.support.messaging import unpacked


class Courier:
    """Carries every letter once, unless it is told otherwise.

    `loses` are types of envelopes that never arrive, `refuses` types of commands that are answered "no". With `copies`
    every letter comes that often, with `backwards` the last written comes first.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        loses: Iterable[str] = (),
        refuses: Iterable[str] = (),
        copies: int = 1,
        backwards: bool = False,
    ) -> None:
        self.loses = set(loses)
        self.refuses = set(refuses)
        self.told: list[Envelope] = []
        """Answers for somebody who is not the orchestrator."""

        self._desk = desk
        self._copies = copies
        self._backwards = backwards
        self._carried: set[str] = set()

    async def run(self) -> None:
        """Carry until nothing is left."""
        while letters := await self._letters():
            for subject, envelope in letters:
                for _ in range(self._copies):
                    await self._deliver(subject, envelope)

    async def letters(self, *types: str) -> list[Envelope]:
        """Letters of these types that were ever written, the first written first."""
        return [envelope for _, envelope in await self._all() if envelope.type in types]

    async def _all(self) -> list[tuple[str, Envelope]]:
        table = self._desk.outbox.tables.outbox
        query = select(table.c.subject, table.c.body).order_by(table.c.due_at, table.c.message_id)
        async with self._desk.outbox.database.reading() as connection:
            rows = (await connection.execute(query)).all()
        return [(row.subject, letter) for row in rows for letter in unpacked(row.body)]

    async def _letters(self) -> list[tuple[str, Envelope]]:
        """What has not been carried yet. What is lost on the way counts as carried."""
        fresh = [(subject, one) for subject, one in await self._all() if one.message_id not in self._carried]
        self._carried |= {one.message_id for _, one in fresh}
        kept = [(subject, one) for subject, one in fresh if one.type not in self.loses]
        return kept[::-1] if self._backwards else kept

    async def _deliver(self, subject: str, envelope: Envelope) -> None:
        if subject.startswith("saga.cmd.orchestrator."):
            await self._desk.carry_out(envelope)
        elif subject.startswith("saga.cmd."):
            refused = envelope.type in self.refuses
            await self._desk.receive(
                answer(envelope.id, "refused") if refused else answer(envelope.id, authorisation_code="A1")
            )
        elif subject == "saga.reply.orchestrator":
            await self._desk.receive(envelope)
        elif subject.startswith("saga.reply."):
            self.told.append(envelope)


def answers(unit: UnitOfWork) -> list[Envelope]:
    """What was answered in this transaction."""
    sent = (Envelope.model_validate_json(out.body) for out in unit.outgoing.values())
    return [envelope for envelope in sent if envelope.answers is not None]
