"""The engine on both databases: one transaction for everything, one effect for every event, a log that tells it all.

Nothing is published here: what the engine sends stays in the outbox, where a test can read it. Whatever a test does, it
ends with the log of every saga replaying to its stored state (see `world`).
"""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, insert, select, update

from orchestrator import machine, tables
from orchestrator.definition import Saga, reversible, step
from orchestrator.door import BadInput
from orchestrator.engine import TIMERS_AT_ONCE, Engine, NotLoaded, UnknownSaga
from orchestrator.events import Answered, Retried
from orchestrator.registry import Definitions
from orchestrator.sagas.place_order import PlaceOrder, capture_payment, open_order, reject_order
from orchestrator.store import Change, LostRace, Store
from outbox.bulk import Writes
from outbox.database import Database
from outbox.faults import NoFaults
from outbox.unit_of_work import Outbox
from tests.support.waiting import eventually
from tests.support.world import (
    DAWN,
    THREE_TIMES,
    Desk,
    OwnedClock,
    World,
    an_order,
    answer,
    definitions_with,
    received,
    waits_for_lock,
)

TIMEOUT = THREE_TIMES.timeout
DEFINITIONS = definitions_with(THREE_TIMES)
LATE = timedelta(seconds=11)


# --- starting -----------------------------------------------------------------------------------------------------


async def test_start_writes_saga_log_and_outbox_together(world: World, desk: Desk) -> None:
    result = await desk.start(an_order())

    assert result.outcome == "started"
    [saga] = await world.sagas()
    assert (saga.id, saga.data["saga_id"], saga.status) == (result.saga_id, result.saga_id, "running")
    assert await world.log(saga.id) == ["started", "asked open-order"]
    assert [envelope.id for envelope in await world.outgoing()] == [
        f"{saga.id}/event/started/{DAWN.timestamp():.6f}/0",
        f"{saga.id}/open-order/do",
    ]


async def test_start_that_fails_at_the_end_has_written_nothing(world: World) -> None:
    desk = world.desk(faults=BreakBeforeCommit())
    with pytest.raises(Broken):
        await desk.start(an_order())

    assert await world.sagas() == []
    assert await count(world, "saga_log") == 0
    assert await world.outgoing() == []


class Broken(Exception):
    """What goes wrong at the last moment."""


class BreakBeforeCommit:
    """All is written, and nothing is committed."""

    def reach(self, point: str) -> None:
        """Raise there."""
        if point == "orchestrator.before-commit":
            raise Broken


async def test_a_key_that_comes_again_is_the_same_saga_or_a_conflict(world: World, desk: Desk) -> None:
    order = an_order()
    first = await desk.start(order, key="k-1")
    again = await desk.start(order, key="k-1")
    other = await desk.start(an_order(), key="k-1")

    assert (again.outcome, other.outcome) == ("existing", "conflict")
    assert {first.saga_id, again.saga_id, other.saga_id} == {saga.id for saga in await world.sagas()}


async def test_a_key_is_one_sagas_within_a_batch_too(world: World, desk: Desk) -> None:
    order, another = an_order(), an_order()
    requests = [desk.engine.request("place-order", data, "k-1") for data in (order, order, another)]
    results = await desk.engine.start(requests)

    assert [result.outcome for result in results] == ["started", "existing", "conflict"]
    assert {result.saga_id for result in results} == {saga.id for saga in await world.sagas()}


async def test_without_a_key_the_same_input_is_another_saga(world: World, desk: Desk) -> None:
    order = an_order()
    results = [await desk.start(order) for _ in range(2)]

    assert [result.outcome for result in results] == ["started", "started"]
    assert len(await world.sagas()) == 2


async def test_two_engines_that_start_the_same_keys_at_once_make_one_saga_each(world: World) -> None:
    keyed = [(f"k-{number}", an_order()) for number in range(20)]
    one, two = world.desk(), world.desk()
    forth = [one.engine.request("place-order", order, key) for key, order in keyed]
    back = list(reversed([two.engine.request("place-order", order, key) for key, order in keyed]))
    first, second = await asyncio.gather(one.engine.start(forth), two.engine.start(back))

    assert len(await world.sagas()) == 20
    assert [result.saga_id for result in first] == [result.saga_id for result in reversed(second)]
    assert sorted(result.outcome for result in (*first, *second)) == ["existing"] * 20 + ["started"] * 20


