"""Participants under test: one replica's processor, and what it answers to commands that are put into its hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete

from orchestrator.composition import PARTICIPANTS
from outbox.contracts import Command
from outbox.database import Database
from outbox.envelope import Envelope
from outbox.pump import Received
from outbox.unit_of_work import Outbox
from participants.inventory.audit import InventoryAuditor
from participants.order.audit import OrderAuditor
from participants.payment.audit import PaymentAuditor
from participants.runtime.audit import Auditor, Finding
from participants.runtime.processor import CommandProcessor
from tests.support.messaging import REPLIES, asks, outbox_on, rows_of, unpacked
from tests.support.servers import Role

AUDITORS: Mapping[Role, Callable[[Database], Auditor]] = {
    "order": OrderAuditor,
    "inventory": InventoryAuditor,
    "payment": PaymentAuditor,
}


@dataclass(frozen=True)
class Ask:
    """A command, and how it is sent."""

    command: Command[Any]
    id: str
    attempt: int = 1
    undoes: str | None = None

    @property
    def envelope(self) -> Envelope:
        return asks(self.command, self.id, attempt=self.attempt, undoes=self.undoes)

    def again(self) -> "Ask":
        """The same command, asked once more."""
        return Ask(self.command, self.id, self.attempt + 1, self.undoes)


class Replica:
    """One replica of a participant, without a broker: commands are put into its hand."""

    def __init__(self, role: Role, database: Database) -> None:
        self.role = role
        self.database = database
        self.outbox: Outbox = outbox_on(database, role)
        self.processor = CommandProcessor(PARTICIPANTS[role], database)

    async def carry_out(self, *batch: Ask) -> list[Envelope]:
        """Carry out a batch in one transaction; the replies that it sends, in their order."""
        received = [Received(ask.envelope, ask.command.subject(), 1) for ask in batch]
        async with self.outbox.unit_of_work() as unit:
            await self.processor.process(unit, received)
        sent = [out for out in unit.outgoing.values() if out.subject == REPLIES]
        return [Envelope.model_validate_json(out.body) for out in sent]

    async def answer(self, ask: Ask) -> Envelope:
        """Carry out one command."""
        [reply] = await self.carry_out(ask)
        return reply

    async def outcomes(self, *batch: Ask) -> list[str]:
        """Carry out a batch; `done`, or the code of the refusal, of each reply."""
        return [outcome(reply) for reply in await self.carry_out(*batch)]

    async def events(self) -> list[str]:
        """The domain events in the outbox: their ids, and their types."""
        rows = await rows_of(self.database, self.outbox.tables.outbox)
        events = [event for row in rows if row.subject != REPLIES for event in unpacked(row.body)]
        return sorted(f"{event.id} {event.type}" for event in events)

    def auditor(self) -> Auditor:
        """Who audits this service."""
        return AUDITORS[self.role](self.database)

    async def findings(self) -> list[Finding]:
        """What does not balance."""
        return [finding async for finding in self.auditor().books()]

    async def effects(self, *saga_ids: str) -> dict[str, str]:
        """What is left of these sagas."""
        return dict(await self.auditor().effects(saga_ids))

    async def forget_everything(self) -> None:
        """Empty every table."""
        async with self.database.transaction() as connection:
            for table in PARTICIPANTS[self.role].metadata.tables.values():
                await connection.execute(delete(table))


def outcome(reply: Envelope) -> str:
    """`done`, or the code of the refusal."""
    return str(reply.data["code"]) if reply.outcome == "refused" else str(reply.outcome)


def codes(replies: Sequence[Envelope]) -> list[tuple[str | None, str]]:
    """Which command each reply answers, and how."""
    return [(reply.answers, outcome(reply)) for reply in replies]
