"""Versions of one saga side by side, on both databases: each saga goes on as it began, new ones begin on the newest."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.definition import Saga, reversible
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.registry import Definitions
from orchestrator.steps import StartSaga, UndoSaga
from outbox.topology import command_inlet
from tests.support.messaging import asks, courier, send
from tests.support.sagas import Bill, Hold, authorise, release, reserve, void
from tests.support.servers import DatabaseUrls
from tests.support.waiting import eventually
from tests.support.world import ROLES, SQLITE_IS_ENOUGH, THREE_TIMES, Desk, OwnedClock, World, an_order, answer

first = Saga("hold-stock", Hold, [reversible(reserve, undo=release, policy=THREE_TIMES)], None)


class HeldAndBilled(Hold, Bill):
    """What the second version knows."""


second = Saga(
    "hold-stock",
    HeldAndBilled,
    [reversible(reserve, undo=release, policy=THREE_TIMES), reversible(authorise, undo=void, policy=THREE_TIMES)],
    None,
    version=2,
)


@pytest.fixture
def definitions() -> Definitions:
    """What a process has after the deployment."""
    return Definitions([first, second])


@pytest.fixture
def before(world: World) -> Desk:
    """A process as it was before the deployment."""
    return world.desk(definitions=Definitions([first]))


async def test_a_saga_goes_on_as_it_began_while_new_ones_begin_on_the_newest(
    world: World, before: Desk, desk: Desk
) -> None:
    old = await before.begin("hold-stock")
    new = await desk.begin("hold-stock")
    await desk.receive(answer(f"{old}/reserve/do"), answer(f"{new}/reserve/do"))

    assert [(saga.version, saga.fingerprint) for saga in [await world.saga(old), await world.saga(new)]] == [
        (1, first.fingerprint),
        (2, second.fingerprint),
    ]
    assert (await world.saga(old)).status == "completed"
    assert await world.log(new) == ["started", "asked reserve", "done reserve", "asked authorise"]


async def test_timers_of_both_versions_are_fired_together(
    world: World, before: Desk, desk: Desk, clock: OwnedClock
) -> None:
    saga_ids = [await before.begin("hold-stock"), await desk.begin("hold-stock")]
    clock.advance(THREE_TIMES.timeout)
    assert await desk.engine.fire_timers() == 2
    assert [(await world.saga(saga_id)).steps["reserve"].attempt for saga_id in saga_ids] == [2, 2]


@SQLITE_IS_ENOUGH
async def test_a_process_of_before_leaves_the_new_ones_alone(
    world: World, before: Desk, desk: Desk, clock: OwnedClock
) -> None:
    new = await desk.begin("hold-stock")
    await before.begin("hold-stock")
    state = await world.saga(new)
    clock.advance(THREE_TIMES.timeout)

    assert await before.engine.fire_timers() == 1
    await before.receive(answer(f"{new}/reserve/do"))
    assert await world.saga(new) == state


async def test_a_child_that_began_before_the_deployment_is_undone_as_what_it_is(
    world: World, before: Desk, desk: Desk
) -> None:
    start = asks(StartSaga(saga="hold-stock", input={}), "shop-1/hold/do")
    await before.carry_out(start)
    await desk.carry_out(start)  # delivered again, to a process of after
    [child] = await world.sagas()
    await desk.receive(answer(f"{child.id}/reserve/do"))
    await desk.carry_out(asks(UndoSaga(saga="hold-stock", input={}), "shop-1/hold/undo", undoes=start.id))
    await desk.receive(answer(f"{child.id}/reserve/undo"))

    [child] = await world.sagas()
    assert (child.version, child.status) == (1, "compensated")


async def test_sagas_that_wait_begin_as_what_they_were_accepted_as(world: World, clock: OwnedClock) -> None:
    """And they share the places, whatever their version."""
    old_limited, new_limited = replace(first, max_in_flight=1), replace(second, max_in_flight=1)
    earlier = world.desk(definitions=Definitions([old_limited]))
    later = world.desk(definitions=Definitions([old_limited, new_limited]))
    old = await earlier.begin("hold-stock")
    clock.advance(THREE_TIMES.timeout)
    new = await later.begin("hold-stock")
    assert [await later.admit(), await later.admit()] == [1, 0]
    assert [(await world.saga(one)).status for one in (old, new)] == ["running", "waiting"]

    await later.receive(answer(f"{old}/reserve/do"))
    assert [await later.admit(), (await world.saga(old)).status] == [1, "completed"]
    assert (await world.saga(new)).version == 2


async def test_a_saga_that_waits_as_a_version_that_is_gone_holds_back_nobody(world: World) -> None:
    old_limited, new_limited = replace(first, max_in_flight=1), replace(second, max_in_flight=1)
    old = await world.desk(definitions=Definitions([old_limited])).begin("hold-stock")
    after = world.desk(definitions=Definitions([new_limited]))
    new = await after.begin("hold-stock")

    assert await after.admit() == 1
    assert [(await world.saga(one)).status for one in (old, new)] == ["waiting", "running"]


# --- many at once ------------------------------------------------------------------------------------------------

MANY = 4_300
"""Messages that wait for another replica. A consumer used to take 4,096, and then nothing new."""


@SQLITE_IS_ENOUGH
async def test_thousands_of_messages_that_no_replica_takes_stop_nobody(
    database_urls: DatabaseUrls, nats: EmbeddedNats
) -> None:
    inlet = command_inlet("orchestrator", timedelta(seconds=30))
    misspelt = StartSaga(saga="place-oder", input=an_order())
    right = StartSaga(saga="place-order", input=an_order())
    async with World(database_urls, nats.url, ack_wait=inlet.ack_wait) as world, courier(nats.url, inlet) as broker:

        async def ask(command: StartSaga, name: str) -> None:
            await send(broker.jetstream, StartSaga.subject(), asks(command, name))

        async def are_deferred() -> bool:
            found = await broker.jetstream.consumer_info(inlet.stream, inlet.durable)
            return (found.num_ack_pending, found.num_pending) == (MANY, 0)

        async def has_completed() -> bool:
            return [saga.status for saga in await world.sagas()] == ["completed"]

        for start in range(0, MANY, 100):
            await asyncio.gather(*(ask(misspelt, f"shop-{number}") for number in range(start, start + 100)))
        await world.start(*ROLES)
        await eventually(are_deferred, "all are put back")
        await ask(right, "shop-right")
        await eventually(has_completed, "the saga that is loaded has completed")
