"""The TCP connection under the client that publishes, with an end that comes.

asyncio closes a connection when all that was written has left. A peer that stands still, or is no more, takes nothing,
and the kernel gives up on it after a quarter of an hour; till then nats-py waits for the end, tells nobody, and goes to
no other server.
"""

import asyncio
from typing import Final
from urllib.parse import ParseResult

from nats.aio.transport import TcpTransport

LAST_WORDS: Final = 2.0
"""Seconds that what was written has to leave, once the connection is given up."""


class Line(TcpTransport):
    """As nats-py has it, except for its end."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Hang up first: nats-py forgets a server that was there and said nothing."""
        self.close()
        await super().connect(uri, buffer_size, connect_timeout)

    def close(self) -> None:
        """Hang up, at the latest in a moment."""
        super().close()  # type: ignore[no-untyped-call]
        if self._io_writer is not None:
            asyncio.get_running_loop().call_later(LAST_WORDS, self._io_writer.transport.abort)

    def __bool__(self) -> bool:
        """There is a transport, also before it is connected: nats-py need not make another."""
        return True
