"""Replies that cannot be read, and definitions whose functions fail: the saga says so, and nothing is lost."""

from typing import Any

import pytest

from orchestrator.definition import Saga, SagaData, step
from orchestrator.entries import RefusedStep
from orchestrator.machine import UnreadableReply
from orchestrator.model import StepStatus
from orchestrator.testing import (
    answered,
    done,
    given,
    refused,
    retried,
    silence,
)
from tests.support.order_story import (
    BROKEN,
    Authorised,
    OpenOrder,
    Order,
    RejectOrder,
    authorise_payment,
    opened,
    paid,
    past_the_pivot,
    place_order,
    prepared,
)


@pytest.fixture
def broken() -> Any:
    """Functions of the definition that are named here raise, until the test takes them out."""
    yield BROKEN
    BROKEN.clear()


# --- replies that cannot be read, and definitions that fail -------------------------------------------------------


@pytest.mark.parametrize("reply", [{}, {"authorisation": 7}, {"authorisation": None}])
def test_a_reply_that_breaks_its_contract_raises_and_leaves_the_saga_as_it_was(reply: dict[str, Any]) -> None:
    saga = opened()
    before = saga.saga
    with pytest.raises(UnreadableReply, match="the reply to authorise-payment cannot be read: authorisation"):
        saga.when(done("authorise-payment", **reply))
    assert saga.saga is before
    saga.when(paid).then_knows(authorisation="a-1")


def test_a_reply_that_breaks_its_contract_is_ignored_when_nobody_waits_for_it() -> None:
    prepared().when(answered("authorise-payment/do", authorisation=7)).then_nothing_happened()


def test_a_reply_may_carry_more_than_its_contract_says() -> None:
    opened().when(done("authorise-payment", authorisation="a-1", news=True)).then_knows(authorisation="a-1")


def test_a_refusal_without_words_is_still_a_refusal() -> None:
    saga = given(place_order).started().when(answered("open-order/do", "refused")).then_compensated()
    assert RefusedStep("open-order", "refused", "no reason was given") in saga.log


def test_a_step_that_cannot_be_built_is_stuck_until_a_person_retries(broken: set[str]) -> None:
    broken.add("open_order")
    saga = given(place_order).started().then_logs("started", "stuck")
    saga.then_is_stuck("open-order: the definition's `do` failed: ZeroDivisionError: open_order is broken")
    saga.when(retried()).then_is_stuck("open_order is broken").then_sends()
    broken.clear()
    saga.when(retried()).then_sends(("open-order/do", 1)).then_status("running")


def test_a_branch_that_cannot_be_built_does_not_hold_back_its_sibling(broken: set[str]) -> None:
    broken.add("reserve_stock")
    saga = opened().then_asks("authorise-payment").then_is_stuck("reserve-stock")
    saga.when(paid).then_sends_nothing()
    broken.clear()
    saga.when(retried()).then_asks("reserve-stock")


def test_the_way_back_forgives_a_branch_that_could_not_be_built(broken: set[str]) -> None:
    broken.add("reserve_stock")
    saga = opened().when(refused("authorise-payment")).then_undoes("open-order").then_status("compensating")
    saga.when(done("open-order")).then_compensated().then_step("reserve-stock", StepStatus.PENDING)


def test_a_step_that_cannot_be_built_again_is_stuck(broken: set[str]) -> None:
    saga = past_the_pivot()
    broken.add("confirm_order")
    saga.when(silence("confirm-order")).then_is_stuck("confirm_order is broken").then_sends_nothing()
    saga.when(done("confirm-order")).then_completed()


def test_a_late_refusal_after_a_retry_that_could_not_be_built_waits_no_less(broken: set[str]) -> None:
    saga = past_the_pivot().when(*[silence("confirm-order")] * 3)
    broken.add("confirm_order")
    saga.when(retried()).then_is_stuck("confirm_order is broken")
    saga.when(refused("confirm-order")).then_status("running").then_next_timer_in(1, 1)


def test_an_undo_that_cannot_be_built_is_stuck_until_a_person_retries(broken: set[str]) -> None:
    broken.add("reject_order")
    saga = opened().when(refused("reserve-stock"), done("authorise-payment"))
    saga.then_is_stuck("open-order: the definition's `undo` failed").then_sends_nothing()
    broken.clear()
    saga.when(retried()).then_sends(("open-order/undo", 1)).when(done("open-order")).then_compensated()


def test_a_sibling_in_flight_whose_undo_cannot_be_built_may_still_answer(broken: set[str]) -> None:
    broken.add("release_stock")
    saga = opened().when(refused("authorise-payment")).then_is_stuck("release_stock is broken")
    saga.when(answered("reserve-stock/do")).then_step("reserve-stock", StepStatus.DONE).then_is_stuck()
    broken.clear()
    saga.when(retried()).then_undoes("reserve-stock")


def test_a_then_that_fails_is_stuck_and_a_retry_asks_for_the_reply_again(broken: set[str]) -> None:
    broken.add("keep_authorisation")
    saga = opened().when(paid).then_is_stuck("authorise-payment: the definition's `then` failed")
    saga.when(paid).then_nothing_happened("as it was")
    broken.clear()
    saga.when(retried()).then_sends(("authorise-payment/do", 2)).when(paid).then_knows(authorisation="a-1")


def nothing_kept(order: Order, reply: Authorised) -> Order:
    return None  # type: ignore[return-value]


def nonsense_kept(order: Order, reply: Authorised) -> Order:
    return order.model_copy(update={"authorisation": ["not", "a", "string"]})


def another_kind_kept(order: Order, reply: Authorised) -> Order:
    return Unlike(colour="red")  # type: ignore[return-value]


class Unlike(SagaData):
    colour: str


def begun_anew(order: Order, reply: Authorised) -> Order:
    return Order(authorisation=reply.authorisation)


def nothing_built(order: Order) -> OpenOrder:
    return None  # type: ignore[return-value]


def other_built(order: Order) -> OpenOrder:
    return RejectOrder(order=order.saga_id)  # type: ignore[return-value]


@pytest.mark.parametrize("then", [nothing_kept, nonsense_kept, another_kind_kept, begun_anew])
def test_a_then_that_returns_what_the_saga_cannot_be_is_stuck(then: Any) -> None:
    careless = Saga(name="careless", data=Order, reversible=(), pivot=step(authorise_payment, then=then))
    given(careless).started().when(paid).then_is_stuck("`then` failed").then_knows(authorisation="")


def test_a_then_cannot_lose_the_id_from_which_undos_are_built() -> None:
    careless = Saga(name="careless", data=Order, reversible=(), pivot=step(authorise_payment, then=begun_anew))
    given(careless).started().when(paid).then_is_stuck("changed `saga_id`", "use data.model_copy(update={…})")


@pytest.mark.parametrize("do", [nothing_built, other_built])
def test_a_step_that_returns_another_command_than_it_says_is_stuck(do: Any) -> None:
    careless = Saga(name="careless", data=Order, reversible=(), pivot=step(do))
    given(careless).started().then_is_stuck("annotated with OpenOrder").then_sends()
