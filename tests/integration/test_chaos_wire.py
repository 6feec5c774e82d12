"""The TCP proxy: what passes, what does not, and what a program at its end notices of it."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from chaos.errors import Missed
from chaos.faults import STRIKES
from chaos.faults.world import World
from chaos.plan import Planned
from chaos.record import Fault
from chaos.site import Site
from chaos.wire import Way, Wire
from tests.support.waiting import eventually

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that says everything once more."""

    def __init__(self) -> None:
        self.heard = b""
        self.conversations = 0

    async def attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.conversations += 1
        try:
            while data := await reader.read(65536):
                self.heard += data
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def wire(echo: Echo) -> AsyncIterator[Wire]:
    server = await asyncio.start_server(echo.attend, "127.0.0.1", 0)
    wire = Wire("a>b", server.sockets[0].getsockname()[1], random.Random(1))
    await wire.open()
    yield wire
    await wire.close()
    server.close()


@asynccontextmanager
async def connected(wire: Wire) -> AsyncIterator[Ends]:
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def say(ends: Ends, words: bytes) -> None:
    ends[1].write(words)
    await ends[1].drain()


async def hear(ends: Ends, count: int) -> bytes:
    return await asyncio.wait_for(ends[0].readexactly(count), 10)


async def hears_nothing(ends: Ends) -> bool:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ends[0].readexactly(1), 0.3)
    return True


async def test_in_fair_weather_everything_passes_in_order(wire: Wire) -> None:
    words = random.Random(2).randbytes(3_000_000)
    async with connected(wire) as ends:
        saying = asyncio.create_task(say(ends, words))
        assert await hear(ends, len(words)) == words
        await saying
    assert (wire.connections, wire.suffered) == (1, 0)


async def test_a_cut_holds_everything_and_mending_lets_it_go_on(wire: Wire, echo: Echo) -> None:
    async with connected(wire) as ends:
        await say(ends, b"one")
        assert await hear(ends, 3) == b"one"
        wire.cut(wire.up, wire.down)
        await say(ends, b"two")
        assert await hears_nothing(ends)
        assert echo.heard == b"one"
        wire.mend()
        assert await hear(ends, 3) == b"two"


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_cut_of_one_way_lets_the_other_pass(wire: Wire, echo: Echo, way: str) -> None:
    async def has_heard() -> bool:
        return echo.heard == b"one"

    async with connected(wire) as ends:
        await eventually(lambda: _joined(wire), "the connection is made")
        wire.cut(getattr(wire, way))
        await say(ends, b"one")
        if way == "down":
            await eventually(has_heard, "it has arrived")
        assert await hears_nothing(ends)
        assert echo.heard == (b"one" if way == "down" else b"")
        wire.mend()
        assert await hear(ends, 3) == b"one"


async def _joined(wire: Wire) -> bool:
    return len(wire.sides) == 2


async def test_a_new_connection_during_a_cut_hears_nothing_until_it_is_mended(wire: Wire) -> None:
    wire.cut(wire.up, wire.down)
    async with connected(wire) as ends:
        await say(ends, b"hello")
        assert await hears_nothing(ends)
        wire.mend()
        assert await hear(ends, 5) == b"hello"


async def test_what_is_late_or_lost_comes_all_the_same_and_in_order(wire: Wire) -> None:
    wire.up.delay, wire.down.loss = 0.02, 0.3
    async with connected(wire) as ends:
        for number in range(50):
            await say(ends, b"%03d" % number)
            await asyncio.sleep(0.005)
        assert await hear(ends, 150) == b"".join(b"%03d" % number for number in range(50))
    assert wire.suffered > 0


async def test_a_reset_ends_every_connection_at_both_ends(wire: Wire, echo: Echo) -> None:
    async with connected(wire) as first, connected(wire) as second:
        for ends in (first, second):
            await say(ends, b"x")
            await hear(ends, 1)
        assert wire.reset() == 2
        for reader, _ in (first, second):
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.readexactly(1), 5)
    assert echo.conversations == 2


