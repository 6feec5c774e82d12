"""The orchestrator as a participant, on both databases: children and undos, carried as badly as can be.

What a parent and its children say to each other goes through a `Courier` that loses, repeats and reverses; the same
over a real NATS is in `test_children`. Whatever a test does, every saga's log replays to its stored state in the end.
"""

import asyncio

import pytest
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from orchestrator.definition import Policy, Saga, child, reversible, step
from orchestrator.events import Cancelled, PauseOrdered, ResumeOrdered
from orchestrator.model import StepStatus
from orchestrator.registry import Definitions
from orchestrator.steps import StartSaga, UndoSaga
from outbox.envelope import Envelope
from tests.support.courier import Courier, answers
from tests.support.messaging import asks
from tests.support.sagas import FAMILY, Hold, Sale, authorise, capture, charge, hold_of, release, reserve, void
from tests.support.waiting import eventually
from tests.support.world import (
    SQLITE_IS_ENOUGH,
    THREE_TIMES,
    Desk,
    OwnedClock,
    World,
    answer,
    definitions_with,
    received,
    waits_for_lock,
)

LATE = THREE_TIMES.timeout * 1.1
PATIENT = Policy(timeout=THREE_TIMES.timeout, attempts=None, factor=1.0, jitter=0.0)
CANCELLED = Cancelled("ada", "the customer rang")

crowded = Saga("crowded", Hold, reversible=[reversible(reserve, undo=release)], pivot=None, max_in_flight=1)
picky = Saga("picky", Hold, [reversible(reserve, undo=release)], None, labels=lambda data: {"half": data.sku[1_000]})
asks_too_much = Saga("asks-too-much", Sale, [child(picky, hold_of), reversible(authorise, undo=void)], step(capture))


@pytest.fixture
def definitions() -> Definitions:
    """Parents and children who ask for ever."""
    return definitions_with(PATIENT, sagas=[*FAMILY, crowded, asks_too_much])


@pytest.fixture(params=["once", "twice-and-backwards"])
def courier(request: pytest.FixtureRequest, desk: Desk) -> Courier:
    """Carries all that is written: as it should be, or every letter twice and the last one first."""
    return Courier(desk) if request.param == "once" else Courier(desk, copies=2, backwards=True)


async def statuses(world: World) -> dict[str, str]:
    """definition -> status, where there is one saga of each."""
    sagas = await world.sagas()
    assert len({saga.definition for saga in sagas}) == len(sagas), "one saga of each"
    return {saga.definition: saga.status for saga in sagas}


async def ask_again(desk: Desk, clock: OwnedClock, courier: Courier) -> None:
    """Let the time pass after which whoever has no answer asks again."""
    clock.advance(LATE)
    await desk.engine.fire_timers()
    await courier.run()


# --- how a child ends, and its parent with it --------------------------------------------------------------------


async def test_a_parent_goes_on_when_its_child_has_completed(world: World, desk: Desk, courier: Courier) -> None:
    parent = await desk.begin("sell", order_id="o-1")
    await courier.run()

    assert await statuses(world) == {"sell": "completed", "hold-stock": "completed"}
    [held] = await world.children(parent)
    assert (await world.saga(parent)).data["held_by"] == held.id
    assert len(await courier.letters("inventory.reserve-stock")) == 1


async def test_a_parent_is_refused_what_its_child_was_refused(world: World, desk: Desk, courier: Courier) -> None:
    courier.refuses.add("inventory.reserve-stock")
    parent = await desk.begin("sell", order_id="o-1")
    await courier.run()

    assert await statuses(world) == {"sell": "compensated", "hold-stock": "compensated"}
    saga = await world.saga(parent)
    assert saga.steps["hold-stock"].status is StepStatus.REFUSED
    assert "hold-stock was refused: reserve was refused: for a reason" in str(saga.failure)
    assert await courier.letters("orchestrator.undo-saga") == [], "there is nothing to undo"


