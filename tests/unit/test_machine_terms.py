"""On which terms a saga runs: its deadline, waiting until there is room, and what a fork leaves out."""

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.definition import Saga, reversible, reversible_each, step
from orchestrator.events import DeadlinePassed
from orchestrator.machine import Terms
from orchestrator.model import StepStatus
from orchestrator.testing import (
    DAWN,
    Happening,
    Specification,
    admitted,
    answered,
    cancelled,
    deadline,
    done,
    given,
    paused,
    refused,
    resolved,
    resumed,
    retried,
    silence,
    timer,
)
from tests.support.order_story import (
    FEW,
    CapturePayment,
    OpenOrder,
    Order,
    RejectOrder,
    capture_payment,
    confirm_order,
    open_order,
    opened,
    paid,
    place_order,
    reject_order,
)

HOUR = timedelta(hours=1)
RISE = DAWN + HOUR

hurried = Saga(
    name="hurried",
    data=Order,
    reversible=place_order.reversible,
    pivot=step(capture_payment, policy=FEW),
    retriable=(step(confirm_order, policy=FEW),),
    deadline=HOUR,
)


def hurried_on() -> Specification:
    """The order is open, with an hour to go."""
    return given(hurried).started().when(done("open-order"))


# --- the deadline ----------------------------------------------------------------------------------------------------


def test_the_deadline_turns_a_saga_back_and_does_not_kill_it() -> None:
    saga = hurried_on().when(done("reserve-stock")).when(deadline())
    saga.then_logs("compensation-started", "undo-asked", "undo-asked")
    saga.then_undoes("reserve-stock", "authorise-payment").then_failed("its deadline of 1:00:00 has passed")
    saga.when(done("reserve-stock"), done("authorise-payment"), done("open-order")).then_compensated()


def test_the_deadline_is_a_timer_of_the_saga() -> None:
    patient = Saga("patient", Order, (reversible(open_order, undo=reject_order),), None, deadline=timedelta(seconds=7))
    saga = given(patient).started().then_next_timer_in(4, 6).when(silence("open-order"))
    saga.then_next_timer_in(1, 3)
    assert saga.saga.due_at == DAWN + timedelta(seconds=7)


def test_a_deadline_that_comes_early_changes_nothing() -> None:
    saga = hurried_on()
    early = Happening("the deadline comes early", lambda _: DeadlinePassed())
    saga.when(early).then_nothing_happened("the deadline is not before")


def test_a_deadline_comes_once() -> None:
    hurried_on().when(deadline(), deadline()).then_nothing_happened("no deadline runs")


def test_the_deadline_no_longer_counts_once_the_pivot_was_asked() -> None:
    saga = hurried_on().when(done("reserve-stock"), paid).then_asks("capture-payment").then_next_timer_in(1, 1)
    saga.after(2 * HOUR).when(deadline()).then_nothing_happened("no deadline runs")
    saga.when(done("capture-payment"), deadline()).then_nothing_happened("no deadline runs")
    saga.when(done("confirm-order")).then_completed()


def test_the_deadline_no_longer_counts_when_a_person_has_answered_for_a_pivot_that_was_never_asked() -> None:
    ill = Saga("ill", Order, (reversible(open_order, undo=reject_order),), step(no_payment), deadline=HOUR)
    saga = given(ill).started().when(done("open-order")).then_is_stuck("no-payment").when(resolved("no-payment"))
    saga.then_logs("done-by-hand", "completed").then_completed()
    after = step(confirm_order)
    ill = Saga("ill", Order, (reversible(open_order, undo=reject_order),), step(no_payment), (after,), deadline=HOUR)
    saga = given(ill).started().when(done("open-order"), resolved("no-payment")).then_asks("confirm-order")
    saga.after(2 * HOUR).when(deadline()).then_nothing_happened("no deadline runs")
    saga.when(timer("confirm-order", 1)).then_sends(("confirm-order/do", 2))


def no_payment(order: Order) -> CapturePayment:
    raise ZeroDivisionError("no_payment")


