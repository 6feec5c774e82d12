"""What becomes of a start whose key is taken, and how sagas are found by their labels: on both databases."""

import asyncio
from typing import Any

import pytest

from orchestrator.definition import Saga, reversible
from orchestrator.door import IfTaken
from orchestrator.queries import Filter
from orchestrator.registry import Definitions
from tests.support.sagas import Hold, hold_stock, release, reserve
from tests.support.world import DAWN, SQLITE_IS_ENOUGH, Desk, World, answer

labelled = Saga(
    "labelled", Hold, [reversible(reserve, undo=release)], None, labels=lambda data: {"sku": data.sku, "shop": "main"}
)


@pytest.fixture
def definitions() -> Definitions:
    """A saga of one step, with labels and without."""
    return Definitions([hold_stock, labelled])


async def start(desk: Desk, if_taken: IfTaken = "return", **data: Any) -> tuple[str, str]:
    """Start a saga under the one key of this module: what came of it, and whose id was given back."""
    result = await desk.start(data, key="k-1", saga="hold-stock", if_taken=if_taken)
    return result.outcome, result.saga_id


async def end(desk: Desk, saga_id: str, outcome: str) -> None:
    """Let it complete, or be refused."""
    await desk.receive(answer(f"{saga_id}/reserve/do", "done" if outcome == "completed" else "refused"))


# --- a key that is taken -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("if_taken", "how_it_is", "outcome"),
    [
        ("return", "running", "existing"),
        ("return", "completed", "existing"),
        ("return", "compensated", "existing"),
        ("reject", "running", "conflict"),
        ("reject", "completed", "conflict"),
        ("reject", "compensated", "conflict"),
        ("after-failure", "running", "existing"),
        ("after-failure", "completed", "existing"),
        ("after-failure", "compensated", "started"),
    ],
)
@SQLITE_IS_ENOUGH
async def test_what_becomes_of_the_same_start(
    world: World, desk: Desk, if_taken: IfTaken, how_it_is: str, outcome: str
) -> None:
    _, first = await start(desk)
    if how_it_is != "running":
        await end(desk, first, how_it_is)
    assert (await world.saga(first)).status == how_it_is

    told, saga_id = await start(desk, if_taken)
    assert told == outcome
    assert (saga_id == first) is (outcome != "started")
    assert len(await world.sagas()) == (2 if outcome == "started" else 1)


async def test_another_input_under_the_same_key_is_a_conflict_unless_the_first_has_failed(
    world: World, desk: Desk
) -> None:
    _, first = await start(desk, sku="lamp")
    assert await start(desk, sku="vase") == ("conflict", first)
    assert await start(desk, "after-failure", sku="vase") == ("conflict", first)
    await end(desk, first, "compensated")
    assert await start(desk, sku="vase") == ("conflict", first)

    outcome, second = await start(desk, "after-failure", sku="vase")
    assert (outcome, (await world.saga(second)).data["sku"]) == ("started", "vase")
    assert await start(desk, sku="vase") == ("existing", second), "the key is the second one's now"
    assert await start(desk, sku="lamp") == ("conflict", second)


@SQLITE_IS_ENOUGH
async def test_a_key_may_be_used_after_every_failure_and_no_more_after_a_success(desk: Desk) -> None:
    seen = []
    for outcome in ("compensated", "compensated", "completed"):
        told, saga_id = await start(desk, "after-failure")
        assert told == "started"
        await end(desk, saga_id, outcome)
        seen.append(saga_id)

    assert len(set(seen)) == 3
    assert await start(desk, "after-failure") == ("existing", seen[-1])


async def test_a_key_is_used_once_within_a_batch_after_a_failure_too(world: World, desk: Desk) -> None:
    _, first = await start(desk)
    await end(desk, first, "compensated")
    request = desk.engine.request("hold-stock", {}, "k-1", if_taken="after-failure")
    results = await desk.engine.start([request, request])

    assert [result.outcome for result in results] == ["started", "existing"]
    assert len(await world.sagas()) == 2


@pytest.mark.parametrize("if_taken", ["return", "reject", "after-failure"])
async def test_two_replicas_that_use_a_key_at_once_start_one_saga(world: World, if_taken: IfTaken) -> None:
    desks = [world.desk(), world.desk()]
    _, failed = await start(desks[0])
    await end(desks[0], failed, "compensated")
    free = [desk.engine.request("hold-stock", {}, "k-2", if_taken=if_taken) for desk in desks * 3]
    used = [desk.engine.request("hold-stock", {}, "k-1", if_taken=if_taken) for desk in desks * 3]
    results = await asyncio.gather(
        *(desk.engine.start([request]) for desk, request in zip(desks * 6, [*free, *used], strict=True))
    )
    outcomes = [result.outcome for [result] in results]

    rest = "conflict" if if_taken == "reject" else "existing"
    assert sorted(outcomes[:6]) == sorted(["started", *[rest] * 5])
    again = [rest] * 6 if if_taken != "after-failure" else ["started", *[rest] * 5]
    assert sorted(outcomes[6:]) == sorted(again)
    assert len(await world.sagas()) == 1 + outcomes.count("started")


# --- labels ----------------------------------------------------------------------------------------------------------


async def test_sagas_are_found_by_their_labels(world: World, desk: Desk) -> None:
    lamp = (await desk.start({"sku": "lamp"}, saga="labelled", labels={"customer": "ada"})).saga_id
    vase = (await desk.start({"sku": "vase"}, saga="labelled", labels={"customer": "ada", "shop": "other"})).saga_id
    await desk.start({}, saga="hold-stock")

    async def found(**labels: str) -> set[str]:
        return {one.id for one in await world.queries.search(Filter(labels=labels), DAWN)}

    assert await found(customer="ada") == {lamp, vase}
    assert await found(sku="lamp") == await found(shop="main") == {lamp}
    assert await found(customer="ada", shop="other") == {vase}
    assert await found(customer="bob") == await found(colour="ada") == await found(sku="lamp", shop="other") == set()
    assert (await world.view(vase)).labels == {"customer": "ada", "shop": "other", "sku": "vase"}


async def test_a_start_that_finds_its_key_taken_labels_nothing(world: World, desk: Desk) -> None:
    saga_id = (await desk.start({}, key="k-1", saga="hold-stock", labels={"a": "first"})).saga_id
    await desk.start({}, key="k-1", saga="hold-stock", labels={"a": "second", "b": "second"})
    assert (await world.view(saga_id)).labels == {"a": "first"}