async def test_a_child_that_has_completed_is_undone_when_its_parent_turns_back(
    world: World, desk: Desk, courier: Courier
) -> None:
    courier.refuses.add("payment.authorise-payment")
    parent = await desk.begin("sell", order_id="o-1")
    await courier.run()

    assert await statuses(world) == {"sell": "compensated", "hold-stock": "compensated"}
    assert (await world.saga(parent)).steps["hold-stock"].status is StepStatus.UNDONE
    [held] = await world.children(parent)
    log = await world.log(held.id)
    assert log[log.index("completed") :] == [
        "completed", "undo-ordered", "compensation-started", "undo-asked reserve", "undone reserve", "compensated",
    ]  # fmt: skip


@pytest.mark.parametrize(("refused", "end"), [("", "completed"), ("payment.authorise-payment", "compensated")])
@SQLITE_IS_ENOUGH
async def test_three_generations_end_together(
    world: World, desk: Desk, courier: Courier, refused: str, end: str
) -> None:
    courier.refuses.add(refused)
    await desk.begin("export", order_id="o-1")
    await courier.run()

    assert await statuses(world) == {"export": end, "pack": end, "hold-stock": end}
    assert len(await courier.letters("inventory.reserve-stock")) == 1


@pytest.mark.parametrize(("refused", "end"), [("", "completed"), ("payment.authorise-payment", "compensated")])
@SQLITE_IS_ENOUGH
async def test_a_child_may_be_the_pivot(world: World, desk: Desk, courier: Courier, refused: str, end: str) -> None:
    courier.refuses.add(refused)
    await desk.begin("invoice", order_id="o-1")
    await courier.run()

    assert await statuses(world) == {"invoice": end, "charge": end}


@SQLITE_IS_ENOUGH
async def test_a_child_that_cannot_begin_refuses_and_does_not_hang(world: World, desk: Desk, courier: Courier) -> None:
    parent = await desk.begin("asks-too-much", order_id="o-1")
    await courier.run()

    saga = await world.saga(parent)
    assert (saga.status, len(await world.sagas())) == ("compensated", 1)
    assert "the definition's `labels` failed: IndexError" in str(saga.failure)


# --- messages that are lost, late, or come again -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "refused"),
    [
        ("orchestrator.start-saga", ""),
        ("orchestrator.saga-ended", ""),
        ("orchestrator.refused", "inventory.reserve-stock"),
        ("orchestrator.undo-saga", "payment.authorise-payment"),
        ("orchestrator.saga-undone", "payment.authorise-payment"),
    ],
)
@SQLITE_IS_ENOUGH
async def test_a_message_that_is_lost_is_asked_for_again(
    world: World, desk: Desk, clock: OwnedClock, courier: Courier, lost: str, refused: str
) -> None:
    courier.loses.add(lost)
    courier.refuses.add(refused)
    await desk.begin("sell", order_id="o-1")
    await courier.run()
    assert (await statuses(world))["sell"] in ("running", "compensating"), "the loss is felt"

    courier.loses.clear()
    await ask_again(desk, clock, courier)

    end = "compensated" if refused else "completed"
    assert await statuses(world) == {"sell": end, "hold-stock": end}
    assert len(await courier.letters("inventory.reserve-stock")) == 1


async def test_the_same_start_makes_one_child_whenever_it_comes(world: World, desk: Desk) -> None:
    start = asks(StartSaga(saga="hold-stock", input={}), "shop-1/hold/do")
    await desk.carry_out(start, start)  # twice in a batch
    await desk.carry_out(start)  # and again while it runs
    [saga] = await world.sagas()
    assert answers(await desk.carry_out(start)) == [], "it is answered when it has ended"

    await desk.receive(answer(f"{saga.id}/reserve/do"))
    [ended] = answers(await desk.carry_out(start.model_copy(update={"attempt": 2})))

    assert [one.id for one in await world.sagas()] == [saga.id]
    assert (ended.outcome, ended.answers, ended.attempt) == ("done", "shop-1/hold/do", 2)
    assert ended.data["saga_id"] == saga.id


