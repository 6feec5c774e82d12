"""The relay: brings committed messages to the broker, at least once.

Two sources, one way out. What this process has just committed is handed over in memory and published at once;
what a crash or an outage left behind is found by the sweep, which claims rows *by state* (their `due_at` has
passed) and never by "id greater than the last seen": a sequence number is not commit order. A row leaves the
table only after the broker has stored its message, so dying between the two sends it again, and the receiver's
inbox makes that harmless.

An outage of the broker is not a failed attempt: nothing is counted, the relay backs off, says so once, and
drains when the broker is back. Each stream has a lane of its own: one that takes nothing holds up no other.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Delete, Select, Table, bindparam, case, delete, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from outbox.courier import Publisher
from outbox.database import among
from outbox.envelope import Packet
from outbox.errors import BrokerOutOfReach
from outbox.loops import forever
from outbox.topology import EVENTS, SUBJECTS, stream_of
from outbox.unit_of_work import Outbox

SWEEP_EVERY: Final = 0.5
"""Seconds between two looks at what is overdue."""

SWEEP_ROWS: Final = 100
"""At most: a row is a whole NATS message."""

IN_HAND: Final = 10_000
IN_HAND_BYTES: Final = 64 * 1024 * 1024
"""What may wait in memory for one stream: rows, and characters. Beyond that they wait in the table."""

PACKETS_AT_ONCE: Final = 64

CLEAN_EVERY: Final = 0.5
"""Seconds between two deletions: what the broker has stored may stay in the table for a while, and commits cost."""


@dataclass(slots=True)
class Lane:
    """What waits for one stream. One that takes nothing fills its own lane, and holds up no other."""

    packets: dict[str, Packet] = field(default_factory=dict)
    characters: int = 0
    work: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_full(self) -> bool:
        """Whether what comes has to wait in the table."""
        return len(self.packets) >= IN_HAND or self.characters >= IN_HAND_BYTES

    def put(self, packet: Packet) -> None:
        """Take it, if there is room."""
        if not self.is_full:
            self.packets[packet.message_id] = packet
            self.characters += len(packet.body)
            self.work.set()

    def take(self) -> list[Packet]:
        """Everything, in the order in which it came."""
        packets = list(self.packets.values())
        self.packets, self.characters = {}, 0
        self.work.clear()
        return packets


class Relay:
    """Publishes the outbox of one service."""

    def __init__(self, outbox: Outbox, broker: Publisher) -> None:
        self._outbox = outbox
        self._broker = broker
        self._lanes = {stream: Lane() for stream in SUBJECTS}
        self._leaving: set[str] = set()
        self._sent: set[str] = set()
        self._clean_up = asyncio.Event()
        self._say = _statements(outbox.database.dialect, outbox.tables.outbox)
        outbox.on_commit(self.hand_over)

    def hand_over(self, messages: Sequence[Packet]) -> None:
        """Take what has just been committed. Never blocks: what is too much stays in the table."""
        for message in messages:
            self._lanes[stream_of(message.subject)].put(message)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in hand."""
        return not (self._leaving or self._sent or any(lane.packets for lane in self._lanes.values()))

    async def run(self, *, sweeping: bool = True) -> None:
        """Publish, sweep and clean up until cancelled. Without `sweeping` somebody else calls `sweep`."""
        async with asyncio.TaskGroup() as tasks:
            for stream, lane in self._lanes.items():
                tasks.create_task(forever(lane_to(stream), partial(self._publish, lane)))
            if sweeping:
                tasks.create_task(forever("sweep the outbox", self._sweep))
            tasks.create_task(forever("clean the outbox", self._clean))

    async def drain(self, patience: float) -> None:
        """Publish what is in hand, for at most `patience` seconds. The rest stays in the table."""
        deadline = asyncio.get_running_loop().time() + patience
        while not self.is_idle and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)

    async def _publish(self, lane: Lane) -> float:
        await lane.work.wait()
        messages = lane.take()
        try:
            await self.publish(messages)
        except BrokerOutOfReach:  # to try again by ourselves, and so to know when the broker is back
            left = [message for message in messages if message.message_id not in self._sent]
            if left:  # of what had been sent before there is nothing to try: nobody would ever say that it is over
                self.hand_over(left)
                raise
        return 0.0

    async def flush(self) -> None:
        """Publish what is in hand, once, without `run`. Raises BrokerOutOfReach; the rows then stay in the table."""
        messages = [message for lane in self._lanes.values() for message in lane.take()]
        if messages:
            await self.publish(messages)
            await self.clean()

    async def publish(self, packets: Sequence[Packet]) -> None:
        """Publish, and note what the broker has stored. Raises BrokerOutOfReach when it took nothing."""
        leaving = {packet.message_id for packet in packets}
        self._leaving |= leaving
        try:
            for start in range(0, len(packets), PACKETS_AT_ONCE):
                stored = await self._broker.publish(packets[start : start + PACKETS_AT_ONCE])
                self._outbox.reach("published")
                self._sent.update(packet.message_id for packet in stored)
                self._clean_up.set()
        finally:
            self._leaving -= leaving

    async def clean(self) -> None:
        """Delete the rows whose messages the broker has stored."""
        sent = list(self._sent)
        try:
            async with self._outbox.database.transaction() as connection:
                await connection.execute(self._say.delete, {"stored": sent})
        except BaseException:
            self._clean_up.set()
            raise
        self._sent.difference_update(sent)

    async def _clean(self) -> float:
        await self._clean_up.wait()
        self._clean_up.clear()
        await self.clean()
        return CLEAN_EVERY

    async def _sweep(self) -> float:
        if not self._broker.is_connected:
            return SWEEP_EVERY
        return 0.0 if await self.sweep() == SWEEP_ROWS else SWEEP_EVERY

    async def sweep(self) -> int:
        """Claim overdue rows for a while, so that the sweeps of other replicas pass over them. Returns how many.

        They are rows of streams for which there is room; the others stay overdue.
        """
        now = self._outbox.clock.now()
        wanted = {"now": now, "with_room": [stream for stream, lane in self._lanes.items() if not lane.is_full]}
        if not await self._any_overdue(wanted):
            return 0  # a look that takes no lock, and needs no transaction
        async with self._outbox.database.transaction() as connection:
            claimed = await connection.execute(
                self._say.claim, wanted | {"until": now + self._outbox.grace, "most": SWEEP_ROWS}
            )
            rows = [Packet(*row) for row in claimed]
        in_hand = self._leaving.union(self._sent, *(lane.packets for lane in self._lanes.values()))
        self.hand_over([row for row in rows if row.message_id not in in_hand])
        return len(rows)

    async def _any_overdue(self, wanted: Mapping[str, Any]) -> bool:
        async with self._outbox.database.glancing() as connection:
            return (await connection.execute(self._say.any_overdue, wanted)).first() is not None


