"""A server that says nothing any more, not even goodbye: a cut network, a machine without power."""

import os
import signal
import socket
from datetime import timedelta

import pytest

from orchestrator.embedded.nats_server import EmbeddedNats
from outbox import broker as broker_module
from outbox import pull as pull_module
from outbox.broker import Broker
from outbox.database import UNANSWERED, Database
from outbox.intake import Intake
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