async def test_keys_in_opposite_orders_do_not_make_engines_wait_for_each_other(on_postgresql: World) -> None:
    """Both are held up at the key in the middle, with half of the keys in hand, and then let go."""
    world = on_postgresql
    keyed = [(f"k-{number}", an_order()) for number in range(9)]
    one, two = world.desk(), world.desk()
    forth = [one.engine.request("place-order", order, key) for key, order in keyed]
    back = [two.engine.request("place-order", order, key) for key, order in reversed(keyed)]
    async with world.databases["orchestrator"].engine.connect() as somebody:
        await somebody.execute(insert(tables.sagas).values(row_with_key("k-4")))
        starting = asyncio.gather(one.engine.start(forth), two.engine.start(back))
        await eventually(lambda: waits_for_lock(world, 2), "both engines wait")
        await somebody.rollback()
    first, second = await starting

    assert [result.saga_id for result in first] == [result.saga_id for result in reversed(second)]
    assert len(await world.sagas()) == 9


# --- the door -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"customer_id": ""}, "customer_id: "),
        ({"currency": "euro"}, "currency: "),
        ({"lines": []}, "lines: "),
        ({"lines": [{"sku": "lamp", "quantity": 0, "unit_price": "1"}]}, "lines.0.quantity: "),
        ({"colour": "red"}, "colour: "),
        ({"saga_id": "mine"}, "saga_id: is minted"),
        ({"customer_id": "a\x00b"}, "customer_id: "),
    ],
)
def test_a_bad_input_is_refused_with_the_name_of_the_field(
    engine: Engine, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadInput) as refusal:
        engine.request("place-order", an_order() | change)
    assert str(refusal.value).startswith(sentence)


@pytest.mark.parametrize("key", ["", "k" * 201, "k\x00", "k\udcff"])
def test_a_key_that_no_database_can_keep_is_refused(engine: Engine, key: str) -> None:
    with pytest.raises(BadInput, match=r"^the key "):
        engine.request("place-order", an_order(), key)


async def test_the_longest_key_is_kept(desk: Desk) -> None:
    order = an_order()
    assert (await desk.start(order, key="k" * 200)).outcome == "started"
    assert (await desk.start(order, key="k" * 200)).outcome == "existing"


def test_an_input_that_is_too_large_is_refused_with_the_limit(engine: Engine) -> None:
    with pytest.raises(BadInput, match=r"the input has 262,\d\d\d bytes, the limit is 262,144"):
        engine.request("chatty", an_order() | {"talk": "x" * 262_144})


async def test_an_input_below_the_limit_can_be_sent(world: World) -> None:
    desk = world.desk(definitions=Definitions([CHATTY]))
    assert (await desk.start(an_order() | {"talk": "x" * 261_000}, saga="chatty")).outcome == "started"


class Chatty(PlaceOrder):
    """An order with as much talk as one likes."""

    talk: str = ""


CHATTY = Saga(
    name="chatty",
    data=Chatty,
    reversible=[reversible(open_order, undo=reject_order)],
    pivot=step(capture_payment),
)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """An engine at whose door one can knock; it never opens its database."""
    database = Database(f"sqlite:///{tmp_path}/never-opened.db")
    outbox = Outbox(database, tables.messaging, clock=OwnedClock(), faults=NoFaults(), role="orchestrator")
    return Engine(Definitions([*DEFINITIONS.values(), CHATTY]), outbox, clock=outbox.clock)


# --- replies ------------------------------------------------------------------------------------------------------


