"""What a person is told to do about a saga: nothing that the machine would refuse, and nothing that would be a lie."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.cli.advice import advice, awaited
from orchestrator.definition import Policy, Saga, reversible, step, wait_for
from orchestrator.sagas.place_order import PlaceOrder, place_order
from orchestrator.testing import SAGA_ID, Specification, cancelled, done, given, paused, silence
from participants.payment.contracts import PaymentAuthorised
from tests.support.sagas import Approval, Sale, Tour, capture, confirm_order, everything, open_order, reject_order
from tests.support.world import an_order, with_policies

TWICE = Policy(attempts=2)
IMPATIENT = with_policies(place_order, TWICE, TWICE)
BACK = ("open-order", "reserve-stock", "authorise-payment")
WHY = ("--reason", "…")


def started(definition: Saga[Any] = IMPATIENT) -> Specification:
    """An order."""
    return given(definition).started(**an_order())


def before_the_pivot(definition: Saga[Any] = IMPATIENT) -> Specification:
    """Its pivot is asked."""
    saga = started(definition).when(done("open-order"), done("reserve-stock"))
    return saga.when(done("authorise-payment", PaymentAuthorised(authorisation_code="7")))


def changed(one: Any, **changes: Any) -> Any:
    """A definition, or a step, with something changed."""
    return replace(one, **changes)


def advised(saga: Specification) -> list[tuple[str, ...]]:
    """The commands, without the id of the saga."""
    found = advice(saga.definition, saga.saga, saga.now)
    assert {one.command[1] for one in found} <= {SAGA_ID}
    return [(one.command[0], *one.command[2:]) for one in found]


def when(saga: Specification) -> list[str]:
    """When to give them."""
    return [one.when for one in advice(saga.definition, saga.saga, saga.now)]


def test_nothing_is_advised_for_what_goes_on_or_has_ended() -> None:
    saga = started()
    assert advised(saga) == []
    saga.when(cancelled())
    assert advised(saga) == []
    saga.when(done("open-order")).then_compensated()
    assert advised(saga) == []


def test_what_is_paused_is_resumed_and_nothing_else_even_if_it_is_stuck() -> None:
    saga = before_the_pivot().when(*[silence("capture-payment")] * 2, paused())
    assert advised(saga) == [("resume", *WHY)]


def test_stuck_on_the_way_back_is_retried_or_resolved_as_undone() -> None:
    saga = started().when(*[silence("open-order")] * 4).then_is_stuck("the undo")
    assert advised(saga) == [("retry", *WHY), ("resolve", "open-order", "--as", "undone", *WHY)]
    assert when(saga) == ["when the cause is gone", "if order has nothing left of open-order"]


def test_a_pivot_that_is_stuck_may_be_compensated_only_on_a_persons_word() -> None:
    saga = before_the_pivot().when(*[silence("capture-payment")] * 2).then_is_stuck("without an answer")
    assert advised(saga) == [
        ("retry", *WHY),
        ("resolve", "capture-payment", "--as", "done", *WHY),
        ("compensate", "--pivot-did-not-happen", *WHY),
    ]
    assert when(saga)[-1] == "if payment shows that capture-payment did not happen, and will not"


def test_past_the_pivot_nothing_turns_back() -> None:
    saga = before_the_pivot().when(done("capture-payment"), *[silence("sell-stock")] * 2)
    assert advised(saga) == [("retry", *WHY), ("resolve", "sell-stock", "--as", "done", *WHY)]


def broken_keep(data: PlaceOrder, reply: PaymentAuthorised) -> PlaceOrder:
    """A mistake in the definition."""
    raise ZeroDivisionError(reply.authorisation_code)


@pytest.mark.parametrize("at_the_pivot", [True, False])
def test_a_broken_then_shows_that_the_step_happened(at_the_pivot: bool) -> None:
    """So a pivot is not to be called undone, and where the reply is kept it is the person who must give it."""
    if not at_the_pivot:
        steps = [*IMPATIENT.reversible[:2], changed(IMPATIENT.reversible[2], then=broken_keep)]
        saga = before_the_pivot(replace(IMPATIENT, reversible=steps))
        skip = ("skip", "authorise-payment", "--reply", '{"authorisation_code": "…"}', *WHY)
        assert advised(saga) == [("retry", *WHY), skip, ("cancel", *WHY)]
    else:
        pivot = changed(IMPATIENT.pivot, then=lambda data, reply: 1 // 0)
        saga = before_the_pivot(replace(IMPATIENT, pivot=pivot)).when(done("capture-payment"))
        assert advised(saga) == [("retry", *WHY), ("skip", "capture-payment", "--reply", "{}", *WHY)]
    saga.then_is_stuck("ZeroDivisionError")
    assert when(saga)[0] == "when the definition is mended and deployed"


def test_a_step_that_is_not_undone_by_guess_may_be_cancelled() -> None:
    step_ = reversible(open_order, undo=reject_order, if_unknown="stick", policy=TWICE)
    saga = given(Saga(name="sticky", data=Sale, reversible=[step_], pivot=step(capture))).started(order_id="o")
    saga.when(*[silence("open-order")] * 2)
    assert advised(saga) == [("retry", *WHY), ("resolve", "open-order", "--as", "done", *WHY), ("cancel", *WHY)]


def test_a_signal_that_is_awaited_is_shown_with_what_it_has_to_say() -> None:
    saga = given(everything).started(Tour())
    [wait] = awaited(everything, saga.saga)
    assert (wait.step, wait.until) == ("approval", saga.now + timedelta(hours=1))
    yes, no = wait.commands
    assert yes == ("signal", SAGA_ID, "approval", "--data", '{"by": "…"}')
    assert no == ("signal", SAGA_ID, "approval", "--refuse", "…")
    assert advised(saga) == []
    saga.when(silence("approval")).then_compensated()
    assert awaited(everything, saga.saga) == []


def test_a_wait_that_is_stuck_can_still_be_signalled_but_not_refused_after_the_pivot() -> None:
    after = [wait_for(Approval, timeout=timedelta(hours=1)), step(confirm_order)]
    definition: Saga[Sale] = Saga(name="late", data=Sale, reversible=[], pivot=step(capture), retriable=after)
    saga = given(definition).started(order_id="o").when(done("capture"), silence("approval")).then_is_stuck("no signal")
    assert advised(saga) == [("retry", *WHY), ("signal", "approval", "--data", '{"by": "…"}')]


def test_of_many_steps_that_are_stuck_the_first_few_are_enough() -> None:
    stops = changed(everything.reversible[1], limit=None, undo_policy=TWICE)
    eager = changed(everything, reversible=[stops])
    saga = given(eager).started(Tour(stops=("lamp",) * 9)).when(cancelled())
    saga.when(*[silence(f"reserve-stop[{number}]") for number in range(9) for _ in range(2)]).then_is_stuck()
    assert [command[:2] for command in advised(saga)] == [
        ("retry", "--reason"),
        ("resolve", "reserve-stop[0]"),
        ("resolve", "reserve-stop[1]"),
        ("resolve", "reserve-stop[2]"),
    ]
