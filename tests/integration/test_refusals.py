"""What NATS does not take from us: a message that is too large for it, and one that this user may not publish."""

import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from orchestrator.definition import Policy
from orchestrator.embedded.nats_server import EmbeddedNats
from outbox import broker as broker_module
from outbox.broker import Broker
from outbox.courier import SILENT_PUBLICATIONS, NatsCourier
from outbox.envelope import Packet
from outbox.errors import BrokerOutOfReach
from outbox.outages import Outages, report_to
from outbox.refusals import LATELY, Forbidden, Refusals
from outbox.topology import COMMANDS, EVENTS, command_inlet
from tests.support.messaging import envelope
from tests.support.servers import DatabaseUrls
from tests.support.waiting import eventually
from tests.support.world import SQLITE_IS_ENOUGH, World, an_order, definitions_with

INLET = command_inlet("inventory", timedelta(seconds=5))
MOST_BYTES = 256 * 1024
RULES = f"""
max_payload: {MOST_BYTES}
no_auth_user: admin
authorization {{
  users: [
    {{ user: admin, password: "a" }}
    {{ user: payment, password: "p", permissions: {{ publish: {{ deny: ["saga.event.payment.>"] }} }} }}
  ]
}}
"""
ASKED_AGAIN_SOON = Policy(timeout=timedelta(seconds=0.5), attempts=None, factor=1.0, cap=timedelta(seconds=0.5))


class StrictNats(EmbeddedNats):
    """One that takes less than ours do, and has a user who may not do everything."""

    def _config(self) -> str:
        return super()._config() + RULES

    def allow_everything(self) -> None:
        """A person has changed the permissions."""
        self._config_file.write_text(self._config_file.read_text().replace("deny:", "allow:"), encoding="utf-8")
        os.kill(self.pid, signal.SIGHUP)


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[StrictNats]:
    with StrictNats(tmp_path / "strict") as server:
        yield server


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_module, "PUBLISH_TIMEOUT", 0.1)


@pytest.mark.usefixtures("soon")
async def test_a_subject_that_is_forbidden_to_one_service_costs_nobody_a_stream(strict: StrictNats) -> None:
    """NATS tells of it aside, and leaves the publication without an answer: it looked like a stream that is broken."""
    everybody = NatsCourier(strict.url, "order")
    await everybody.connect()
    await everybody.ensure([])
    await everybody.publish([Packet(f"e{number}", "saga.event.order.created", "{}") for number in range(10)])
    payment = NatsCourier(strict.url.replace("//", "//payment:p@"), "payment")
    await payment.connect()
    captured, refunded = (Packet(name, f"saga.event.payment.{name}", "{}") for name in ("captured", "refunded"))
    with capture_logs() as logs:
        for _ in range(2 * SILENT_PUBLICATIONS[EVENTS]):
            assert await payment.publish([captured, refunded]) == []
            await payment.ensure([])
    assert [(line["message_id"], line["reason"]) for line in logs if line["log_level"] == "error"] == [
        (name, f"the user of this connection may not publish on 'saga.event.payment.{name}'")
        for name in ("captured", "refunded")
    ]
    assert (await everybody.jetstream.stream_info(EVENTS)).state.messages == 10
    which = "saga.event.payment.captured, saga.event.payment.refunded"
    assert payment.problems == [f"our NATS user may not publish on {which}: give it the permission"]
    strict.allow_everything()

    async def is_allowed() -> bool:
        try:
            return await payment.publish([captured, refunded]) == [captured, refunded]
        except BrokerOutOfReach:  # the server sends away those whose permissions have changed
            return False

    with capture_logs() as logs:
        await eventually(is_allowed, "what is allowed leaves")
    again = [line["subject"] for line in logs if line["event"] == "NATS takes messages on this subject again"]
    assert (", ".join(again), payment.problems) == (which, [])
    await payment.close()
    await everybody.close()


