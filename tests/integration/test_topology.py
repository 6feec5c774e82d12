"""Streams and consumers: made, kept as they should be, and put back when somebody takes them away."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from structlog.testing import capture_logs

from orchestrator.embedded.nats_server import EmbeddedNats
from outbox import service as service_module
from outbox.broker import Broker
from outbox.courier import NatsCourier
from outbox.envelope import Packet
from outbox.errors import BrokerOutOfReach
from outbox.loops import forever
from outbox.pump import Received
from outbox.service import Service
from outbox.topology import COMMANDS, EVENTS, SUBJECTS, Topology, command_inlet, is_fetching
from outbox.topology import REPLIES as REPLY_STREAM
from outbox.unit_of_work import UnitOfWork
from tests.support.messaging import (
    OpenDatabase,
    count,
    courier,
    envelope,
    messaging,
    outbox_on,
    send,
    serving,
    stored_ids,
)
from tests.support.waiting import eventually

INLET = command_inlet("inventory", timedelta(seconds=30))
TOPOLOGY = Topology(INLET)


@pytest.fixture
async def stream(nats: EmbeddedNats) -> AsyncIterator[JetStreamContext]:
    """A connection to an empty server."""
    broker = Broker(nats.url, name="test")
    await broker.connect()
    yield broker.jetstream
    await broker.close()


async def test_what_is_missing_is_created_once(stream: JetStreamContext) -> None:
    assert await TOPOLOGY.ensure(stream) == [
        "created stream SAGA_COMMANDS",
        "created stream SAGA_REPLIES",
        "created stream SAGA_EVENTS",
        "created consumer inventory of SAGA_COMMANDS",
    ]
    assert await TOPOLOGY.ensure(stream) == []
    assert {str(info.config.name): info.config.subjects for info in await stream.streams_info()} == {
        name: [subject] for name, subject in SUBJECTS.items()
    }


async def test_two_that_ensure_at_once_agree(stream: JetStreamContext) -> None:
    await asyncio.gather(*(TOPOLOGY.ensure(stream) for _ in range(10)))
    assert await TOPOLOGY.ensure(stream) == []


@pytest.mark.parametrize(
    ("field", "value"), [("subjects", ["saga.cmd.order.>"]), ("max_age", 60.0), ("duplicate_window", 1.0)]
)
async def test_a_stream_that_drifted_is_corrected_and_keeps_its_messages(
    stream: JetStreamContext, field: str, value: Any
) -> None:
    await TOPOLOGY.ensure(stream)
    wanted = (await stream.stream_info(COMMANDS)).config
    await send(stream, "saga.cmd.order.note", envelope("kept"))
    windows: dict[str, Any] = {"duplicate_window": 1.0} if field == "max_age" else {}
    await stream.update_stream(replace(wanted, **{**windows, field: value}))

    [done] = await TOPOLOGY.ensure(stream)
    assert field in done
    assert done.endswith("of stream SAGA_COMMANDS")
    assert getattr((await stream.stream_info(COMMANDS)).config, field) == getattr(wanted, field)
    assert await TOPOLOGY.ensure(stream) == []
    assert await stored_ids(stream, COMMANDS) == ["kept:1"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("ack_wait", 1.0), ("max_deliver", 3), ("max_ack_pending", 4096), ("filter_subject", "saga.cmd.inventory.one")],
)
async def test_a_consumer_that_drifted_is_corrected(stream: JetStreamContext, field: str, value: Any) -> None:
    await TOPOLOGY.ensure(stream)
    await stream.add_consumer(COMMANDS, replace(INLET.config(), **{field: value}))
    assert await TOPOLOGY.ensure(stream) == [f"corrected {field} of consumer inventory"]
    found = (await stream.consumer_info(COMMANDS, "inventory")).config
    assert getattr(found, field) == getattr(INLET.config(), field)
    assert await TOPOLOGY.ensure(stream) == []


async def test_a_server_that_does_not_answer_is_said_to_be_out_of_reach(
    stream: JetStreamContext, nats: EmbeddedNats
) -> None:
    await asyncio.to_thread(nats.stop)
    with pytest.raises(BrokerOutOfReach, match="JetStream does not answer"):
        await Topology(INLET).ensure(stream)


# --- a running service -------------------------------------------------------------------------------------------


class Echo:
    """Answers every event."""

    async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        for received in batch:
            unit.send("saga.reply.inventory", envelope(f"{received.envelope.id}/reply"))


Vandal = Callable[[Broker, EmbeddedNats], Awaitable[object]]


async def delete_commands(broker: Broker, _nats: EmbeddedNats) -> None:
    await broker.jetstream.delete_stream(COMMANDS)


async def delete_replies(broker: Broker, _nats: EmbeddedNats) -> None:
    await broker.jetstream.delete_stream(REPLY_STREAM)


async def delete_consumer(broker: Broker, _nats: EmbeddedNats) -> None:
    await broker.jetstream.delete_consumer(COMMANDS, "inventory")


async def wipe(broker: Broker, nats: EmbeddedNats) -> None:
    await asyncio.to_thread(nats.kill)
    nats.wipe()
    await asyncio.to_thread(nats.start)

    async def is_back() -> bool:
        return broker.is_connected

    await eventually(is_back, "the connection is back")


@pytest.mark.parametrize("vandal", [delete_commands, delete_replies, delete_consumer, wipe])
async def test_a_running_service_puts_back_what_is_gone_and_messages_flow_again(
    open_database: OpenDatabase, nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch, vandal: Vandal
) -> None:
    monkeypatch.setattr(service_module, "WATCH_EVERY", 0.1)
    outbox = outbox_on(await open_database("inventory"), "inventory", grace=timedelta(seconds=0.2))
    service = Service("inventory", courier=NatsCourier(nats.url, "inventory"), inlets={INLET: Echo()}, outbox=outbox)
    async with courier(nats.url) as broker, serving(service):

        async def ask(number: int) -> None:
            await send(broker.jetstream, "saga.cmd.inventory.echo", envelope(str(number)))

            async def is_answered() -> bool:
                return f"{number}/reply:1" in await stored_ids(broker.jetstream, REPLY_STREAM)

            await eventually(is_answered, f"an answer to {number}")

        await ask(1)
        await vandal(broker, nats)

        async def is_whole() -> bool:
            try:
                for name in (COMMANDS, REPLY_STREAM, EVENTS):
                    await broker.jetstream.stream_info(name)
                return await is_fetching(broker.jetstream, INLET)
            except NotFoundError:
                return False

        await eventually(is_whole, "streams and consumer are back, and somebody fetches")
        for number in range(2, 5):
            await ask(number)

        async def has_drained() -> bool:
            return await count(outbox.database, messaging("inventory").outbox) == 0

        await eventually(has_drained, "no message waits")


async def test_a_loop_ends_when_it_is_cancelled_although_its_job_swallowed_that() -> None:
    at_work = asyncio.Event()

    async def swallow() -> float:
        at_work.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return 0.0

    loop = asyncio.create_task(forever("swallow", swallow))
    await at_work.wait()
    loop.cancel()
    await asyncio.wait({loop}, timeout=10)
    assert loop.cancelled()


async def test_a_service_waits_for_a_broker_that_is_away_and_leaves_when_it_is_away_again(
    open_database: OpenDatabase, nats: EmbeddedNats
) -> None:
    outbox = outbox_on(await open_database("inventory"), "inventory")
    service = Service("inventory", courier=NatsCourier(nats.url, "inventory"), inlets={INLET: Echo()}, outbox=outbox)
    await asyncio.to_thread(nats.stop)
    running = asyncio.create_task(service.run())
    with capture_logs() as logs:

        async def has_noticed() -> bool:
            return any(entry["event"].startswith("NATS is out of reach") for entry in logs)

        await eventually(has_noticed, "the service waits")
    await asyncio.to_thread(nats.start)
    await asyncio.wait_for(service.ready.wait(), 30)
    await asyncio.to_thread(nats.stop)
    service.stop()
    await asyncio.wait_for(running, 30)


# --- a stream whose files are gone -----------------------------------------------------------------------------------


async def test_a_stream_that_is_there_and_takes_nothing_is_made_anew(
    nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by chaos: a store that is deleted under its server takes messages until it needs another file."""
    monkeypatch.setattr("outbox.broker.PUBLISH_TIMEOUT", 0.3)
    courier = NatsCourier(nats.url, "order")
    await courier.connect()
    await courier.ensure([INLET])
    shutil.rmtree(nats.store)
    numbers = itertools.count()

    async def publish() -> bool:
        packet = Packet(f"large-{next(numbers)}", "saga.cmd.inventory.x", f"[{' ' * 800_000}]")
        with suppress(BrokerOutOfReach):
            return bool(await courier.publish([packet]))
        return False

    async def is_broken() -> bool:
        return not await publish()

    await eventually(is_broken, "the stream takes no more")
    with capture_logs() as logs:
        await eventually(lambda: _publish_and_ensure(publish, courier), "it takes messages again")
    assert [line["stream"] for line in logs if line["log_level"] == "error"] == [COMMANDS]
    assert (await courier.jetstream.stream_info(COMMANDS)).state.messages == 1
    assert (await courier.jetstream.stream_info(REPLY_STREAM)).state.messages == 0
    await courier.close()


