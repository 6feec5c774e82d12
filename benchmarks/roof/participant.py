"""A participant by hand: a batch of commands is one statement."""

import asyncpg
from nats.js import JetStreamContext

from benchmarks.roof.schema import CARRY_OUT, CLEAN
from benchmarks.roof.styles import Style, packed, rows_of
from benchmarks.roof.wire import COMMANDS, REPLY_SUBJECT, Intake, Relay, command_subject


class Participant:
    """Carries out commands until it is cancelled."""

    def __init__(self, name: str, connection: asyncpg.Connection, stream: JetStreamContext, style: Style) -> None:
        self._name = name
        self._connection = connection
        self._stream = stream
        self._style = style
        self._intake = Intake(style)
        self._relay = Relay(stream)

    async def start(self) -> None:
        """Be ready for commands."""
        await self._intake.start(self._stream, COMMANDS, command_subject(self._name), f"roof_{self._name}")

    async def run(self) -> None:
        """Batch after batch."""
        while True:
            await self._carry_out()

    async def stop(self) -> None:
        """Leave an empty outbox behind."""
        await self._relay.finish()
        await self._connection.execute(CLEAN, self._relay.take_sent())

    async def _carry_out(self) -> None:
        messages, commands = await self._intake.take()
        replies = packed(self._style, REPLY_SUBJECT, commands, "reply")
        await self._connection.execute(
            CARRY_OUT,
            [f"{saga_id}/{step}" for saga_id, step, _ in commands],
            [saga_id for saga_id, _, _ in commands],
            [step for _, step, _ in commands],
            [order["customer"] for _, _, order in commands],
            *rows_of(replies),
            self._relay.take_sent(),
        )
        self._relay.publish(replies)
        for message in messages:
            await message.ack()
