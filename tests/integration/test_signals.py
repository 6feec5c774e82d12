"""Signals by command, on both databases: taken once, always answered, and refused where nobody waits for them."""

from typing import Any

import pytest

from orchestrator.events import Cancelled
from orchestrator.registry import Definitions
from orchestrator.steps import SignalSaga
from outbox.envelope import Envelope
from tests.support.courier import answers
from tests.support.messaging import asks
from tests.support.sagas import approved_hold, charge
from tests.support.world import SQLITE_IS_ENOUGH, Desk, World, answer


@pytest.fixture
def definitions() -> Definitions:
    """A saga that waits for an approval."""
    return Definitions([approved_hold])


def signal(saga_id: str, *, id: str = "desk-1/approval", step: str = "approval", **fields: Any) -> Envelope:
    """A webhook's service signals out of its own outbox."""
    return asks(SignalSaga(saga_id=saga_id, step=step, **fields), id)


async def test_a_signal_is_taken_once_and_always_answered(world: World, desk: Desk) -> None:
    saga_id = await desk.begin("approved-hold")
    sent = signal(saga_id, data={"by": "ada"})
    first = answers(await desk.carry_out(sent, sent))
    again = answers(await desk.carry_out(sent))
    await desk.receive(answer(f"{saga_id}/reserve/do"))
    late = answers(await desk.carry_out(sent))

    assert [one.type for one in (*first, *again, *late)] == ["orchestrator.signal-taken"] * 3
    assert await world.log(saga_id) == [
        "started", "asked approval", "signal-received approval", "done approval", "asked reserve", "done reserve",
        "completed",
    ]  # fmt: skip


@SQLITE_IS_ENOUGH
async def test_a_signal_that_says_no_turns_the_saga_back(world: World, desk: Desk) -> None:
    saga_id = await desk.begin("approved-hold")
    await desk.carry_out(signal(saga_id, outcome="refused", data={"reason": "too dear"}))

    saga = await world.saga(saga_id)
    assert (saga.status, saga.failure) == ("compensated", "approval was refused: too dear")


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"data": {"by": ["nobody"]}}, "bad-signal", "the signal to approval cannot be read: by:"),
        ({"data": {}}, "bad-signal", "by: Field required"),
        ({"step": "reserve", "data": {}}, "not-awaited", "no step reserve of approved-hold waits for a signal"),
        ({"step": "no-such-step"}, "not-awaited", "no step no-such-step of approved-hold waits for a signal"),
    ],
)
@SQLITE_IS_ENOUGH
async def test_a_signal_that_its_saga_cannot_take_is_refused(
    world: World, desk: Desk, fields: dict[str, Any], code: str, reason: str
) -> None:
    saga_id = await desk.begin("approved-hold")
    before = await world.saga(saga_id)
    [reply] = answers(await desk.carry_out(signal(saga_id, **fields)))

    assert (reply.outcome, reply.data["code"]) == ("refused", code)
    assert reason in reply.data["reason"]
    assert await world.saga(saga_id) == before


@SQLITE_IS_ENOUGH
async def test_a_signal_that_comes_too_late_is_refused(world: World, desk: Desk) -> None:
    saga_id = await desk.begin("approved-hold")
    await desk.engine.tell(saga_id, Cancelled("ada", "no need"))
    [reply] = answers(await desk.carry_out(signal(saga_id, data={"by": "ada"})))

    assert (reply.data["code"], reply.data["reason"]) == (
        "not-awaited",
        f"saga {saga_id}: the saga has ended: compensated",
    )


async def test_a_signal_to_nobody_is_refused_and_one_to_a_stranger_is_left_to_others(world: World, desk: Desk) -> None:
    [reply] = answers(await desk.carry_out(signal("nobody", data={"by": "ada"})))
    assert (reply.outcome, reply.data["code"]) == ("refused", "unknown-saga")

    saga_id = await desk.begin("approved-hold")
    stranger = world.desk(definitions=Definitions([charge]))
    assert (await stranger.carry_out(signal(saga_id, data={"by": "ada"}))).deferred