async def _publish_and_ensure(publish: Callable[[], Awaitable[bool]], courier: NatsCourier) -> bool:
    await courier.ensure([INLET])
    return await publish()


async def test_a_consumer_that_is_ahead_of_its_stream_is_made_anew(nats: EmbeddedNats, tmp_path: Path) -> None:
    """Found by chaos: a stream was made anew, and its consumer began where that of the old stream had been.

    So it waited for a message after the ten-thousandth, and passed over the first two thousand: nobody had done
    anything wrong, nothing was missing, and no command came any more.
    """
    courier = NatsCourier(nats.url, "order")
    await courier.connect()
    await courier.ensure([INLET])
    await courier.publish([Packet(f"old-{number}", "saga.cmd.inventory.x", "[]") for number in range(10)])
    for message in await (await courier.jetstream.pull_subscribe_bind(INLET.durable, COMMANDS)).fetch(10):
        await message.ack_sync()
    await courier.close()
    nats.stop()  # which writes down where the consumer is
    left = nats.store / "$G" / "streams" / COMMANDS / "obs" / INLET.durable / "o.dat"
    kept = shutil.copyfile(left, tmp_path / "o.dat")
    nats.start()
    await courier.connect()
    await courier.jetstream.delete_stream(COMMANDS)
    await Topology().ensure(courier.jetstream)
    left.parent.mkdir(parents=True)
    shutil.copyfile(kept, left)
    await Topology(INLET).ensure(courier.jetstream)
    await courier.publish([Packet("new", "saga.cmd.inventory.x", "[]")])
    consumer = await courier.jetstream.consumer_info(COMMANDS, INLET.durable)
    assert (consumer.delivered and consumer.delivered.stream_seq, consumer.num_pending) == (10, 0)

    done = await courier.ensure([INLET])
    assert done == [f"made consumer {INLET.durable} of {COMMANDS} anew, which was ahead of its stream"]
    assert (await courier.jetstream.consumer_info(COMMANDS, INLET.durable)).num_pending == 1
    assert await courier.ensure([INLET]) == []
    await courier.close()


