"""The orchestrator by hand: a batch of replies, and the sagas that begin in their place, are one transaction.

It makes its own load: as some sagas end others begin, so that a given number is under way at any time.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

import asyncpg
import orjson
from nats.js import JetStreamContext

from benchmarks.roof.schema import ACCOUNTS, ADVANCE, CLEAN, READ_STATE
from benchmarks.roof.styles import Event, Order, Packet, Style, packed, rows_of
from benchmarks.roof.wire import PARTICIPANTS, REPLIES, REPLY_SUBJECT, Intake, Relay, command_subject


class Orchestrator:
    """Runs sagas of `steps` steps; step k is the work of participant k modulo 3."""

    def __init__(self, steps: int, connection: asyncpg.Connection, stream: JetStreamContext, style: Style) -> None:
        self._steps = steps
        self._connection = connection
        self._stream = stream
        self._style = style
        self._intake = Intake(style)
        self._relay = Relay(stream)
        self._began: dict[str, float] = {}

    async def start(self) -> None:
        """Be ready for replies."""
        await self._intake.start(self._stream, REPLIES, REPLY_SUBJECT, "roof_orchestrator")

    async def run(self, prefix: str, sagas: int, in_flight: int) -> list[float]:
        """Run that many sagas to their ends. Returns how long each took, in seconds."""
        durations: list[float] = []
        begun = 0
        while len(durations) < sagas:
            room = min(in_flight - len(self._began), sagas - begun)
            new = [(f"{prefix}{number:021}", -1, _order(number)) for number in range(begun, begun + room)]
            begun += room
            durations += await self._advance(new)
        return durations

    async def stop(self) -> None:
        """Leave an empty outbox behind."""
        await self._relay.finish()
        await self._connection.execute(CLEAN, self._relay.take_sent())

    async def _advance(self, new: Sequence[Event]) -> list[float]:
        """Write, commit, and only then publish and acknowledge. Step -1 is done when a saga begins."""
        self._began |= dict.fromkeys((saga_id for saga_id, _, _ in new), time.perf_counter())
        messages, replies = await self._intake.take(wait=not new)
        async with AsyncExitStack() as stack:
            if self._style.reads_state:
                await stack.enter_async_context(self._connection.transaction())
                replies = await self._with_orders(replies)
            packets = self._next_commands([*new, *replies])
            ended = await self._write(new, replies, packets)
        self._relay.publish(packets)
        for message in messages:
            await message.ack()
        now = time.perf_counter()
        return [now - self._began.pop(saga_id) for saga_id in ended]

    async def _with_orders(self, replies: Sequence[Event]) -> list[Event]:
        rows = await self._connection.fetch(READ_STATE, [saga_id for saga_id, _, _ in replies])
        states = {saga_id: orjson.loads(state) for saga_id, state in rows}
        return [(saga_id, step, states[saga_id]["order"]) for saga_id, step, _ in replies]

    def _next_commands(self, done: Iterable[Event]) -> list[Packet]:
        by_participant: dict[str, list[Event]] = defaultdict(list)
        for saga_id, step, order in done:
            if step + 1 < self._steps:
                by_participant[PARTICIPANTS[(step + 1) % len(PARTICIPANTS)]].append((saga_id, step + 1, order))
        return [
            packet
            for name, commands in by_participant.items()
            for packet in packed(self._style, command_subject(name), commands, "do")
        ]

    async def _write(self, new: Sequence[Event], replies: Sequence[Event], packets: Sequence[Packet]) -> list[str]:
        rows = await self._connection.fetch(
            ADVANCE,
            [saga_id for saga_id, _, _ in replies],
            [step for _, step, _ in replies],
            [_state(step, order) for _, step, order in replies],
            self._steps,
            [saga_id for saga_id, _, _ in new],
            [_state(step, order) for _, step, order in new],
            *rows_of(packets),
            self._relay.take_sent(),
        )
        return [row[0] for row in rows]


def _order(number: int) -> Order:
    line = {"sku": f"article-{number % 1000}", "quantity": 1, "unit_price": "1.00"}
    customer = number * 7919 % ACCOUNTS  # spread: neighbours are no neighbours in the table
    return {"order_id": f"order-{number}", "customer": customer, "lines": [line], "currency": "EUR"}


def _state(done: int, order: Order) -> str:
    return orjson.dumps({"status": "running", "awaits": done + 1, "attempt": 1, "order": order}).decode()