async def test_who_hangs_up_is_seen_to_hang_up(wire: Wire) -> None:
    async with connected(wire) as ends:
        await say(ends, b"bye")
        ends[1].write_eof()
        assert await hear(ends, 3) == b"bye"
        assert await asyncio.wait_for(ends[0].read(), 5) == b""


async def test_nobody_at_the_other_end_is_a_reset() -> None:
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    wire = Wire("a>b", port, random.Random(1))
    await wire.open()
    try:
        async with connected(wire) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.readexactly(1), 5)
    finally:
        await wire.close()


def test_lateness_is_nothing_in_fair_weather_and_doubles_with_bad_luck() -> None:
    luck = random.Random(1)
    assert Way().lateness(luck) == 0.0
    unlucky = Way(loss=1.0)
    assert unlucky.lateness(luck) == pytest.approx(0.2 + 0.4 + 0.8 + 1.6 + 3.2)
    assert unlucky.suffered == 1


# --- the faults -------------------------------------------------------------------------------------------------------

FAIR = (False, 0.0, 0.0)


def weather(wire: Wire) -> list[tuple[bool, float, float]]:
    return [(way.is_cut, way.delay, way.loss) for way in (wire.up, wire.down)]


async def strike(wire: Wire, kind: str, lasts: float = 0.2) -> list[Fault]:
    nobody: Any = None
    world = World(Site(Path(), nobody, {}, nobody, {wire.name: wire}, {}), nobody, nobody, 0.0)
    return await STRIKES[kind](world, Planned(0.0, kind, wire.name, lasts, "1/0"))


@pytest.mark.parametrize(
    ("kind", "bad", "detail"),
    [
        ("cut", 2, "1 connections"),
        ("cut-one-way", 1, "the server, 1 connections"),
        ("delay", 2, " ms each way"),
        ("loss", 2, "% lost"),
    ],
)
async def test_a_wire_is_bad_for_as_long_as_was_planned_and_mended_then(
    wire: Wire, kind: str, bad: int, detail: str
) -> None:
    async with connected(wire) as ends:
        await eventually(lambda: _joined(wire), "the connection is made")
        striking = asyncio.create_task(strike(wire, kind))
        while weather(wire) == [FAIR, FAIR]:
            await asyncio.sleep(0)
        assert len([way for way in weather(wire) if way != FAIR]) == bad
        for _ in range(30):
            await say(ends, b"x")
            await asyncio.sleep(0.001)
        [fault] = await striking
    assert weather(wire) == [FAIR, FAIR]
    assert fault.detail.endswith(detail)
    assert fault.until - fault.at >= 0.2


@pytest.mark.parametrize("kind", ["cut", "cut-one-way", "delay", "loss", "reset"])
async def test_a_wire_over_which_nobody_is_connected_is_passed_over(wire: Wire, kind: str) -> None:
    with pytest.raises(Missed, match="nobody is connected over a>b"):
        await strike(wire, kind)


@pytest.mark.parametrize("kind", ["delay", "loss"])
async def test_bad_weather_that_nobody_noticed_does_not_count_and_is_over(wire: Wire, kind: str) -> None:
    async with connected(wire):
        await eventually(lambda: _joined(wire), "the connection is made")
        with pytest.raises(Missed, match="nothing came over a>b meanwhile"):
            await strike(wire, kind, 0.0)
    assert weather(wire) == [FAIR, FAIR]


async def test_a_fault_that_is_called_off_leaves_the_wire_mended(wire: Wire) -> None:
    async with connected(wire):
        await eventually(lambda: _joined(wire), "the connection is made")
        striking = asyncio.create_task(strike(wire, "cut", 60.0))
        while weather(wire) == [FAIR, FAIR]:
            await asyncio.sleep(0)
        striking.cancel()
        await asyncio.wait([striking])
    assert weather(wire) == [FAIR, FAIR]
