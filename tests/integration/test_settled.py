"""What a person has answered for is not redriven: it would be done a second time, or against what the person said."""

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import select

from orchestrator.composition import messaging_of
from orchestrator.definition import Policy
from orchestrator.events import Cancelled, Resolved
from orchestrator.letters import Letters
from outbox.database import Database
from outbox.dead_letters import DeadLetters, Order, Wanted
from outbox.envelope import Envelope
from outbox.errors import DatabaseOutOfReach
from outbox.unit_of_work import DeadLetter
from tests.support.servers import DatabaseUrls
from tests.support.waiting import eventually
from tests.support.world import Desk, World, an_order, answer, definitions_with

OUTBOX = messaging_of("orchestrator").outbox
SUBJECT = "saga.cmd.order.open-order"
RESOLVED = Resolved("ada", "I have opened it by hand", "open-order")


@pytest.fixture
async def world(database_urls: DatabaseUrls) -> AsyncIterator[World]:
    async with World(database_urls, roles=["orchestrator", "order"]) as world:
        yield world


@pytest.fixture
def letters(world: World, database_urls: DatabaseUrls) -> Letters:
    """Those of the order service."""
    return Letters(
        {"order": DeadLetters("order", world.outbox("order"))}, partial(Database, database_urls("orchestrator"))
    )


async def begin(desk: Desk) -> str:
    """A saga whose first command is out."""
    [started] = await desk.engine.start([desk.engine.request("place-order", an_order())])
    return started.saga_id


async def commands(world: World, *wanted: str) -> list[Envelope]:
    """What the orchestrator asks for, of these: a saga, or a command."""
    rows = await world.rows("orchestrator", select(OUTBOX.c.body).where(OUTBOX.c.subject.startswith("saga.cmd.")))
    found = [Envelope.model_validate_json(body) for [body] in rows]
    return [one for one in found if any(words in one.id for words in wanted)]


async def bury_commands(world: World, *wanted: str) -> None:
    """They are dead letters of the order service."""
    async with world.outbox("order").unit_of_work() as unit:
        for command in await commands(world, *wanted):
            unit.bury(DeadLetter(SUBJECT, command.id, "no handler", command.encode(), 3))


async def redrive(letters: Letters, *, force: bool = False) -> list[str | None]:
    """All of them. Returns why not, or None, for each."""
    order = Order("redriven", "grace", "release 7 has the handler", force)
    return [one.why_not async for outcomes in letters.carry_out(order, Wanted()) for one in outcomes]


async def test_a_command_for_whose_step_a_person_has_answered_is_redriven_only_by_force(
    world: World, letters: Letters
) -> None:
    desk = world.desk()
    settled, other = await begin(desk), await begin(desk)
    await bury_commands(world, "open-order/do")
    await desk.engine.tell(settled, RESOLVED)
    why_not = await redrive(letters)
    assert sorted(map(str, why_not)) == [
        "None",
        f"a person has answered for open-order of saga {settled}, and it would be done all the same",
    ]
    [left] = await letters.find(Wanted())
    assert (left.message_id, await letters.find(Wanted(saga=other))) == (f"{settled}/open-order/do", [])
    assert await redrive(letters, force=True) == [None]


async def test_once_it_is_to_be_undone_its_undo_can_be_redriven(world: World, letters: Letters) -> None:
    desk = world.desk()
    saga_id = await begin(desk)
    await desk.engine.tell(saga_id, RESOLVED)
    await desk.receive(answer(f"{saga_id}/reserve-stock/do", "refused", code="out-of-stock", reason="no tea"))
    await bury_commands(world, "open-order/undo")
    assert await redrive(letters) == [None]


