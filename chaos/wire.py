"""A TCP proxy of our own: every process reaches each server over a wire of its own, which can be hit.

What the faults mean on TCP, which mends by itself much of what a network does to it:

- *cut*: bytes stop, in both directions or in one; nobody is told. New connections are taken and hear nothing. When the
  wire is mended the bytes go on, as after a short cut of a network. The kernels at both ends do acknowledge what the
  proxy holds, so a timeout of TCP itself does not fire: only the programs' own do.
- *delay*: every piece arrives so much later, in order.
- *loss*: TCP sends a lost segment again, and what comes after it waits: so some pieces, and all behind them, come one
  retransmission timeout later, two when they are unlucky again, ….
- *reset*: every connection ends at once, for both ends, with RST.
"""

import asyncio
import random
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

RETRANSMISSION: Final = 0.2
"""Seconds after which Linux first sends a lost segment again; doubled each time."""

LINGER_NOT: Final = struct.pack("ii", 1, 0)
HIGH_WATER: Final = 1 << 20


@dataclass(slots=True)
class Way:
    """One direction of a wire, and the weather on it."""

    is_cut: bool = False
    delay: float = 0.0
    loss: float = 0.0
    """The share of pieces that are lost and sent again."""

    suffered: int = 0
    """Pieces that came late, since the wire was made."""

    def lateness(self, luck: random.Random) -> float:
        """How much later the next piece comes."""
        late = self.delay * luck.uniform(0.5, 1.5)
        timeout = RETRANSMISSION
        while self.loss and luck.random() < self.loss and timeout < 4.0:
            late += timeout
            timeout *= 2
        self.suffered += late > 0
        return late


class Side(asyncio.Protocol):
    """One end of one connection through a wire; what it reads goes out at its peer."""

    def __init__(self, wire: "Wire", way: Way, on_connected: Callable[["Side"], None] = lambda _: None) -> None:
        self._wire = wire
        self._way = way
        self._on_connected = on_connected
        self._later: deque[tuple[float, Callable[[], None]]] = deque()
        self._held: list[bytes] = []
        self._choked = False
        self._has_ended = False
        self.peer: Side | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody is there."""
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self.transport = transport
        self._wire.sides.add(self)
        self.obey()
        self._on_connected(self)

    def obey(self) -> None:
        """Read or do not, as the weather is."""
        if self.transport is None or self.transport.is_closing():
            return
        if self._way.is_cut or self._choked:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def join(self, peer: "Side") -> None:
        """From now on what comes goes there, first of all what has come already."""
        self.peer = peer
        held, self._held = self._held, []
        for data in held:
            self.data_received(data)
        if self._has_ended:
            self._soon(peer.finish, 0.0)
        if self.transport is None or self.transport.is_closing():
            self._soon(peer.close, 0.0)

    def data_received(self, data: bytes) -> None:
        """Pass it on, now or later, but never out of order."""
        if self.peer is None:
            self._held.append(data)
            return
        self._soon(partial(self.peer.write, data), self._way.lateness(self._wire.luck))

    def write(self, data: bytes) -> None:
        """Out at this end."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def pause_writing(self) -> None:
        """This end takes no more: the other is not read."""
        self._choke(True)

    def resume_writing(self) -> None:
        """It does again."""
        self._choke(False)

    def eof_received(self) -> bool:
        """The other end learns of it when all that was said before has come, and may still answer."""
        self._has_ended = True
        if self.peer is not None:
            self._soon(self.peer.finish, 0.0)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """So is the peer's, in its turn."""
        self._wire.sides.discard(self)
        if self.peer is not None:
            self._soon(self.peer.close, 0.0)

    def finish(self) -> None:
        """Nothing more will come out here; when nothing more comes in either, it is over."""
        if self._has_ended:
            self.close()
        elif self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()

    def close(self) -> None:
        """After what is still to be written."""
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        """RST: no farewell, and what was under way is lost."""
        if self.transport is not None and not self.transport.is_closing():
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            self.transport.abort()

    def _choke(self, choked: bool) -> None:
        if self.peer is not None:
            self.peer._choked = choked
            self.peer.obey()

    def _soon(self, act: Callable[[], None], late: float) -> None:
        """Do it so much later, and never before what came before it."""
        if not late and not self._later:
            act()
            return
        loop = asyncio.get_running_loop()
        self._later.append((loop.time() + late, act))
        if len(self._later) == 1:
            loop.call_later(late, self._catch_up)

    def _catch_up(self) -> None:
        loop = asyncio.get_running_loop()
        while self._later:
            when, act = self._later[0]
            if when > loop.time():
                loop.call_at(when, self._catch_up)
                return
            act()
            self._later.popleft()


@dataclass(slots=True)
class Wire:
    """Between one process and one server: `order-1>nats-1`."""

    name: str
    target: int
    """The server's port on this machine."""

    luck: random.Random
    up: Way = field(default_factory=Way)
    down: Way = field(default_factory=Way)
    sides: set[Side] = field(default_factory=set)
    connections: int = 0
    """That were ever made."""

    port: int = 0
    _server: asyncio.Server | None = None
    _connecting: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self) -> None:
        """Listen, on a free port of this machine."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Side(self, self.up, self._arrived), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Let everybody go."""
        if self._server is not None:
            self._server.close()
        for task in self._connecting:
            task.cancel()
        self.reset()

    def cut(self, *ways: Way) -> None:
        """Nothing passes these ways until `mend`."""
        for way in ways:
            way.is_cut = True
        self._obey()

    def mend(self) -> None:
        """Fair weather; what was held goes on."""
        for way in (self.up, self.down):
            way.is_cut, way.delay, way.loss = False, 0.0, 0.0
        self._obey()

    def reset(self) -> int:
        """End every connection. Returns how many there were."""
        sides = list(self.sides)
        for side in sides:
            side.reset()
        return (len(sides) + 1) // 2

    @property
    def suffered(self) -> int:
        """Pieces that came late so far."""
        return self.up.suffered + self.down.suffered

    def _obey(self) -> None:
        for side in list(self.sides):
            side.obey()

    def _arrived(self, side: Side) -> None:
        self.connections += 1
        task = asyncio.create_task(self._connect(side))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, near: Side) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, far = await loop.create_connection(lambda: Side(self, self.down), "127.0.0.1", self.target)
        except OSError:
            near.reset()  # nobody listens there: the nearest that a proxy comes to a refused connection
            return
        far.join(near)
        near.join(far)
