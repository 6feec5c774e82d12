"""`saga definitions check`: which sagas in flight a deployment would leave alone for ever, on both databases."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.definition import Policy, Saga, SagaData, child, reversible, step
from orchestrator.deployment import Finding, Verdict, check, in_flight
from orchestrator.registry import Definitions
from orchestrator.sagas.place_order import PlaceOrder, capture_payment, open_order, reject_order
from tests.support.servers import DatabaseUrls
from tests.support.world import OwnedClock, World, an_order, answer, definitions_with

DEFINITIONS = definitions_with(Policy(timeout=timedelta(seconds=10), jitter=0.0))
PLACE_ORDER = DEFINITIONS["place-order"]
SHORTER = replace(PLACE_ORDER, retriable=PLACE_ORDER.retriable[:1])
OPENING = Saga(name="opening", data=PlaceOrder, reversible=(reversible(open_order, undo=reject_order),), pivot=None)


def as_it_is(data: PlaceOrder) -> PlaceOrder:
    return data


PARENT = Saga(name="parent", data=PlaceOrder, reversible=(child(OPENING, as_it_is),), pivot=step(capture_payment))


@pytest.fixture
async def world(database_urls: DatabaseUrls) -> AsyncIterator[World]:
    """An orchestrator's database."""
    definitions = Definitions([PLACE_ORDER, PARENT])
    async with World(database_urls, roles=["orchestrator"], definitions=definitions, clock=OwnedClock()) as world:
        yield world


async def findings(world: World, *sagas: Saga[SagaData] | Saga[PlaceOrder]) -> dict[tuple[str, int], Finding]:
    found = check(Definitions(sagas), await in_flight(world.databases["orchestrator"]))
    return {(one.definition, one.version): one for one in found}


async def test_nothing_in_flight_is_safe_whatever_is_deployed(world: World) -> None:
    assert await in_flight(world.databases["orchestrator"]) == []
    [finding] = (await findings(world, SHORTER)).values()
    assert (finding.verdict, finding.in_flight) == (Verdict.SAFE, 0)


async def test_the_same_code_is_safe(world: World) -> None:
    saga_id = (await world.desk().start(an_order())).saga_id
    finding = (await findings(world, PLACE_ORDER))["place-order", 1]
    assert (finding.verdict, finding.in_flight, finding.example) == (Verdict.SAFE, 1, saga_id)


async def test_a_structure_that_changed_without_a_new_version_strands_what_is_in_flight(world: World) -> None:
    await world.desk().start(an_order())
    [stranded, safe] = check(Definitions([SHORTER]), await in_flight(world.databases["orchestrator"]))
    assert (stranded.verdict, stranded.in_flight, stranded.fingerprint) == (
        Verdict.STRANDED,
        1,
        PLACE_ORDER.fingerprint,
    )
    assert "give the changed one version 2" in stranded.advice
    assert (safe.verdict, safe.in_flight, safe.fingerprint) == (Verdict.SAFE, 0, SHORTER.fingerprint)


async def test_a_new_version_beside_the_old_one_is_safe_until_the_old_one_is_free(world: World) -> None:
    desk = world.desk()
    saga_id = (await desk.start(an_order())).saga_id
    newer = replace(SHORTER, version=2)
    assert (await findings(world, PLACE_ORDER, newer))["place-order", 1].verdict is Verdict.KEEP
    assert (await findings(world, PLACE_ORDER, newer))["place-order", 2].verdict is Verdict.SAFE

    await desk.receive(answer(f"{saga_id}/open-order/do", "refused"))
    assert (await findings(world, PLACE_ORDER, newer))["place-order", 1].verdict is Verdict.FREE


async def test_a_definition_that_is_gone_strands_what_is_in_flight(world: World) -> None:
    await world.desk().start(an_order())
    finding = (await findings(world, OPENING))["place-order", 1]
    assert finding.verdict is Verdict.STRANDED
    assert "SAGA_DEFINITIONS" in finding.advice


async def test_a_child_that_has_completed_needs_its_definition_as_long_as_its_parent_runs(world: World) -> None:
    desk = world.desk()
    parent = (await desk.start(an_order(), saga="parent")).saga_id
    request = desk.engine.request("opening", an_order(), f"{parent}/opening/do")
    [begun] = await desk.engine.start([request])
    await desk.receive(answer(f"{begun.saga_id}/open-order/do"))
    assert (await world.saga(begun.saga_id)).status == "completed"
    assert (await findings(world, PLACE_ORDER))["opening", 1].in_flight == 1

    await desk.receive(answer(f"{parent}/opening/do", "refused"))
    assert (await world.saga(parent)).status == "compensated"
    assert ("opening", 1) not in await findings(world, PLACE_ORDER)
