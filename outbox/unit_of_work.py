"""The unit of work: one transaction that writes a change and the messages that speak of it.

It keeps promise 1 by its order: everything is written, then committed, and only then handed to the relay and
acknowledged to the broker. How it dies:

- before the commit: nothing happened, the broker delivers the batch again;
- after the commit:  the rows of the outbox are there, the relay's sweep publishes them, and the batch that
  is delivered again meets the inbox.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.bulk import Writes
from outbox.clock import Clock
from outbox.database import Database
from outbox.envelope import Envelope, Packet, pack
from outbox.errors import MessageTooLarge
from outbox.faults import Faults
from outbox.tables import MessagingTables

MAX_MESSAGE_BYTES: Final = 900 * 1024
"""Below the broker's default limit of 1 MiB: what is larger is refused, never a row that cannot be sent."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be handled: its text, where it came from, and why."""

    subject: str
    message_id: str | None
    reason: str
    body: str
    deliveries: int

    @property
    def digest(self) -> str:
        """The same message is buried once, however often it is delivered."""
        return sha256(f"{self.subject}\n{self.body}".encode("utf-8", "backslashreplace")).hexdigest()


@dataclass(slots=True)
class UnitOfWork:
    """What one transaction is about to write besides the caller's own rows."""

    connection: AsyncConnection
    now: datetime
    writes: Writes = field(default_factory=Writes)
    """Rows that are written at the end, in one statement."""

    outgoing: dict[str, Packet] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    deferred: set[int] = field(default_factory=set)
    """`id`s of envelopes that another replica should handle."""

    def send(self, subject: str, envelope: Envelope) -> None:
        """Put a message into the outbox. Raises MessageTooLarge when the broker would not take it."""
        body = envelope.encode()
        if len(body) > MAX_MESSAGE_BYTES // 4 and (size := len(body.encode())) > MAX_MESSAGE_BYTES:
            raise MessageTooLarge(
                f"message {envelope.id} has {size:,} bytes, the limit is {MAX_MESSAGE_BYTES:,}: "
                "send a reference to the data instead of the data"
            )
        self.outgoing[envelope.message_id] = Packet(envelope.message_id, subject, body)

    def defer(self, envelope: Envelope) -> None:
        """Let the broker deliver the message of this envelope again, to somebody who can handle it."""
        self.deferred.add(id(envelope))

    def bury(self, letter: DeadLetter) -> None:
        """Keep a message that cannot be handled, with the reason, for a person to look at."""
        self.dead_letters.append(letter)


class Outbox:
    """The tables of messaging in one database, and the only way to write to them."""

    def __init__(
        self,
        database: Database,
        tables: MessagingTables,
        *,
        clock: Clock,
        faults: Faults,
        role: str,
        grace: timedelta = timedelta(seconds=5),
    ) -> None:
        self.database = database
        self.tables = tables
        self.clock = clock
        self.grace = grace
        self._faults = faults
        self._role = role
        self._committed: Callable[[Sequence[Packet]], None] = lambda _: None

    def reach(self, point: str) -> None:
        """Pass one of this role's crash points."""
        self._faults.reach(f"{self._role}.{point}")

    def on_commit(self, listener: Callable[[Sequence[Packet]], None]) -> None:
        """Tell `listener` (the relay) what has just been committed."""
        self._committed = listener

    @asynccontextmanager
    async def unit_of_work(self) -> AsyncIterator[UnitOfWork]:
        """Write everything, commit, hand over to the relay. Nothing is written when the block raises."""
        async with self.database.transaction() as connection:
            unit = UnitOfWork(connection, self.clock.now())
            yield unit
            packets = pack(unit.outgoing.values())
            await self._write(unit, packets)
            self.reach("before-commit")
        self.reach("committed")
        self._committed(packets)

    async def _write(self, unit: UnitOfWork, packets: Sequence[Packet]) -> None:
        due_at = unit.now + self.grace  # until then the relay of this process has it in hand
        rows = [
            {"message_id": one.message_id, "subject": one.subject, "body": one.body, "due_at": due_at}
            for one in packets
        ]
        unit.writes.insert(self.tables.outbox, rows, known=True)
        if unit.dead_letters:
            letters = [
                {
                    "at": unit.now,
                    "subject": letter.subject.replace("\x00", "\\x00")[:255],  # the broker has no such limits
                    "message_id": letter.message_id,
                    "reason": letter.reason,
                    "body": letter.body,
                    "deliveries": letter.deliveries,
                    "digest": letter.digest,
                }
                for letter in unit.dead_letters
            ]
            unit.writes.insert(self.tables.dead_letters, letters, known=True)
        await unit.writes.flush(unit.connection)
