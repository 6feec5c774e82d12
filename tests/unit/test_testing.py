"""Given, when, then: the README's saga is tested with it, and what fails says why."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest

from orchestrator.entries import Paused
from orchestrator.events import Resolved
from orchestrator.sagas.place_order import Line, PlaceOrder, place_order
from orchestrator.testing import (
    DAWN,
    SILENCE,
    Happening,
    Script,
    Specification,
    answered,
    check_log_is_the_truth,
    done,
    given,
    paused,
    refused,
    rehearse,
    resumed,
    silence,
    timer,
)
from outbox.contracts import Refused
from participants.inventory.contracts import ReserveStock, SellStock, StockSold
from participants.payment.contracts import AuthorisePayment, CapturePayment, PaymentAuthorised
from tests.support.travel_story import DAY, travel

# --- the README's saga, one event after the other ------------------------------------------------------------------

ORDER = PlaceOrder(
    order_id="o-1",
    customer_id="c-1",
    lines=(Line(sku="A", quantity=2, unit_price=Decimal("9.99")),),
    currency="EUR",
)
AUTHORISED = PaymentAuthorised(authorisation_code="a-1")


def authorised() -> Specification:
    """All that can be undone is done, and the pivot is out."""
    return (
        given(place_order)
        .started(ORDER)
        .when(done("open-order"), done("reserve-stock"), done("authorise-payment", AUTHORISED))
    )


def test_place_order_goes_its_way_step_by_step() -> None:
    saga = given(place_order).started(ORDER).then_asks("open-order")
    saga.when(done("open-order")).then_asks("reserve-stock")
    saga.when(done("reserve-stock")).then_asks("authorise-payment")
    saga.when(done("authorise-payment", AUTHORISED)).then_asks("capture-payment").then_knows(authorisation_code="a-1")
    saga.when(done("capture-payment")).then_asks("sell-stock")
    saga.when(done("sell-stock")).then_asks("confirm-order")
    saga.when(done("confirm-order")).then_completed()


def test_place_order_releases_and_voids_when_the_payment_cannot_be_captured() -> None:
    saga = authorised().when(refused("capture-payment", "expired")).then_undoes("authorise-payment")
    saga.when(done("authorise-payment")).then_undoes("reserve-stock")
    saga.when(done("reserve-stock")).then_undoes("open-order")
    saga.when(done("open-order")).then_compensated().then_failed("capture-payment was refused: expired")


def test_place_order_voids_a_payment_that_gave_no_answer_for_it_may_have_happened() -> None:
    saga = given(place_order).started(ORDER).when(done("open-order"), done("reserve-stock"))
    saga.when(*[silence("authorise-payment")] * 6).then_undoes("authorise-payment")
    saga.when(answered("authorise-payment/do")).then_nothing_happened("not the one that is out")


def test_place_order_never_undoes_a_capture_that_gave_no_answer() -> None:
    saga = authorised().when(*[silence("capture-payment")] * 12).then_is_stuck("capture-payment")
    saga.when(done("capture-payment")).then_asks("sell-stock")


def test_place_order_takes_the_same_reply_once() -> None:
    saga = given(place_order).started(ORDER).when(answered("open-order/do"), answered("open-order/do"))
    saga.then_nothing_happened("awaits no answer: done")


# --- the README's saga, in one call ----------------------------------------------------------------------------------

PAYS: Script = {AuthorisePayment: AUTHORISED}


def test_place_order_completes() -> None:
    order = rehearse(place_order, ORDER, PAYS)
    assert order.status == "completed"
    assert order.asked == [*place_order.steps]
    assert order.undone == []
    assert order.data.authorisation_code == "a-1"
    assert order.took == timedelta(0)
    assert order.commands[2].command == AuthorisePayment(
        hold_id="saga-1", customer_id="c-1", amount=Decimal("19.98"), currency="EUR"
    )


def test_place_order_is_undone_when_the_article_is_sold_out() -> None:
    order = rehearse(place_order, ORDER, {ReserveStock: Refused("out-of-stock", "none left")})
    assert (order.status, order.failure) == ("compensated", "reserve-stock was refused: none left")
    assert [str(one) for one in order.commands] == ["open-order", "reserve-stock", "open-order/undo"]
    assert order.undone == ["open-order"]


def test_place_order_is_undone_in_the_order_of_the_reverse() -> None:
    order = rehearse(place_order, ORDER, {**PAYS, "capture-payment": Refused("expired", "the card has expired")})
    assert order.undone == ["authorise-payment", "reserve-stock", "open-order"]


def test_place_order_waits_for_a_participant_that_is_away() -> None:
    order = rehearse(place_order, ORDER, {**PAYS, SellStock: [SILENCE, SILENCE, StockSold()]})
    assert order.status == "completed"
    assert [one.attempt for one in order.commands if one.step == "sell-stock"] == [1, 2, 3]
    assert timedelta(seconds=13) < order.took < timedelta(seconds=17)


def test_place_order_is_stuck_when_nobody_knows_whether_the_money_was_taken() -> None:
    order = rehearse(place_order, ORDER, {**PAYS, CapturePayment: SILENCE})
    assert order.status == "stuck"
    assert order.stuck == "capture-payment: the command stayed without an answer after 12 attempts"
    assert order.undone == []


def test_place_order_goes_on_when_a_person_has_looked() -> None:
    order = rehearse(
        place_order, ORDER, {**PAYS, CapturePayment: SILENCE}, when_stuck=[Resolved("ada", "the bank says yes")]
    )
    assert order.status == "completed"
    assert order.saga.steps["capture-payment"].by_hand


# --- what fails says why ---------------------------------------------------------------------------------------------


def failure(check: Callable[[], object]) -> str:
    with pytest.raises(AssertionError) as caught:
        check()
    return str(caught.value)


def started() -> Specification:
    return given(travel).started()


def test_a_failure_says_what_was_expected_what_happened_and_how_it_came_to_that() -> None:
    saga = started().when(done("book[0]", price=1))
    assert failure(lambda: saga.then_asks("drive")) == (
        "expected: it sends drive/do\n"
        "happened: it sends nothing\n"
        "the story of travel:\n"
        "  after 0:00:00, it is started: started, expanded book, asked book[0], asked book[1]\n"
        "  after 0:00:00, book[0] is answered done: done book[0]"
    )


def is_stuck() -> Specification:
    return authorised().when(*[silence("capture-payment")] * 12)


FAILURES: list[tuple[Callable[[], object], str, str]] = [
    (lambda: started().then_undoes("book[0]"), "it sends book[0]/undo", "it sends book[0]/do, book[1]/do"),
    (lambda: started().then_sends(("book[0]/do", 2)), "[('book[0]/do', 2)]", "[('book[0]/do', 1), ('book[1]/do', 1)]"),
    (lambda: started().then_sends_nothing(), "nothing", "[('book[0]/do', 1), ('book[1]/do', 1)]"),
    (lambda: started().when(resumed()).then_sends_nothing(), "something happens", "nothing: the saga is not paused"),
    (lambda: started().then_waits_for("approval"), "it waits for approval", "it waits for nothing"),
    (lambda: started().then_next_timer_in(5, 6), "the next timer in 5 to 6 seconds", "it fires in 1 seconds"),
    (lambda: started().when(paused()).then_next_timer_in(5, 6), "the next timer in 5 to 6", "no timer runs"),
    (lambda: started().then_no_timer_runs(), "no timer", "one fires at 2026-01-01 00:00:01+00:00"),
    (lambda: started().when(paused()).then_nothing_happened(), "nothing happens", "paused; sent: nothing"),
    (lambda: started().then_nothing_happened(), "nothing happens", "asked book[1]; sent: saga-1/book[0]/do"),
    (
        lambda: started().when(resumed()).then_nothing_happened("ended"),
        "nothing happens, because of 'ended'",
        "nothing, because: the saga is not paused",
    ),
    (lambda: started().then_logs("started"), "it logs started", "it logs started, expanded, asked, asked"),
    (lambda: started().then_status("stuck"), "status stuck", "status running"),
    (lambda: is_stuck().then_completed(), "status completed", "status stuck (capture-payment: the command stayed"),
    (lambda: started().then_step("pay", "done"), "step pay is done", "it is pending"),
    (lambda: started().then_step("book", "done"), "step book is done", "there is no such step: book[0], book[1]"),
    (lambda: is_stuck().then_is_stuck("tired"), "stuck, with tired in the reason", "stuck: capture-payment: the com"),
    (lambda: started().then_is_stuck(), "status stuck", "status running"),
    (lambda: started().then_knows(total=1), "it knows {'total': 1}", "it knows {'total': 0}"),
    (lambda: started().then_failed("x"), "it turns back, with x in the reason", "failure: None"),
    (lambda: started().then_compensated(), "status compensated", "status running"),
]


@pytest.mark.parametrize(("check", "expected", "happened"), FAILURES)
def test_every_check_can_fail_and_says_why(check: Callable[[], object], expected: str, happened: str) -> None:
    said = failure(check).splitlines()
    assert said[0].startswith("expected: ")
    assert said[1].startswith("happened: ")
    assert expected in said[0]
    assert happened in said[1]


def test_what_was_not_started_cannot_go_on() -> None:
    assert failure(lambda: given(travel).when(done("pay"))) == (
        "travel has not been started: begin with given(…).started(…)"
    )


@pytest.mark.parametrize("happening", [done("buy"), refused("buy"), silence("buy"), timer("buy", 1)])
def test_a_happening_at_a_step_that_is_not_there_names_those_that_are(happening: Happening) -> None:
    said = failure(lambda: started().when(happening))
    assert said == "travel has no step buy: it has book[0], book[1], drive, cool-off, approval, pay, send-tickets"


def test_silence_needs_a_timer() -> None:
    said = failure(lambda: started().when(silence("pay")))
    assert said == "no timer runs for pay, which is pending: silence changes nothing"


def test_a_log_that_is_not_the_truth_is_told() -> None:
    saga = started()
    said = failure(lambda: check_log_is_the_truth(saga.saga, [*saga.log, Paused("ada", "why")]))
    assert said.startswith("expected: replaying the log gives the state")


def test_time_moves_only_when_it_is_told_to() -> None:
    assert started().now == DAWN
    assert started().after(DAY).now == DAWN + DAY
    assert started().when(silence("book[0]")).now == DAWN + timedelta(seconds=1)
