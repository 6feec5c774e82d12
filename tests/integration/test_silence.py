"""A server that says nothing any more, not even goodbye: a cut network, a machine without power."""

import asyncio
import itertools
import os
import signal
import socket
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from nats.aio.client import Client

from orchestrator.embedded.nats_server import EmbeddedNats
from outbox import broker as broker_module
from outbox import line as line_module
from outbox import pull as pull_module
from outbox.broker import Broker, abandon
from outbox.courier import NatsCourier
from outbox.database import UNANSWERED, Database
from outbox.envelope import Packet
from outbox.errors import BrokerOutOfReach
from outbox.intake import Intake
from outbox.outages import Outages, report_to
from outbox.pull import NatsPullSubscription
from outbox.topology import Topology, command_inlet
from tests.support.servers import DatabaseUrls
from tests.support.waiting import eventually

PATIENCE = ("TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_KEEPCNT", "TCP_KEEPINTVL")
INLET = command_inlet("inventory", timedelta(seconds=30))


@pytest.mark.parametrize("database_urls", ["postgresql"], indirect=True)
async def test_a_connection_to_postgresql_gives_up_a_peer_that_acknowledges_nothing(
    database_urls: DatabaseUrls,
) -> None:
    database = Database(database_urls("order"))
    async with database.transaction() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        line = driver._transport.get_extra_info("socket")
        options = {name: line.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in PATIENCE}
        assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    await database.close()
    assert options["TCP_USER_TIMEOUT"] == 1000 * UNANSWERED
    assert options["TCP_KEEPIDLE"] + options["TCP_KEEPCNT"] * options["TCP_KEEPINTVL"] <= UNANSWERED


async def test_a_broker_that_does_not_answer_pings_is_lost_and_found_again(
    nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (broker_module, pull_module):
        monkeypatch.setattr(module, "PING_EVERY", 0.1)
    broker = Broker(nats.url, name="test")
    await broker.connect()
    await Topology(INLET).ensure(broker.jetstream)
    subscription = NatsPullSubscription(nats.url, INLET, name="test-intake")
    intake = Intake(subscription)
    await intake.start()

    async def is_lost() -> bool:
        return not (broker.is_connected or subscription.is_up)

    async def is_found() -> bool:
        return broker.is_connected and subscription.is_up

    os.kill(nats.pid, signal.SIGSTOP)
    try:
        await eventually(is_lost, "both connections are given up")
    finally:
        os.kill(nats.pid, signal.SIGCONT)
    await eventually(is_found, "both are back")
    await broker.jetstream.publish("saga.cmd.inventory.echo", b"{}")
    [delivery] = await intake.take()
    assert delivery.subject == "saga.cmd.inventory.echo"
    await intake.stop()
    await broker.close()


async def test_a_server_that_stands_still_is_left_also_when_much_was_on_its_way_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-py waited until all of it had left, which was never, and neither told anybody nor went to another server."""
    monkeypatch.setattr(broker_module, "PING_EVERY", 0.2)
    monkeypatch.setattr(broker_module, "PUBLISH_TIMEOUT", 1.0)
    monkeypatch.setattr(line_module, "LAST_WORDS", 0.2)
    numbers, told = itertools.count(), Outages()
    report_to(told)
    with EmbeddedNats(tmp_path / "one") as one, EmbeddedNats(tmp_path / "two") as two:
        for server in (one, two):
            await _with_streams(server)
        broker = Broker(f"{one.url},{two.url}", name="test")
        await broker.connect()

        async def is_published() -> bool:
            await broker.connect()
            number = next(numbers)
            large = [Packet(f"{number}/{part}", "saga.cmd.inventory.x", "x" * 400_000) for part in range(32)]
            with suppress(BrokerOutOfReach):
                return len(await broker.publish(large)) == len(large)
            return False

        assert await is_published()
        [frozen] = [server for server in (one, two) if server.url == _server_of(broker)]
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            await eventually(is_published, "the other server takes them")
            assert _server_of(broker) != frozen.url
            assert told.current == {}
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
        await broker.close()


async def test_a_connection_is_abandoned_also_while_nats_py_waits_for_its_end() -> None:
    """nats-py ends a task that somebody else waits for as well, and that came out as if we were to be ended."""
    await abandon(cast(Client, _WaitsForWhatItHasEnded()))
    abandoning = asyncio.create_task(abandon(cast(Client, _Endless())))
    await asyncio.sleep(0)
    abandoning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await abandoning


class _WaitsForWhatItHasEnded:
    async def close(self) -> None:
        ended = asyncio.get_running_loop().create_future()
        ended.cancel()
        await ended


class _Endless:
    async def close(self) -> None:
        await asyncio.sleep(60)


async def _with_streams(server: EmbeddedNats) -> None:
    courier = NatsCourier(server.url, "order")
    await courier.connect()
    await courier.ensure([INLET])
    await courier.close()


def _server_of(broker: Broker) -> str:
    assert broker._client is not None
    assert broker._client.connected_url is not None
    return f"nats://{broker._client.connected_url.netloc}"