def _stream_of(subject: Column[str]) -> ColumnElement[str]:
    """`stream_of`, in SQL."""
    prefixes = {stream: pattern.removesuffix(">") for stream, pattern in SUBJECTS.items() if stream != EVENTS}
    known = [(subject.startswith(prefix, autoescape=True), stream) for stream, prefix in prefixes.items()]
    return case(*known, else_=EVENTS)


def lane_to(stream: str) -> str:
    """What the loop that publishes to a stream is called."""
    return f"publish the outbox to {stream}"


@dataclass(frozen=True, slots=True)
class _Statements:
    delete: Delete
    any_overdue: Select[str]
    claim: ReturningUpdate[Any]


@cache
def _statements(dialect: str, table: Table) -> _Statements:
    is_overdue = table.c.due_at <= bindparam("now"), among(dialect, _stream_of(table.c.subject), "with_room")
    overdue = select(table.c.message_id).where(*is_overdue).order_by(table.c.due_at)
    claimed = overdue.limit(bindparam("most")).with_for_update(skip_locked=True)
    claim = (
        update(table)
        .where(table.c.message_id.in_(claimed.scalar_subquery()))
        .values(due_at=bindparam("until", type_=table.c.due_at.type))
        .returning(table.c.message_id, table.c.subject, table.c.body)
    )
    return _Statements(
        delete=delete(table).where(among(dialect, table.c.message_id, "stored")),
        any_overdue=overdue.limit(1),
        claim=claim,
    )