async def test_a_reply_is_applied_once(world: World, desk: Desk) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    await desk.receive(answer(f"{saga_id}/open-order/do"))
    after = await world.saga(saga_id)
    assert after.steps["open-order"].status == "done"
    sent = await world.commands()
    assert sent == [(f"{saga_id}/open-order/do", 1), (f"{saga_id}/reserve-stock/do", 1)]

    await desk.receive(answer(f"{saga_id}/open-order/do"))  # alone
    await desk.receive(answer(f"{saga_id}/open-order/do"), answer(f"{saga_id}/open-order/do"))  # twice in a batch

    assert (await world.saga(saga_id), await world.commands()) == (after, sent)
    assert desk.engine.ignored.total() == 3


async def test_the_same_reply_twice_in_one_batch_is_applied_once(world: World, desk: Desk) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    await desk.receive(answer(f"{saga_id}/open-order/do"), answer(f"{saga_id}/open-order/do"))

    assert await world.log(saga_id) == ["started", "asked open-order", "done open-order", "asked reserve-stock"]
    assert desk.engine.ignored.total() == 1


async def test_a_batch_takes_a_saga_through_several_steps(world: World, desk: Desk) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    await desk.receive(
        answer(f"{saga_id}/open-order/do"),
        answer(f"{saga_id}/reserve-stock/do"),
        answer(f"{saga_id}/authorise-payment/do", authorisation_code="A1"),
    )
    saga = await world.saga(saga_id)
    assert {name: step.status.value for name, step in saga.steps.items()} == {
        "open-order": "done",
        "reserve-stock": "done",
        "authorise-payment": "done",
        "capture-payment": "asked",
        "sell-stock": "pending",
        "confirm-order": "pending",
    }
    assert saga.data["authorisation_code"] == "A1"


@pytest.mark.parametrize(
    "command",
    [
        "{saga}/capture-payment/do",  # not asked yet
        "{saga}/open-order/undo",  # the other direction
        "{saga}/open-order/do/2",  # a round that never was
        "{saga}/no-such-step/do",
        "{other}/open-order/do",  # no saga of ours
        "nonsense",
    ],
)
async def test_a_foreign_reply_changes_nothing(world: World, desk: Desk, command: str) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    before = await world.sagas(), await world.outgoing(), await count(world, "saga_log")
    await desk.receive(answer(command.format(saga=saga_id, other="01ARZ3NDEKTSV4RRFFQ69G5FAV")))

    assert (await world.sagas(), await world.outgoing(), await count(world, "saga_log")) == before
    assert desk.engine.ignored.total() == 1
    assert await world.dead_letters() == []


async def test_a_late_reply_to_a_compensated_saga_changes_nothing(world: World, desk: Desk) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    await desk.receive(answer(f"{saga_id}/open-order/do", "refused"))
    before = await world.saga(saga_id), await world.outgoing(), await count(world, "saga_log")
    assert before[0].status == "compensated"
    await desk.receive(answer(f"{saga_id}/open-order/do"))

    assert (await world.saga(saga_id), await world.outgoing(), await count(world, "saga_log")) == before
    assert desk.engine.ignored == {"Answered": 1}


async def test_an_unreadable_reply_is_buried_and_its_batch_goes_on(world: World, desk: Desk) -> None:
    odd, even = [(await desk.start(an_order())).saga_id for _ in range(2)]
    for saga_id in (odd, even):
        await desk.receive(answer(f"{saga_id}/open-order/do"), answer(f"{saga_id}/reserve-stock/do"))
    await desk.receive(
        answer(f"{odd}/authorise-payment/do", authorisation_code=["no", "text"]),
        answer(f"{even}/authorise-payment/do", authorisation_code="A1"),
    )

    [reason] = await world.dead_letters()
    assert "authorise-payment" in reason
    assert "authorisation_code" in reason
    assert (await world.saga(odd)).steps["authorise-payment"].status == "asked"
    assert (await world.saga(even)).steps["authorise-payment"].status == "done"


async def test_what_is_not_a_reply_is_buried_and_its_batch_goes_on(world: World, desk: Desk) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    reply = answer(f"{saga_id}/open-order/do")
    await desk.receive(reply.model_copy(update={"answers": None}), reply.model_copy(update={"outcome": None}), reply)

    assert [reason.startswith("it is not a reply") for reason in await world.dead_letters()] == [True, True]
    assert (await world.saga(saga_id)).steps["open-order"].status == "done"