def test_a_subject_that_is_refused_no_more_is_no_problem_for_ever() -> None:
    """Another replica has sent what waited, and nothing more comes on this subject."""
    now = 0.0
    refusals, rare = Refusals(lambda: now), Packet("m", "saga.event.payment.refunded", "{}")
    refusals.note([rare], [Forbidden("no")])
    now += LATELY
    assert len(refusals.problems) == 1
    now += 1
    assert refusals.problems == []
    with capture_logs() as logs:
        refusals.note([rare, rare], [Forbidden("no"), Forbidden("no")])
    assert (len(refusals.problems), logs) == (1, [])  # it is no news


@pytest.mark.usefixtures("soon")
async def test_a_stream_that_takes_from_others_is_not_broken(nats: EmbeddedNats) -> None:
    """Whatever it is that keeps the answers from us."""
    courier, other = NatsCourier(nats.url, "order"), Broker(nats.url, name="other")
    await courier.connect()
    await courier.ensure([INLET])
    await other.connect()
    made = (await courier.jetstream.stream_info(COMMANDS)).created
    for number in range(2 * SILENT_PUBLICATIONS[COMMANDS]):
        courier.silent[COMMANDS] += 1
        await other.publish([Packet(f"{number}", "saga.cmd.inventory.x", "[]")])
        await courier.ensure([INLET])
    assert (await courier.jetstream.stream_info(COMMANDS)).created == made
    await other.close()
    await courier.close()


async def test_a_message_that_is_too_large_is_told_of_once_and_the_next_one_is_taken(strict: StrictNats) -> None:
    courier = NatsCourier(strict.url, "order")
    await courier.connect()
    await courier.ensure([INLET])
    large = Packet("large", "saga.cmd.inventory.x", " " * (MOST_BYTES + 1))
    with capture_logs() as logs:
        assert await courier.publish([large]) == []
        assert await courier.publish([large]) == []
    [line] = logs
    assert (line["message_id"], line["bytes"]) == ("large", MOST_BYTES + 1)
    assert "maximum payload exceeded" in line["reason"]
    small = Packet("small", "saga.cmd.inventory.x", "[]")
    assert await courier.publish([large, small]) == [small]
    await courier.jetstream.delete_stream(COMMANDS)
    with pytest.raises(BrokerOutOfReach):  # of the other there is something to wait for
        await courier.publish([large, small])
    await courier.close()


@SQLITE_IS_ENOUGH
async def test_one_message_that_is_too_large_for_the_broker_holds_up_no_timer(
    strict: StrictNats, database_urls: DatabaseUrls
) -> None:
    """It was taken for an outage, in which nothing is asked again; and it never went away."""
    report_to(Outages())
    definitions = definitions_with(ASKED_AGAIN_SOON)
    async with World(database_urls, strict.url, roles=["orchestrator"], definitions=definitions) as world:
        await world.start("orchestrator")
        async with world.outbox("orchestrator").unit_of_work() as unit:
            unit.send("saga.cmd.order.open-order", envelope("large/open-order/do", text="x" * (MOST_BYTES + 1)))
        [saga_id] = await world.place(an_order())

        async def is_asked_again() -> bool:
            return (await world.saga(saga_id)).steps["open-order"].attempt > 5

        await eventually(is_asked_again, "timers fire")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nats://127.0.0.1:1", "connection refused"),
        ("nats://nowhere.invalid:4222", "no host has this name"),
        ("nats://payment:wrong@{server}", "user, password or token was refused"),
    ],
)
async def test_why_there_is_no_connection_is_said(strict: StrictNats, url: str, reason: str) -> None:
    broker = Broker(url.format(server=strict.url.removeprefix("nats://")), name="test")

    async def is_said() -> bool:
        with pytest.raises(BrokerOutOfReach) as error:
            await broker.connect(patience=1.0)
        return f"is out of reach ({reason}): check that it is running" in str(error.value)

    await eventually(is_said, "the reason")  # a server that hangs up at once may take its last words along