async def test_two_replicas_that_get_the_same_start_make_one_child(world: World) -> None:
    one, two = world.desk(), world.desk()
    starts = [asks(StartSaga(saga="hold-stock", input={}), f"shop-{number}/hold/do") for number in range(10)]
    await asyncio.gather(*(insist(desk, start) for start in starts for desk in (one, two)))

    assert len(await world.sagas()) == 10


async def test_an_undo_that_comes_first_leaves_a_saga_that_never_begins(world: World, desk: Desk) -> None:
    courier = Courier(desk, loses=["orchestrator.start-saga"])
    parent = await desk.begin("sell", order_id="o-1")
    await courier.run()
    await desk.engine.tell(parent, CANCELLED)
    await courier.run()
    assert await statuses(world) == {"sell": "compensated", "hold-stock": "compensated"}
    [grave] = await world.children(parent)
    assert await world.log(grave.id) == ["started", "undo-ordered", "compensation-started", "compensated"]

    [start] = await courier.letters("orchestrator.start-saga")
    [late] = answers(await desk.carry_out(start))  # it had only been slow

    assert (late.outcome, late.data["code"]) == ("refused", "compensated")
    assert [one.id for one in await world.children(parent)] == [grave.id]
    assert await courier.letters("inventory.reserve-stock") == []


async def test_whoever_comes_first_a_start_and_its_undo_leave_nothing(world: World) -> None:
    one, two = world.desk(), world.desk()
    numbers = range(10)
    starts = [asks(StartSaga(saga="hold-stock", input={}), f"shop-{number}/hold/do") for number in numbers]
    undos = [undo_of(start, "hold-stock") for start in starts]
    await asyncio.gather(*(insist(one, start) for start in starts), *(insist(two, undo) for undo in undos))
    await Courier(one).run()

    assert [saga.status for saga in await world.sagas()] == ["compensated"] * 10


async def test_an_undo_of_what_could_never_begin_is_answered_done(world: World, desk: Desk) -> None:
    start = asks(StartSaga(saga="picky", input={}), "shop-1/picky/do")
    [undone] = answers(await desk.carry_out(undo_of(start, "picky")))
    assert (undone.type, undone.outcome) == ("orchestrator.saga-undone", "done")

    [refused] = answers(await desk.carry_out(start))
    assert (refused.outcome, len(await world.sagas())) == ("refused", 1)


async def test_a_parent_that_is_cancelled_before_its_child_was_refused_ends(world: World, desk: Desk) -> None:
    courier = Courier(desk, loses=["orchestrator.refused"])
    parent = await desk.begin("asks-too-much", order_id="o-1")
    await courier.run()
    await desk.engine.tell(parent, CANCELLED)
    await courier.run()

    assert (await world.saga(parent)).status == "compensated"


async def test_an_undo_that_comes_again_is_one_undo(world: World, desk: Desk) -> None:
    start = asks(StartSaga(saga="hold-stock", input={}), "shop-1/hold/do")
    undo = undo_of(start, "hold-stock")
    await desk.carry_out(start)
    await desk.carry_out(undo, undo)
    assert answers(await desk.carry_out(undo)) == [], "it is under way"
    [saga] = await world.sagas()
    await desk.receive(answer(f"{saga.id}/reserve/undo"))
    [again] = answers(await desk.carry_out(undo.model_copy(update={"attempt": 2})))

    log = await world.log(saga.id)
    assert (log.count("undo-ordered"), log.count("undo-asked reserve"), log[-1]) == (1, 1, "compensated")
    assert (again.type, again.attempt) == ("orchestrator.saga-undone", 2)


# --- undone in the middle of something ---------------------------------------------------------------------------


async def test_a_child_is_undone_while_it_waits_for_an_answer(world: World, desk: Desk) -> None:
    courier = Courier(desk, loses=["inventory.reserve-stock"])
    parent = await desk.begin("sell", order_id="o-1")
    await courier.run()
    await desk.engine.tell(parent, CANCELLED)
    await courier.run()

    assert await statuses(world) == {"sell": "compensated", "hold-stock": "compensated"}
    assert len(await courier.letters("inventory.release-stock")) == 1, "it may have happened"