def test_a_saga_without_a_deadline_has_none() -> None:
    opened().after(1000 * HOUR).when(deadline()).then_nothing_happened("no deadline runs")


def test_the_deadline_of_a_paused_saga_waits_until_it_is_resumed_and_then_counts_before_anything_is_asked() -> None:
    saga = hurried_on().when(done("reserve-stock"), paused(), paid).then_no_timer_runs()
    saga.when(deadline()).then_nothing_happened("no deadline runs")
    saga.when(resumed()).then_logs("resumed", "compensation-started", "undo-asked", "undo-asked")
    saga.then_undoes("reserve-stock", "authorise-payment").then_failed("deadline")


def test_a_reply_that_comes_after_the_deadline_and_before_its_timer_asks_nothing_more() -> None:
    saga = hurried_on().when(paid).after(2 * HOUR).when(done("reserve-stock"))
    saga.then_undoes("reserve-stock", "authorise-payment").then_failed("deadline")


def test_nothing_is_asked_again_after_the_deadline_just_before_it_is_undone() -> None:
    saga = hurried_on().when(done("reserve-stock")).after(2 * HOUR).when(timer("authorise-payment", 1))
    saga.then_undoes("reserve-stock", "authorise-payment").then_failed("deadline")


def test_a_retry_after_the_deadline_turns_back_and_asks_nothing_again() -> None:
    first = reversible(open_order, undo=reject_order, policy=FEW, if_unknown="stick")
    stuck = Saga("stuck", Order, (first,), step(capture_payment), deadline=HOUR)
    saga = given(stuck).started().when(*[silence("open-order")] * 3).after(2 * HOUR).when(retried())
    saga.then_logs("retry-ordered", "compensation-started", "undo-asked").then_undoes("open-order")


def test_the_deadline_moves_a_saga_that_is_stuck_before_the_pivot() -> None:
    first = reversible(open_order, undo=reject_order, policy=FEW, if_unknown="stick")
    stuck = Saga("stuck", Order, (first,), step(capture_payment), deadline=HOUR)
    saga = given(stuck).started().when(*[silence("open-order")] * 3).then_is_stuck().then_next_timer_in(3593, 3593)
    saga.when(deadline()).then_undoes("open-order").then_status("compensating")


def test_the_deadline_does_not_count_on_the_way_back() -> None:
    saga = hurried_on().when(refused("reserve-stock")).then_next_timer_in(1, 1)
    saga.after(2 * HOUR).when(deadline()).then_nothing_happened("no deadline runs")


def test_a_saga_that_has_ended_has_no_deadline() -> None:
    saga = given(hurried).started().when(refused("open-order")).then_compensated()
    saga.when(deadline()).then_nothing_happened("the saga has ended")


# --- waiting to begin ------------------------------------------------------------------------------------------------


def test_a_saga_that_waits_begins_when_it_is_admitted() -> None:
    saga = given(place_order).started_on(Terms(waits=True)).then_logs("started").then_sends_nothing()
    saga.then_status("waiting").then_no_timer_runs()
    saga.when(admitted()).then_logs("begun", "asked").then_asks("open-order").then_status("running")
    saga.when(admitted()).then_nothing_happened("the saga does not wait to begin")


def test_a_saga_that_does_not_wait_cannot_be_admitted() -> None:
    opened().when(admitted()).then_nothing_happened("the saga does not wait to begin")


def test_a_saga_begins_not_before_its_time() -> None:
    saga = given(place_order).started_on(Terms(waits=True, begins_at=RISE)).when(admitted())
    saga.then_nothing_happened("the saga does not begin before")
    saga.after(HOUR).when(admitted()).then_asks("open-order")


def test_a_saga_that_waits_and_is_paused_is_not_admitted() -> None:
    saga = given(place_order).started_on(Terms(waits=True)).when(paused()).then_status("paused")
    saga.when(admitted()).then_nothing_happened("the saga is paused by ada")
    saga.when(resumed()).then_status("waiting").then_sends_nothing().when(admitted()).then_asks("open-order")