@pytest.mark.parametrize("happened", [False, True])
async def test_a_pivot_of_which_a_person_says_that_it_did_not_happen_is_not_redriven(
    database_urls: DatabaseUrls, happened: bool
) -> None:
    """It would take the money of an order that is undone. Nor is one of which a person says that it did."""
    definitions = definitions_with(Policy(timeout=timedelta(milliseconds=1), attempts=1, jitter=0))
    async with World(database_urls, roles=["orchestrator", "order", "payment"], definitions=definitions) as world:
        desk = world.desk()
        saga_id = await begin(desk)
        for step in ("open-order", "reserve-stock", "authorise-payment"):
            data = {"authorisation_code": "A1"} if step == "authorise-payment" else {}
            await desk.receive(answer(f"{saga_id}/{step}/do").model_copy(update={"data": data}))

        async def is_stuck() -> bool:
            await desk.engine.fire_timers()
            return bool((await world.saga(saga_id)).stuck)

        await eventually(is_stuck, "nobody answers")
        [capture] = await commands(world, "capture-payment/do")
        async with world.outbox("payment").unit_of_work() as unit:
            unit.bury(DeadLetter("saga.cmd.payment.capture", capture.id, "no handler", capture.encode(), 3))
        boxes = {"payment": DeadLetters("payment", world.outbox("payment"))}
        letters = Letters(boxes, partial(Database, database_urls("orchestrator")))
        before = Cancelled("ada", "the bank has no such capture", pivot_did_not_happen=True)
        await desk.engine.tell(saga_id, Resolved("ada", "it was captured") if happened else before)
        [why_not] = await redrive(letters)
    assert why_not is not None
    assert ("has turned back at capture-payment" in why_not, "answered for capture-payment" in why_not) == (
        not happened,
        happened,
    )


async def test_what_no_saga_has_asked_for_is_redriven(world: World, letters: Letters) -> None:
    """A service may have, or a saga that is pruned since."""
    [of_nobody] = await commands(world, await begin(world.desk()))
    stranger = of_nobody.model_copy(update={"subject": "s1", "id": "s1/open-order/do"})
    async with world.outbox("order").unit_of_work() as unit:
        unit.bury(DeadLetter(SUBJECT, None, "it is not JSON", "{", 3))
        unit.bury(DeadLetter(SUBJECT, stranger.id, "no handler", stranger.encode(), 3))
    rubbish, sent = await redrive(letters)
    assert str(rubbish).startswith("it cannot be read")
    assert sent is None


async def test_a_command_to_the_orchestrator_itself_is_asked_for_in_the_database_that_it_leaves(
    world: World, database_urls: DatabaseUrls
) -> None:
    """It begins a child saga, and its letter is locked meanwhile."""
    saga_id = await begin(world.desk())
    [command] = await commands(world, saga_id)
    async with world.outbox("orchestrator").unit_of_work() as unit:
        unit.bury(DeadLetter("saga.cmd.orchestrator.start-saga", command.id, "no handler", command.encode(), 3))
    boxes = {"orchestrator": DeadLetters("orchestrator", world.outbox("orchestrator"))}
    letters = Letters(boxes, partial(Database, database_urls("orchestrator")))
    await world.desk().engine.tell(saga_id, RESOLVED)
    [why_not] = await redrive(letters)
    assert str(why_not).startswith("a person has answered for open-order")
    assert await redrive(letters, force=True) == [None]


async def test_what_no_saga_can_have_asked_for_needs_no_orchestrator(world: World) -> None:
    nowhere = partial(Database, "postgresql://nobody@127.0.0.1:1/orchestrator")
    letters = Letters({"order": DeadLetters("order", world.outbox("order"))}, nowhere)
    async with world.outbox("order").unit_of_work() as unit:
        unit.bury(DeadLetter(SUBJECT, None, "it is not JSON", "{", 3))
    [why_not] = await redrive(letters)
    assert str(why_not).startswith("it cannot be read")


async def test_nothing_is_redriven_while_the_orchestrator_cannot_be_asked(world: World) -> None:
    nowhere = partial(Database, "postgresql://nobody@127.0.0.1:1/orchestrator")
    letters = Letters({"order": DeadLetters("order", world.outbox("order"))}, nowhere)
    await begin(world.desk())
    await bury_commands(world, "open-order/do")
    with pytest.raises(DatabaseOutOfReach, match=r"it knows what a person has answered for; or send .* with --force"):
        await redrive(letters)
    assert len(await letters.find(Wanted())) == 1
    assert await redrive(letters, force=True) == [None]