@SQLITE_IS_ENOUGH
async def test_a_child_is_undone_while_it_waits_for_a_person(world: World, desk: Desk, courier: Courier) -> None:
    parent = await desk.begin("sell-on-approval", order_id="o-1")
    await courier.run()
    assert await statuses(world) == {"sell-on-approval": "running", "approved-hold": "running"}
    await desk.engine.tell(parent, CANCELLED)
    await courier.run()

    assert await statuses(world) == {"sell-on-approval": "compensated", "approved-hold": "compensated"}
    assert await courier.letters("inventory.reserve-stock", "inventory.release-stock") == []


@SQLITE_IS_ENOUGH
async def test_a_child_that_waits_for_room_is_undone_without_having_begun(world: World, desk: Desk) -> None:
    start = asks(StartSaga(saga="crowded", input={}), "shop-1/crowded/do")
    await desk.carry_out(start)
    [waiting] = await world.sagas()
    [undone] = answers(await desk.carry_out(undo_of(start, "crowded")))

    assert (waiting.status, (await world.saga(waiting.id)).status) == ("waiting", "compensated")
    assert undone.outcome == "done"
    assert await desk.admit() == 0


@SQLITE_IS_ENOUGH
async def test_a_paused_child_is_undone_when_it_may_go_on(world: World, desk: Desk, courier: Courier) -> None:
    parent = await desk.begin("sell-on-approval", order_id="o-1")
    await courier.run()
    [held] = await world.children(parent)
    await desk.engine.tell(held.id, PauseOrdered("bob", "stocktaking"))
    await desk.engine.tell(parent, CANCELLED)
    await courier.run()
    assert await statuses(world) == {"sell-on-approval": "compensating", "approved-hold": "paused"}

    await desk.engine.tell(held.id, ResumeOrdered("bob", "all counted"))
    await courier.run()
    assert await statuses(world) == {"sell-on-approval": "compensated", "approved-hold": "compensated"}


async def test_a_child_with_a_pivot_is_undone_only_before_it(world: World, desk: Desk) -> None:
    starts = [asks(StartSaga(saga="charge", input={}), f"shop-{number}/charge/do") for number in range(3)]
    await desk.carry_out(*starts)
    ids = {saga.caller.command_id: saga.id for saga in await world.sagas() if saga.caller}
    before, asked, past = [ids[start.id] for start in starts]
    for saga_id in (asked, past):
        await desk.receive(answer(f"{saga_id}/authorise/do", authorisation_code="A1"))
    await desk.receive(answer(f"{past}/capture/do"))

    undos = [undo_of(start, "charge") for start in starts]
    replies = answers(await desk.carry_out(*undos))

    assert [(await world.saga(saga_id)).status for saga_id in (before, asked, past)] == [
        "compensating", "running", "completed",
    ]  # fmt: skip
    assert [(one.answers, one.data["code"]) for one in replies] == [(undo.id, "cannot-be-undone") for undo in undos[1:]]
    assert "capture was asked and may have happened" in replies[0].data["reason"]


async def test_an_undo_that_has_waited_for_the_last_answer_finds_it_done(on_postgresql: World) -> None:
    """It saw a saga that turns back, waited for the row, and the saga has been compensated meanwhile."""
    world = on_postgresql
    desk, other = world.desk(), world.desk()
    start = asks(StartSaga(saga="hold-stock", input={}), "shop-1/hold/do")
    await desk.carry_out(start)
    [saga] = await world.sagas()
    await desk.engine.tell(saga.id, CANCELLED)
    async with desk.outbox.unit_of_work() as unit:
        await desk.engine.process(unit, [received(answer(f"{saga.id}/reserve/undo"))])
        undoing = asyncio.create_task(other.carry_out(undo_of(start, "hold-stock")))
        await eventually(lambda: waits_for_lock(world), "the undo waits")

    [undone] = answers(await undoing)
    assert undone.type == "orchestrator.saga-undone"


# --- commands that are none ----------------------------------------------------------------------------------------