# --- timers -------------------------------------------------------------------------------------------------------


async def test_a_step_is_asked_again_when_it_is_due_and_not_before(world: World, desk: Desk, clock: OwnedClock) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    command = f"{saga_id}/open-order/do"

    clock.advance(TIMEOUT - timedelta(milliseconds=1))
    assert await desk.engine.fire_timers() == 0
    assert await world.commands() == [(command, 1)]

    clock.advance(timedelta(milliseconds=1))
    assert await desk.engine.fire_timers() == 1
    assert await world.commands() == [(command, 1), (command, 2)]
    assert await desk.engine.fire_timers() == 0, "the next timer is the second attempt's"


async def test_every_attempt_is_another_message_of_the_same_command(
    world: World, desk: Desk, clock: OwnedClock
) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    clock.advance(LATE)
    await desk.engine.fire_timers()

    asked = [one for one in await world.outgoing() if one.replyto is not None]
    assert {one.id for one in asked} == {f"{saga_id}/open-order/do"}
    assert len({one.message_id for one in asked}) == 2
    assert asked[0].data == asked[1].data


async def test_an_answer_to_the_first_attempt_is_taken_after_the_second_was_asked(
    world: World, desk: Desk, clock: OwnedClock
) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    clock.advance(LATE)
    await desk.engine.fire_timers()
    await desk.receive(answer(f"{saga_id}/open-order/do"))
    assert (await world.saga(saga_id)).steps["open-order"].status == "done"


async def test_a_reversible_step_that_never_answers_is_undone_too(world: World, desk: Desk, clock: OwnedClock) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    for _ in range(3):
        clock.advance(LATE)
        await desk.engine.fire_timers()

    saga = await world.saga(saga_id)
    assert (saga.status, saga.steps["open-order"].status) == ("compensating", "undoing")
    [undo] = [one for one in await world.outgoing() if one.undoes]
    assert (undo.id, undo.undoes) == (f"{saga_id}/open-order/undo", f"{saga_id}/open-order/do")


async def test_many_timers_are_fired_in_bounded_batches(world: World, desk: Desk, clock: OwnedClock) -> None:
    await desk.engine.start([desk.engine.request("place-order", an_order()) for _ in range(TIMERS_AT_ONCE + 1)])
    clock.advance(LATE)
    assert [await desk.engine.fire_timers() for _ in range(3)] == [TIMERS_AT_ONCE, 1, 0]


# --- races --------------------------------------------------------------------------------------------------------


async def test_a_timer_passes_over_a_saga_whose_reply_is_being_applied(on_postgresql: World, clock: OwnedClock) -> None:
    world = on_postgresql
    replies, timers = world.desk(), world.desk()
    saga_id = (await replies.start(an_order())).saga_id
    clock.advance(LATE)
    async with replies.outbox.unit_of_work() as unit:
        await replies.engine.process(unit, [received(answer(f"{saga_id}/open-order/do"))])
        assert await timers.engine.fire_timers() == 0  # the row is locked
    assert await timers.engine.fire_timers() == 0  # and now it is not due any more

    assert await world.log(saga_id) == ["started", "asked open-order", "done open-order", "asked reserve-stock"]


async def test_timers_and_replies_that_race_have_one_effect_whoever_wins(world: World, clock: OwnedClock) -> None:
    replies, timers = world.desk(), world.desk()
    requests = [replies.engine.request("place-order", an_order()) for _ in range(40)]
    saga_ids = [result.saga_id for result in await replies.engine.start(requests)]
    clock.advance(LATE)
    await asyncio.gather(
        *(replies.receive(answer(f"{saga_id}/open-order/do")) for saga_id in saga_ids),
        *(timers.engine.fire_timers() for _ in range(20)),
    )

    for saga_id in saga_ids:
        log = await world.log(saga_id)
        assert log.count("done open-order") == log.count("asked reserve-stock") == 1
        assert log[-1] == "asked reserve-stock"
    commands = await world.commands()
    assert len(commands) == len(set(commands))