async def test_a_stream_that_is_gone_is_made_and_not_suspected(nats: EmbeddedNats) -> None:
    """Silence that was counted before somebody deleted it says nothing of the one that is made now."""
    courier = NatsCourier(nats.url, "order")
    await courier.connect()
    courier.silent[COMMANDS] = 40
    with capture_logs() as logs:
        assert f"created stream {COMMANDS}" in await courier.ensure([INLET])
    assert [line for line in logs if line["log_level"] == "error"] == []
    await courier.close()


async def test_a_stream_that_another_has_made_anew_is_left_alone(nats: EmbeddedNats) -> None:
    courier = NatsCourier(nats.url, "order")
    await courier.connect()
    await courier.ensure([INLET])
    courier.silent[COMMANDS] = 3
    await courier.ensure([INLET])
    await courier.jetstream.delete_stream(COMMANDS)
    await Topology(INLET).ensure(courier.jetstream)
    made = (await courier.jetstream.stream_info(COMMANDS)).created
    courier.silent[COMMANDS] = 4
    assert await courier.ensure([INLET]) == []
    assert (await courier.jetstream.stream_info(COMMANDS)).created == made
    assert courier.silent[COMMANDS] == 1
    await courier.close()


async def test_events_which_nobody_asks_for_again_are_given_more_time(nats: EmbeddedNats) -> None:
    courier = NatsCourier(nats.url, "order")
    await courier.connect()
    await courier.ensure([INLET])
    made = (await courier.jetstream.stream_info(EVENTS)).created
    courier.silent[EVENTS] = 1
    await courier.ensure([INLET])
    courier.silent[EVENTS] = 15
    assert await courier.ensure([INLET]) == []
    assert (await courier.jetstream.stream_info(EVENTS)).created == made
    courier.silent[EVENTS] = 16
    assert await courier.ensure([INLET]) == [f"created stream {EVENTS}"]
    await courier.close()


async def test_a_stream_that_is_seen_for_the_first_time_is_not_deleted(nats: EmbeddedNats) -> None:
    """Whoever was busy while another made it anew has counted the silence of the one before."""
    courier = NatsCourier(nats.url, "order")
    await courier.connect()
    await courier.ensure([INLET])
    made = (await courier.jetstream.stream_info(COMMANDS)).created
    courier.silent[COMMANDS] = 40
    assert await courier.ensure([INLET]) == []
    assert (await courier.jetstream.stream_info(COMMANDS)).created == made
    await courier.close()


async def test_silence_counts_on_a_connection_that_stands_and_ends_with_any_answer(nats: EmbeddedNats) -> None:
    courier = NatsCourier(nats.url, "order")
    await courier.connect()
    courier.silent[COMMANDS] = 2
    with pytest.raises(BrokerOutOfReach):  # there is no stream, and that is an answer
        await courier.publish([Packet("1", "saga.cmd.inventory.x", "[]")])
    assert courier.silent[COMMANDS] == 0
    courier.silent[COMMANDS] = 2
    nats.restart()
    await eventually(lambda: _is_forgotten(courier), "an outage is no silence")
    await courier.close()


async def _is_forgotten(courier: NatsCourier) -> bool:
    return courier.is_connected and not courier.silent[COMMANDS]