def test_a_saga_that_waits_may_be_cancelled_and_then_cannot_begin() -> None:
    saga = given(place_order).started_on(Terms(waits=True)).when(cancelled())
    saga.then_logs("cancel-ordered", "compensation-started", "compensated").then_compensated()
    saga.when(admitted()).then_nothing_happened("the saga has ended")


def test_the_deadline_counts_from_when_a_saga_begins() -> None:
    saga = given(hurried).started_on(Terms(waits=True)).after(2 * HOUR)
    saga.when(deadline()).then_nothing_happened("no deadline runs")
    saga.when(admitted()).then_asks("open-order")
    assert saga.saga.deadline_at == DAWN + 3 * HOUR


@pytest.mark.parametrize(
    "early", [answered("open-order/do"), timer("open-order", 1), retried(), resolved("open-order"), resolved()]
)
def test_a_saga_that_waits_heeds_nothing_else(early: Happening) -> None:
    given(place_order).started_on(Terms(waits=True)).when(early).then_nothing_happened().then_status("waiting")


# --- forks -----------------------------------------------------------------------------------------------------------

BEFORE_PAYMENT = Terms(fork_of="saga-0", taken_over=("open-order", "reserve-stock", "authorise-payment"))
AFTER_PAYMENT = Terms(fork_of="saga-0", taken_over=(*BEFORE_PAYMENT.taken_over, "capture-payment"))


def forked(terms: Terms, definition: Saga[Order] = place_order) -> Specification:
    return given(definition).started_on(terms, Order(saga_id="saga-0", authorisation="a-0"))


def test_a_fork_keeps_the_data_ids_included_and_goes_on_from_its_step() -> None:
    saga = forked(BEFORE_PAYMENT).then_asks("capture-payment").then_knows(saga_id="saga-0", authorisation="a-0")
    assert saga.saga.fork_of == "saga-0"
    saga.then_sends(("capture-payment/do", 1)).then_step("open-order", StepStatus.SKIPPED)
    saga.when(done("capture-payment"), done("confirm-order")).then_completed()


def test_a_fork_does_not_undo_what_stays_anothers() -> None:
    forked(BEFORE_PAYMENT).when(refused("capture-payment")).then_sends_nothing().then_compensated()


def test_a_fork_that_begins_after_the_pivot_cannot_turn_back() -> None:
    saga = forked(AFTER_PAYMENT, hurried).then_asks("confirm-order").then_next_timer_in(1, 1)
    saga.when(cancelled()).then_nothing_happened("it is past its point of no return: capture-payment is skipped")
    saga.after(2 * HOUR).when(deadline()).then_nothing_happened("no deadline runs")
    saga.when(done("confirm-order")).then_completed()


def test_a_fork_that_waits_and_begins_after_the_pivot_has_no_deadline_either() -> None:
    saga = forked(replace(AFTER_PAYMENT, waits=True), hurried).when(admitted()).then_asks("confirm-order")
    assert saga.saga.deadline_at is None


def test_a_fork_before_the_pivot_has_the_deadline_of_its_definition() -> None:
    saga = forked(Terms(fork_of="saga-0", taken_over=("open-order",)), hurried).then_asks(
        "reserve-stock", "authorise-payment"
    )
    saga.when(deadline()).then_undoes("reserve-stock", "authorise-payment")


def test_a_fork_of_everything_has_nothing_left_to_do() -> None:
    forked(replace(AFTER_PAYMENT, taken_over=(*place_order.steps,))).then_logs("started", "completed").then_completed()


def test_a_step_with_items_may_be_another_sagas_too() -> None:
    rooms = reversible_each(lambda _: (1, 2), book_room, undo=free_room)
    saga = given(Saga("rooms", Order, (rooms,), step(capture_payment)))
    saga.started_on(Terms(fork_of="saga-0", taken_over=("book-room",))).then_asks("capture-payment")


def book_room(order: Order, room: int) -> OpenOrder:
    return OpenOrder(order=f"{order.saga_id}-{room}")


def free_room(order: Order, room: int) -> RejectOrder:
    return RejectOrder(order=f"{order.saga_id}-{room}")