async def test_two_engines_that_get_the_same_reply_apply_it_once(world: World) -> None:
    one, two = world.desk(), world.desk()
    saga_id = (await one.start(an_order())).saga_id
    reply = answer(f"{saga_id}/open-order/do")
    await asyncio.gather(one.receive(reply), two.receive(reply))

    assert await world.log(saga_id) == ["started", "asked open-order", "done open-order", "asked reserve-stock"]
    assert one.engine.ignored.total() + two.engine.ignored.total() == 1


@pytest.mark.parametrize("others", [0, 1])
async def test_a_replica_that_slept_past_its_turn_writes_nothing(world: World, desk: Desk, others: int) -> None:
    """Alone, and with another saga in its batch that is still as it was."""
    saga_ids = [(await desk.start(an_order())).saga_id for _ in range(1 + others)]
    store = Store(world.databases["orchestrator"])
    async with world.databases["orchestrator"].transaction() as connection:
        slept = await store.lock(connection, saga_ids)
    await desk.receive(answer(f"{saga_ids[0]}/open-order/do"))
    before = await world.sagas(), await count(world, "saga_log")

    changes = []
    for saga_id, stored in slept.items():
        event = Answered(f"{saga_id}/open-order/do", "refused")
        decision = machine.decide(DEFINITIONS["place-order"], stored.saga, event, DAWN)
        after = replace(stored, saga=decision.saga, revision=stored.revision + 1)
        changes.append(Change(after, decision.entries, DAWN))
    writes = Writes()
    store.write(writes, changes)
    with pytest.raises(LostRace):
        async with world.databases["orchestrator"].transaction() as connection:
            await writes.flush(connection)

    assert (await world.sagas(), await count(world, "saga_log")) == before


# --- people, and what is not ours ---------------------------------------------------------------------------------


async def stuck_saga(desk: Desk, clock: OwnedClock) -> str:
    """A saga whose pivot stays without an answer until its policy is spent."""
    saga_id = (await desk.start(an_order())).saga_id
    await desk.receive(
        answer(f"{saga_id}/open-order/do"),
        answer(f"{saga_id}/reserve-stock/do"),
        answer(f"{saga_id}/authorise-payment/do", authorisation_code="A1"),
    )
    for _ in range(3):
        clock.advance(LATE)
        await desk.engine.fire_timers()
    return saga_id


async def test_a_stuck_saga_waits_until_a_person_retries_it(world: World, desk: Desk, clock: OwnedClock) -> None:
    saga_id = await stuck_saga(desk, clock)
    stuck = await world.saga(saga_id)
    assert (stuck.status, stuck.due_at) == ("stuck", None)
    assert "capture-payment" in str(stuck.stuck)
    clock.advance(timedelta(days=1))
    assert await desk.engine.fire_timers() == 0

    assert (await desk.engine.tell(saga_id, Retried("ada", "the bank is back"))).ignored is None

    saga = await world.saga(saga_id)
    assert (saga.status, saga.steps["capture-payment"].attempt) == ("running", 4)
    assert (f"{saga_id}/capture-payment/do", 4) in await world.commands()
    assert "retry-ordered" in await world.log(saga_id)
    await desk.receive(
        answer(f"{saga_id}/capture-payment/do"),
        answer(f"{saga_id}/sell-stock/do"),
        answer(f"{saga_id}/confirm-order/do"),
    )
    assert (await world.saga(saga_id)).status == "completed"


async def test_a_late_reply_moves_a_stuck_saga(world: World, desk: Desk, clock: OwnedClock) -> None:
    saga_id = await stuck_saga(desk, clock)
    await desk.receive(answer(f"{saga_id}/capture-payment/do"))
    assert (await world.saga(saga_id)).status == "running"


async def test_retry_says_why_it_did_nothing(world: World, desk: Desk) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    before = await world.saga(saga_id)
    assert (await desk.engine.tell(saga_id, Retried("ada", "impatience"))).ignored == "nothing is stuck"
    assert await world.saga(saga_id) == before
    with pytest.raises(UnknownSaga, match="no-such-saga"):
        await desk.engine.tell("no-such-saga", Retried("ada", "a typing error"))