async def test_what_cannot_be_carried_out_holds_back_nobody_in_its_batch(world: World, desk: Desk) -> None:
    good = asks(StartSaga(saga="hold-stock", input={}), "shop-1/hold/do")
    strange = good.model_copy(update={"type": "orchestrator.sing"})
    unreadable = good.model_copy(update={"data": {"saga": "hold-stock"}})
    unanswerable = good.model_copy(update={"replyto": "saga.event.shop"})
    endless = good.model_copy(update={"id": "x" * 301})
    refused = asks(StartSaga(saga="hold-stock", input={"colour": "red"}), "shop-2/hold/do")
    aimless = asks(UndoSaga(saga="hold-stock", input={}), "shop-3/hold/undo")
    unit = await desk.carry_out(strange, unreadable, unanswerable, endless, refused, aimless, good)

    assert [saga.caller and saga.caller.command_id for saga in await world.sagas()] == [good.id]
    assert [(one.answers, one.data["code"]) for one in answers(unit)] == [
        (refused.id, "bad-input"),
        (aimless.id, "bad-command"),
    ]
    assert await world.dead_letters() == [
        "the orchestrator has no handler for orchestrator.sing",
        "orchestrator.start-saga cannot be read: input: Field required",
        "no stream takes an answer to replyto 'saga.event.shop': it begins with saga.reply.",
        "its id has 301 characters, and an answer's id must still fit",
    ]


@SQLITE_IS_ENOUGH
async def test_a_start_that_nobody_waits_for_is_carried_out_or_buried(world: World, desk: Desk) -> None:
    wanted = asks(StartSaga(saga="hold-stock", input={}), "shop-1/hold/do").model_copy(update={"replyto": None})
    wrong = asks(StartSaga(saga="hold-stock", input={"colour": 1}), "shop-2/hold/do")
    with capture_logs() as logs:
        await desk.carry_out(wanted, wrong.model_copy(update={"replyto": None}))

    assert await statuses(world) == {"hold-stock": "running"}
    [reason] = await world.dead_letters()
    assert reason.startswith(
        "orchestrator.start-saga was refused, and nobody asked to be told (hold-stock cannot begin"
    )
    assert "colour: " in reason
    assert [(line["message"], line["reason"]) for line in logs] == [("shop-2/hold/do", reason)]


@SQLITE_IS_ENOUGH
async def test_a_saga_that_nobody_here_knows_is_told_of_once(world: World, desk: Desk) -> None:
    """It may be misspelt, and whoever sent it asked for no answer."""
    misspelt = [asks(StartSaga(saga="hold-stok", input={}), f"shop-{number}/hold/do") for number in range(3)]
    with capture_logs() as logs:
        await desk.carry_out(*(one.model_copy(update={"replyto": None}) for one in misspelt))
    assert [(line["log_level"], line["saga"]) for line in logs] == [("warning", "hold-stok")]
    assert await world.sagas() == []


@pytest.mark.parametrize("command", [StartSaga, UndoSaga])
async def test_a_saga_that_is_not_loaded_is_left_to_a_replica_that_has_it(
    world: World, desk: Desk, command: type[StartSaga | UndoSaga]
) -> None:
    stranger = world.desk(definitions=Definitions([charge]))
    sent = asks(command(saga="hold-stock", input={}), "shop-1/hold/it", undoes="shop-1/hold/do")
    assert (await stranger.carry_out(sent)).deferred
    assert await world.sagas() == []

    assert not (await desk.carry_out(sent)).deferred
    assert len(await world.sagas()) == 1


# --- how it is said --------------------------------------------------------------------------------------------------


def undo_of(start: Envelope, saga: str) -> Envelope:
    """The undo that belongs to a start."""
    return asks(UndoSaga(saga=saga, input={}), f"{start.id.removesuffix('do')}undo", undoes=start.id)


async def insist(desk: Desk, command: Envelope) -> None:
    """What the pump does with a batch that has collided with another replica's: once more."""
    try:
        await desk.carry_out(command)
    except IntegrityError:
        await desk.carry_out(command)
