"""The dead letters of one role: read, sent once more, or dropped.

Redriving is safe, because it is one transaction: the message goes into the outbox and the letter out of its table
together, so that a crash leaves either both as they were or both done. It is published under a message id that the
broker has never seen (one that it remembers it would drop in silence), and keeps its own: whoever has applied it before
knows it again. What still cannot be handled is buried again, as a new letter.

What a person did, and why, is written in the same transaction (`dead_letter_log`).
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import ColumnElement, Row, delete, insert, or_, select

from outbox.envelope import Subject, Unreadable, decode
from outbox.reasons import pattern_of
from outbox.unit_of_work import MAX_MESSAGE_BYTES, Outbox, UnitOfWork

LETTERS_AT_ONCE: Final = 50
"""A letter may be as large as the broker takes."""

Act = Literal["redriven", "dropped"]

SUBJECT: Final[TypeAdapter[str]] = TypeAdapter(Subject)


@dataclass(frozen=True, slots=True)
class Buried:
    """One dead letter. Its id tells it from those of all roles."""

    role: str
    number: int
    at: datetime
    subject: str
    message_id: str | None
    reason: str
    deliveries: int
    body: str

    @property
    def id(self) -> str:
        """`order/12`."""
        return f"{self.role}/{self.number}"

    @property
    def impossible(self) -> str | None:
        """Why it cannot be sent at all; None when it can."""
        size = len(self.body.encode())
        if size > MAX_MESSAGE_BYTES:
            return f"it has {size:,} bytes, and {MAX_MESSAGE_BYTES:,} is the limit: the broker would not take it"
        try:
            SUBJECT.validate_python(self.subject)
        except ValidationError:
            return f"nothing can be published on its subject {self.subject!r}"
        if not self.subject.startswith((f"saga.cmd.{self.role}.", "saga.reply.")):
            return f"its subject {self.subject!r} does not lead to {self.role}"
        return None

    @property
    def useless(self) -> str | None:
        """Why it would be buried again for certain; None when it might be handled."""
        bad = next((event.reason for event in decode(self.body.encode()) if isinstance(event, Unreadable)), None)
        return None if bad is None else f"it cannot be read ({bad}), and would only be buried again"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters. Empty fields let everything pass."""

    numbers: Sequence[int] = ()
    because: str | None = None
    """A part of the reason, in which `#` and `…` stand for what `outbox.reasons` puts them for."""

    saga: str | None = None
    before: datetime | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What a person wants done, who that is, and why."""

    act: Act
    by: str
    why: str
    force: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. `why_not` is why nothing did."""

    letter: Buried
    act: Act
    why_not: str | None = None


WhyNot = Callable[[Sequence[Buried]], Awaitable[Mapping[int, str]]]
"""Letters -> of those that are better not sent: number -> why."""


class DeadLetters:
    """One role's."""

    def __init__(self, role: str, outbox: Outbox) -> None:
        self.role = role
        self._outbox = outbox
        self._table = outbox.tables.dead_letters

    async def find(self, wanted: Wanted, *, limit: int | None = None) -> list[Buried]:
        """The newest first."""
        query = select(self._table).where(*self._conditions(wanted)).order_by(self._table.c.id.desc()).limit(limit)
        async with self._outbox.database.reading() as connection:
            return [buried_from(self.role, row) for row in await connection.execute(query)]

    async def numbers(self, wanted: Wanted) -> list[int]:
        """The same, oldest first, without what is in them."""
        query = select(self._table.c.id).where(*self._conditions(wanted)).order_by(self._table.c.id)
        async with self._outbox.database.reading() as connection:
            return list((await connection.execute(query)).scalars())

    async def reasons(self, wanted: Wanted) -> list[tuple[int, datetime, str]]:
        """The number, the time and the reason of each, oldest first."""
        columns = (self._table.c.id, self._table.c.at, self._table.c.reason)
        query = select(*columns).where(*self._conditions(wanted)).order_by(self._table.c.id)
        async with self._outbox.database.reading() as connection:
            return [(row.id, row.at, row.reason) for row in await connection.execute(query)]

    async def carry_out(self, order: Order, numbers: Sequence[int], why_not: WhyNot | None = None) -> list[Outcome]:
        """Redrive or drop these, in one transaction. What others have done meanwhile is not among the outcomes.

        `why_not` is asked, of what is redriven without force, which should not be.
        """
        locked = select(self._table).where(self._outbox.database.any_of(self._table.c.id, numbers))
        locked = locked.order_by(self._table.c.id).with_for_update()
        await self._outbox.clock.sync(self._outbox.database)
        async with self._outbox.unit_of_work() as unit:
            letters = [buried_from(self.role, row) for row in await unit.connection.execute(locked)]
            refused: Mapping[int, str] = {}
            if why_not is not None and order.act == "redriven" and not order.force:
                refused = await why_not(letters)
            outcomes = [Outcome(letter, order.act, _why_not(order, letter, refused)) for letter in letters]
            if not order.dry_run:
                await self._write(unit, order, [one.letter for one in outcomes if one.why_not is None])
        return outcomes

    async def _write(self, unit: UnitOfWork, order: Order, letters: Sequence[Buried]) -> None:
        if not letters:
            return
        if order.act == "redriven":
            await unit.connection.execute(insert(self._outbox.tables.outbox), [_row(unit, one) for one in letters])
        log = [_log_row(unit, order, letter) for letter in letters]
        await unit.connection.execute(insert(self._outbox.tables.dead_letter_log), log)
        done = self._outbox.database.any_of(self._table.c.id, [letter.number for letter in letters])
        await unit.connection.execute(delete(self._table).where(done))

    def _conditions(self, wanted: Wanted) -> Iterable[ColumnElement[bool]]:
        columns = self._table.c
        if wanted.numbers:
            yield self._outbox.database.any_of(columns.id, wanted.numbers)
        if wanted.because is not None:
            yield columns.reason.regexp_match(pattern_of(wanted.because))
        if wanted.saga is not None:
            commands = columns.message_id.startswith(f"{wanted.saga}/", autoescape=True)
            yield or_(commands, columns.body.contains(wanted.saga, autoescape=True))
        if wanted.before is not None:
            yield columns.at < wanted.before
        if wanted.since is not None:
            yield columns.at >= wanted.since


def buried_from(role: str, row: Row[Any]) -> Buried:
    """A row of a table of dead letters."""
    return Buried(role, row.id, row.at, row.subject, row.message_id, row.reason, row.deliveries, row.body)


def _why_not(order: Order, letter: Buried, refused: Mapping[int, str]) -> str | None:
    if order.act == "dropped":
        return None
    return letter.impossible or (None if order.force else letter.useless or refused.get(letter.number))


def _row(unit: UnitOfWork, letter: Buried) -> dict[str, Any]:
    """A row of the outbox that is overdue at once: whichever replica's relay sweeps next publishes it."""
    message_id = f"redriven:{uuid4()}"
    return {"message_id": message_id, "subject": letter.subject, "body": letter.body, "due_at": unit.now}


def _log_row(unit: UnitOfWork, order: Order, letter: Buried) -> dict[str, Any]:
    return {
        "at": unit.now,
        "action": order.act,
        "letter_id": letter.number,
        "subject": letter.subject,
        "message_id": letter.message_id,
        "reason": letter.reason,
        "by": order.by,
        "why": order.why,
    }