async def test_a_saga_without_its_definition_is_left_alone(world: World, desk: Desk, clock: OwnedClock) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    before = await world.saga(saga_id), await world.outgoing()
    stranger = world.desk(definitions=Definitions([CHATTY]))
    clock.advance(LATE)

    assert await stranger.engine.fire_timers() == 0
    await stranger.receive(answer(f"{saga_id}/open-order/do"))
    with pytest.raises(NotLoaded, match="SAGA_DEFINITIONS"):
        await stranger.engine.tell(saga_id, Retried("ada", "why not"))

    assert (await world.saga(saga_id), await world.outgoing()) == before
    assert await desk.engine.fire_timers() == 1, "whoever has the definition goes on with it"


async def test_a_saga_whose_definition_was_changed_without_a_new_version_is_left_alone(
    world: World, desk: Desk, clock: OwnedClock
) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    before = await world.saga(saga_id), await world.outgoing()
    place_order = DEFINITIONS["place-order"]
    changed = world.desk(definitions=Definitions([replace(place_order, retriable=place_order.retriable[:1])]))
    clock.advance(LATE)

    assert await changed.engine.fire_timers() == 0
    await changed.receive(answer(f"{saga_id}/open-order/do"))

    assert (await world.saga(saga_id), await world.outgoing()) == before


async def test_a_saga_that_cannot_be_read_holds_back_no_other_timer(
    world: World, desk: Desk, clock: OwnedClock
) -> None:
    [broken, healthy] = [(await desk.start(an_order())).saga_id for _ in range(2)]
    sagas = tables.sagas
    await world.execute("orchestrator", update(sagas).where(sagas.c.id == broken).values(state='{"no": "state"}'))
    clock.advance(LATE)

    assert await desk.engine.fire_timers() == 2
    assert (await world.saga(healthy)).steps["open-order"].attempt == 2
    assert await desk.engine.fire_timers() == 0, "the broken one is out of the way for a while"
    log = tables.saga_log
    await world.execute(
        "orchestrator", delete(sagas).where(sagas.c.id == broken), delete(log).where(log.c.saga_id == broken)
    )


async def test_a_reply_for_a_definition_that_is_not_loaded_is_left_to_another_replica(world: World, desk: Desk) -> None:
    saga_id = (await desk.start(an_order())).saga_id
    stranger = world.desk(definitions=Definitions([CHATTY]))
    reply = received(answer(f"{saga_id}/open-order/do"))
    async with stranger.outbox.unit_of_work() as unit:
        await stranger.engine.process(unit, [reply])
    assert unit.deferred == {id(reply.envelope)}
    async with desk.outbox.unit_of_work() as unit:
        await desk.engine.process(unit, [reply])
    assert unit.deferred == set()


async def test_sagas_without_a_definition_do_not_keep_others_from_their_timers(world: World, clock: OwnedClock) -> None:
    """More of them than are taken at once, and all due earlier."""
    desk = world.desk(definitions=Definitions([*DEFINITIONS.values(), CHATTY]))
    await desk.engine.start([desk.engine.request("chatty", an_order()) for _ in range(TIMERS_AT_ONCE)])
    clock.advance(LATE)
    saga_id = (await desk.start(an_order())).saga_id
    clock.advance(LATE)

    assert await world.desk().engine.fire_timers() == 1
    assert (await world.saga(saga_id)).steps["open-order"].attempt == 2


async def count(world: World, table: str) -> int:
    """How many rows a table of the orchestrator has."""
    [row] = await world.rows("orchestrator", select(func.count()).select_from(tables.metadata.tables[table]))
    return int(row[0])


def row_with_key(key: str) -> dict[str, Any]:
    """Somebody's saga."""
    times = {"started_at": DAWN, "changed_at": DAWN}
    return (
        {
            "id": "Z",
            "definition": "place-order",
            "key": key,
            "digest": "",
            "fingerprint": "",
            "status": "",
            "revision": 1,
        }
        | times
        | {"state": "{}"}
    )
