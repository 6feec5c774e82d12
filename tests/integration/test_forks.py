"""Forks on both databases: what is run again, with whose ids, on which version, and what may not be run again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.definition import Saga, reversible, step, wait_for
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.engine import UnknownSaga
from orchestrator.events import Cancelled, Signalled
from orchestrator.forks import CannotFork, Fork, fork
from orchestrator.queries import Filter
from orchestrator.registry import Definitions
from orchestrator.sagas import DEFINITIONS
from orchestrator.sagas.place_order import PlaceOrder, capture_payment, confirm_order, open_order, reject_order
from outbox.contracts import Reply
from tests.support.sagas import Approval
from tests.support.servers import SqliteDatabases
from tests.support.world import (
    DAWN,
    ROLES,
    SQLITE_IS_ENOUGH,
    THREE_TIMES,
    Desk,
    World,
    an_order,
    answer,
    definitions_with,
)

STEPS = ("open-order", "reserve-stock", "authorise-payment", "capture-payment", "sell-stock", "confirm-order")


class Approved(PlaceOrder):
    """An order, and who approved it."""

    approved_by: str | None = None


def keep_approver(data: Approved, signal: Approval) -> Approved:
    """Remember who it was."""
    return data.model_copy(update={"approved_by": signal.by})


def keep_nothing(data: Approved, reply: Reply) -> Approved:
    """Remember that there was an answer."""
    return data.model_copy(update={"authorisation_code": "opened"})


approved = Saga(
    "approved",
    Approved,
    reversible=[reversible(open_order, undo=reject_order, then=keep_nothing), wait_for(Approval, then=keep_approver)],
    pivot=step(capture_payment),
    retriable=[step(confirm_order)],
)
crowded = replace(approved, name="crowded", max_in_flight=1)


@pytest.fixture
def definitions() -> Definitions:
    """place-order, one with a signal, and one that is limited."""
    return definitions_with(THREE_TIMES, sagas=[*DEFINITIONS.values(), approved, crowded])


async def complete(desk: Desk, **options: Any) -> str:
    """An order that went through."""
    saga_id = (await desk.start(an_order(), **options)).saga_id
    await desk.receive(*(answer(f"{saga_id}/{name}/do", authorisation_code="A1") for name in STEPS))
    return saga_id


async def fail(desk: Desk) -> str:
    """An order that was compensated."""
    saga_id = (await desk.start(an_order())).saga_id
    await desk.receive(answer(f"{saga_id}/open-order/do", "refused"))
    return saga_id


# --- as a whole ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_step", [None, "open-order"])
@pytest.mark.parametrize("end", [complete, fail])
@SQLITE_IS_ENOUGH
async def test_from_its_first_step_it_is_the_same_input_with_ids_of_its_own(
    world: World, desk: Desk, end: Any, from_step: str | None
) -> None:
    original = await world.saga(await end(desk))
    forked = await fork(desk.engine, original.id, from_step, by="ada", reason="once more")
    copy = await world.saga(forked.saga_id)

    assert forked == Fork(copy.id, STEPS)
    begun = (await world.queries.log(copy.id))[0].to_json()
    assert (begun["by"], begun["reason"]) == ("ada", "once more")
    assert (copy.status, copy.fork_of) == ("running", None)
    assert copy.data == original.data | {"saga_id": copy.id, "authorisation_code": None}
    [command] = [one for one in await world.outgoing() if one.id == f"{copy.id}/open-order/do"]
    assert command.data["placement_id"] == copy.id


async def test_a_fork_has_the_labels_and_the_priority_of_its_original(world: World, desk: Desk) -> None:
    original = await complete(desk, key="k-1", labels={"customer": "ada"}, priority=7)
    copies = [
        await fork(desk.engine, original, by="ada", reason="once more"),
        await fork(desk.engine, original, "confirm-order", by="ada", reason="once more"),
    ]

    found = await world.queries.search(Filter(labels={"customer": "ada"}), DAWN)
    assert {one.id for one in found} == {original, *(copy.saga_id for copy in copies)}
    assert [(await world.view(copy.saga_id)).priority for copy in copies] == [7, 7]
    assert [(await world.view(copy.saga_id)).summary.key for copy in copies] == [None, None], (
        "the key stays where it is"
    )


# --- from a later step ---------------------------------------------------------------------------------------------


async def test_from_a_later_step_commands_are_new_and_speak_of_what_the_original_did(world: World, desk: Desk) -> None:
    original = await complete(desk)
    forked = await fork(desk.engine, original, "sell-stock", by="ada", reason="once more")
    copy = await world.saga(forked.saga_id)

    assert forked.steps == ("sell-stock", "confirm-order")
    assert copy.fork_of == original
    assert copy.data == (await world.saga(original)).data
    assert {name: step.status.value for name, step in copy.steps.items()} == dict.fromkeys(STEPS[:4], "skipped") | {
        "sell-stock": "asked",
        "confirm-order": "pending",
    }
    [command] = [one for one in await world.outgoing() if one.id == f"{copy.id}/sell-stock/do"]
    assert (command.data["reservation_id"], command.subject) == (original, copy.id)

    await desk.receive(answer(f"{copy.id}/sell-stock/do"), answer(f"{copy.id}/confirm-order/do"))
    assert (await world.saga(copy.id)).status == "completed"


@SQLITE_IS_ENOUGH
async def test_a_fork_knows_what_its_original_knew_at_that_step_and_no_more(world: World, desk: Desk) -> None:
    original = await complete(desk)
    before, after = [
        (await fork(desk.engine, original, name, by="ada", reason="once more")).saga_id
        for name in ("authorise-payment", "capture-payment")
    ]
    assert (await world.saga(before)).data["authorisation_code"] is None
    assert (await world.saga(after)).data["authorisation_code"] == "A1"


async def test_a_signal_that_came_early_hides_nothing_of_what_came_after_it(world: World, desk: Desk) -> None:
    original = (await desk.start(an_order(), saga="approved")).saga_id
    await desk.engine.tell(original, Signalled("approval", "done", {"by": "eve"}, "eve"))
    await desk.receive(
        *(answer(f"{original}/{name}/do") for name in ("open-order", "capture-payment", "confirm-order"))
    )
    from_wait, from_end = [
        (await fork(desk.engine, original, name, by="ada", reason="once more")).saga_id
        for name in ("approval", "confirm-order")
    ]

    waiting = await world.saga(from_wait)
    assert (waiting.data["authorisation_code"], waiting.data["approved_by"]) == ("opened", None)
    assert (waiting.steps["approval"].status, waiting.signals) == ("asked", {}), "it waits for another signal"
    assert (await world.saga(from_end)).data == (await world.saga(original)).data


async def test_a_fork_of_a_limited_saga_waits_for_room_like_any_other(world: World, desk: Desk) -> None:
    original = (await desk.start(an_order(), saga="crowded")).saga_id
    await desk.admit()
    await desk.engine.tell(original, Signalled("approval", "done", {"by": "eve"}, "eve"))
    await desk.receive(
        *(answer(f"{original}/{name}/do") for name in ("open-order", "capture-payment", "confirm-order"))
    )
    copies = [
        (await fork(desk.engine, original, "confirm-order", by="ada", reason="once more")).saga_id for _ in range(2)
    ]
    assert [(await world.saga(copy)).status for copy in copies] == ["waiting", "waiting"]

    assert await desk.admit() == 1
    assert sorted([(await world.saga(copy)).status for copy in copies]) == ["running", "waiting"]


# --- what cannot be forked -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how_it_is", "from_step", "why"),
    [
        ("running", None, "has not ended, it is running: retry, resolve or cancel it first"),
        ("running", "confirm-order", "has not ended, it is running"),
        ("compensating", None, "has not ended, it is compensating"),
        ("compensated", "confirm-order", "nothing is left to go on from at confirm-order: leave out the step"),
        ("completed", "sing", "place-order has no step sing: it has open-order, "),
    ],
)
@SQLITE_IS_ENOUGH
async def test_what_cannot_be_run_again_says_why(
    world: World, desk: Desk, how_it_is: str, from_step: str | None, why: str
) -> None:
    ends = {"completed": complete, "compensated": fail}
    original = await ends[how_it_is](desk) if how_it_is in ends else (await desk.start(an_order())).saga_id
    if how_it_is == "compensating":
        await desk.engine.tell(original, Cancelled("ada", "no need"))
    with pytest.raises(CannotFork, match=why):
        await fork(desk.engine, original, from_step, by="ada", reason="once more")
    assert len(await world.sagas()) == 1


@SQLITE_IS_ENOUGH
async def test_nobody_cannot_be_forked(desk: Desk) -> None:
    with pytest.raises(UnknownSaga, match="there is no saga nobody"):
        await fork(desk.engine, "nobody", by="ada", reason="once more")


# --- onto another version ------------------------------------------------------------------------------------------


class Coloured(PlaceOrder):
    """An order of the second version."""

    colour: str = "none"


place_order = DEFINITIONS["place-order"]
grown = replace(place_order, version=2, data=Coloured, retriable=place_order.retriable[:1])
"""It has another field, and no confirm-order."""

strange = replace(place_order, version=2, data=Approved, reversible=[*place_order.reversible, wait_for(Approval)])
"""It has another step before the pivot."""


async def test_a_fork_begins_on_the_newest_version(world: World, desk: Desk) -> None:
    original = await complete(desk)
    newer = world.desk(definitions=Definitions([grown, place_order]))
    forks = [
        await fork(newer.engine, original, by="ada", reason="once more"),
        await fork(newer.engine, original, "sell-stock", by="ada", reason="once more"),
    ]

    copies = [await world.saga(one.saga_id) for one in forks]
    assert [(copy.version, copy.fingerprint) for copy in copies] == [(2, grown.fingerprint)] * 2
    assert [one.steps for one in forks] == [STEPS[:5], ("sell-stock",)]
    assert [copy.data["colour"] for copy in copies] == ["none", "none"]
    assert copies[1].data["authorisation_code"] == "A1"
    await newer.receive(answer(f"{copies[1].id}/sell-stock/do"))
    assert (await world.saga(copies[1].id)).status == "completed"


@SQLITE_IS_ENOUGH
async def test_a_fork_leaves_out_no_step_that_was_never_done(world: World, desk: Desk) -> None:
    original = await complete(desk)
    newer = world.desk(definitions=Definitions([strange]))
    with pytest.raises(CannotFork, match=r"place-order v2 has approval before sell-stock, which saga .* never did"):
        await fork(newer.engine, original, "sell-stock", by="ada", reason="once more")
    assert (await fork(newer.engine, original, by="ada", reason="once more")).steps == (
        *STEPS[:3],
        "approval",
        *STEPS[3:],
    )


@SQLITE_IS_ENOUGH
async def test_a_definition_that_is_gone_or_does_not_take_the_input_says_so(world: World, desk: Desk) -> None:
    original = await complete(desk)
    with pytest.raises(CannotFork, match="its definition place-order is not loaded"):
        await fork(world.desk(definitions=Definitions([approved])).engine, original, by="ada", reason="once more")

    class Demanding(PlaceOrder):
        size: int

    newer = world.desk(definitions=Definitions([replace(place_order, version=2, data=Demanding)]))
    for from_step in (None, "confirm-order"):
        with pytest.raises(CannotFork, match=r"is none for place-order v2: size: Field required$"):
            await fork(newer.engine, original, from_step, by="ada", reason="once more")


# --- with real services --------------------------------------------------------------------------------------------


async def test_forks_leave_nothing_that_verify_would_find(nats: EmbeddedNats, tmp_path: Path) -> None:
    """A whole fork has effects of its own; one from a later step has those of its original."""
    async with World(SqliteDatabases(tmp_path), nats.url) as world:
        await world.start(*ROLES)
        originals = await world.place(an_order(), an_order(sku="sold-out"))
        assert await world.until_ended(originals) == ["completed", "compensated"]
        engine = world.desk().engine
        confirmed = await fork(engine, originals[0], "confirm-order", by="ada", reason="once more")
        failed = await fork(engine, originals[1], by="ada", reason="once more")
        copies = [confirmed.saga_id, failed.saga_id]

        assert await world.until_ended(copies) == ["completed", "compensated"]
        assert await world.findings() == []
