"""What people may order a saga to do, and what comes of it."""

from datetime import timedelta

import pytest

from orchestrator.definition import Saga, reversible, step
from orchestrator.entries import CancelOrdered, DoneByHand, UndoneByHand
from orchestrator.machine import UnreadableReply
from orchestrator.model import StepStatus
from orchestrator.testing import (
    SAGA_ID,
    Happening,
    answered,
    cancelled,
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
    OpenOrder,
    Order,
    capture_payment,
    compensated,
    completed,
    opened,
    paid,
    past_the_pivot,
    place_order,
    prepared,
    reject_order,
)

# --- a person's retry --------------------------------------------------------------------------------------------


def test_a_retry_asks_a_silent_step_again_under_the_same_id_and_starts_its_policy_anew() -> None:
    saga = prepared().when(*[silence("capture-payment")] * 3).when(retried("ada", "bank is back"))
    saga.then_logs("retry-ordered", "asked").then_sends(("capture-payment/do", 4)).then_next_timer_in(1, 1)
    saga.when(*[silence("capture-payment")] * 2).then_sends(("capture-payment/do", 6)).then_status("running")
    saga.when(silence("capture-payment")).then_is_stuck("after 6 attempts")


def test_a_retry_asks_a_refused_undo_again_under_a_new_id() -> None:
    saga = given(place_order).started().when(*[silence("open-order")] * 3)
    saga.when(*[refused("open-order"), silence("open-order")] * 3).then_is_stuck("the undo was refused")
    saga.when(retried()).then_sends(("open-order/undo/4", 4)).then_status("compensating")
    saga.when(done("open-order")).then_compensated()


def test_a_retry_asks_a_refused_retriable_step_again_under_a_new_id() -> None:
    saga = past_the_pivot().when(*[refused("confirm-order"), silence("confirm-order")] * 3)
    saga.when(retried()).then_sends(("confirm-order/do/4", 4))
    saga.when(done("confirm-order")).then_completed()


def test_a_retry_of_what_is_not_stuck_is_ignored() -> None:
    opened().when(retried()).then_nothing_happened("nothing is stuck")


def test_a_retry_leaves_what_is_not_stuck_alone() -> None:
    saga = prepared().when(refused("capture-payment"), *[silence("reserve-stock")] * 3)
    saga.then_is_stuck("reserve-stock").when(retried()).then_undoes("reserve-stock")


def test_a_retry_of_a_paused_saga_says_to_resume_it_first() -> None:
    saga = prepared().when(*[silence("capture-payment")] * 3, paused())
    saga.when(retried()).then_nothing_happened("the saga is paused: resume it first")
    saga.when(resumed()).then_sends_nothing().when(retried()).then_sends(("capture-payment/do", 4))


# --- cancel ------------------------------------------------------------------------------------------------------


def test_a_cancel_before_the_pivot_turns_back_and_says_who_and_why() -> None:
    saga = opened().when(paid, cancelled("ada", "wrong address"))
    saga.then_logs("cancel-ordered", "compensation-started", "undo-asked", "undo-asked")
    saga.then_undoes("reserve-stock", "authorise-payment").then_failed("cancelled by ada: wrong address")
    assert CancelOrdered("ada", "wrong address") in saga.log


def test_a_reply_to_what_a_cancel_undoes_comes_too_late() -> None:
    saga = opened().when(cancelled(), answered("reserve-stock/do"))
    saga.then_nothing_happened("not the one that is out")


def test_a_second_cancel_changes_nothing() -> None:
    opened().when(cancelled(), cancelled()).then_nothing_happened("the saga turns back already")


def test_a_cancel_does_not_turn_back_once_the_pivot_was_asked() -> None:
    prepared().when(cancelled()).then_nothing_happened("its pivot capture-payment was asked and may have happened")


def test_a_cancel_does_not_turn_back_after_the_pivot() -> None:
    saga = past_the_pivot().when(cancelled())
    saga.then_nothing_happened("it is past its point of no return: capture-payment is done")


def test_a_person_may_vouch_that_a_stuck_pivot_did_not_happen() -> None:
    saga = prepared().when(*[silence("capture-payment")] * 3)
    saga.when(cancelled()).then_nothing_happened("may have happened")
    saga.when(cancelled("ada", "the bank says no", pivot_did_not_happen=True))
    saga.then_logs("cancel-ordered", "refused", "compensation-started", "undo-asked", "undo-asked")
    saga.then_undoes("reserve-stock", "authorise-payment")
    saga.then_failed("capture-payment was refused: ada says that it did not happen: the bank says no")
    saga.when(answered("capture-payment/do")).then_nothing_happened("awaits no answer: refused")


def test_nobody_can_vouch_for_a_pivot_that_is_still_being_asked_or_is_done() -> None:
    vouched = cancelled(pivot_did_not_happen=True)
    prepared().when(vouched).then_nothing_happened("was asked and may have happened")
    past_the_pivot().when(vouched).then_nothing_happened("past its point of no return")


def test_to_vouch_for_a_pivot_that_was_never_asked_is_a_plain_cancel() -> None:
    saga = opened().when(cancelled(pivot_did_not_happen=True)).then_undoes("reserve-stock", "authorise-payment")
    saga.then_failed("cancelled by ada")


def test_a_cancel_of_what_could_not_be_built_leaves_nothing_stuck() -> None:
    saga = given(UNBUILDABLE).started().then_is_stuck("no_order").when(cancelled()).then_compensated()
    assert saga.saga.stuck is None


def no_order(order: Order) -> OpenOrder:
    raise ZeroDivisionError("no_order")


UNBUILDABLE = Saga("unbuildable", Order, (reversible(no_order, undo=reject_order),), step(capture_payment))


# --- pause and resume --------------------------------------------------------------------------------------------


def test_a_paused_saga_takes_note_of_what_happens_and_sends_nothing() -> None:
    saga = opened().when(paused("ada", "an audit")).then_logs("paused").then_sends_nothing().then_status("paused")
    saga.when(done("reserve-stock")).then_logs("done").then_sends_nothing()
    saga.when(paid).then_logs("done").then_sends_nothing().then_knows(authorisation="a-1")
    saga.when(resumed("grace", "audited")).then_logs("resumed", "asked").then_asks("capture-payment")
    saga.then_status("running")


def test_a_paused_saga_has_no_timers_and_what_fires_all_the_same_changes_nothing() -> None:
    saga = opened().when(paused()).then_no_timer_runs().after(timedelta(hours=1))
    saga.when(timer("reserve-stock", 1)).then_nothing_happened("the saga is paused by ada")
    saga.when(resumed()).then_logs("resumed").then_next_timer_in(-3600, -3599)
    saga.when(timer("reserve-stock", 1)).then_sends(("reserve-stock/do", 2))


def test_a_refusal_that_comes_while_it_is_paused_turns_back_when_it_is_resumed() -> None:
    saga = opened().when(paused(), refused("reserve-stock", "sold out")).then_logs("refused").then_status("paused")
    saga.when(resumed()).then_undoes("authorise-payment").then_failed("sold out").then_status("compensating")


def test_a_refused_pivot_may_be_cancelled_while_the_saga_is_paused() -> None:
    saga = prepared().when(paused(), refused("capture-payment"), cancelled()).then_sends_nothing()
    saga.when(resumed()).then_undoes("reserve-stock", "authorise-payment")


def test_a_cancel_while_it_is_paused_turns_back_when_it_is_resumed() -> None:
    saga = opened().when(paused(), cancelled()).then_logs("cancel-ordered", "compensation-started")
    saga.then_sends_nothing().then_status("paused")
    saga.when(resumed()).then_undoes("reserve-stock", "authorise-payment")


def test_a_pivot_that_is_vouched_for_while_it_is_paused_turns_back_when_it_is_resumed() -> None:
    vouched = cancelled(pivot_did_not_happen=True)
    saga = prepared().when(*[silence("capture-payment")] * 3, paused(), vouched).then_sends_nothing()
    saga.when(vouched).then_nothing_happened("the saga turns back already").then_status("paused")
    saga.when(resumed()).then_undoes("reserve-stock", "authorise-payment").then_failed(
        "ada says that it did not happen"
    )


def test_the_way_back_may_be_paused_too() -> None:
    saga = opened().when(refused("reserve-stock"), paused(), done("authorise-payment")).then_sends_nothing()
    saga.then_status("paused").when(resumed()).then_undoes("open-order").when(done("open-order")).then_compensated()


def test_a_saga_cannot_be_paused_twice_nor_resumed_twice() -> None:
    saga = opened().when(paused("ada"), paused("grace")).then_nothing_happened("paused already, by ada")
    saga.when(resumed(), resumed()).then_nothing_happened("the saga is not paused")
    opened().when(resumed()).then_nothing_happened("the saga is not paused")


def test_a_stuck_saga_that_is_paused_is_stuck_again_when_it_is_resumed() -> None:
    saga = prepared().when(*[silence("capture-payment")] * 3, paused()).then_status("paused")
    saga.when(resumed()).then_is_stuck("capture-payment")


# --- mark resolved -----------------------------------------------------------------------------------------------


def test_a_person_may_answer_for_a_step_with_the_reply_that_did_not_come() -> None:
    saga = opened().when(done("reserve-stock"), resolved("authorise-payment", authorisation="by-hand"))
    saga.then_logs("done-by-hand", "asked").then_asks("capture-payment").then_knows(authorisation="by-hand")
    kept = {**Order(authorisation="by-hand").model_dump(), "saga_id": SAGA_ID}
    assert DoneByHand("authorise-payment", "ada", "seen to it by hand", kept) in saga.log
    assert saga.saga.steps["authorise-payment"].by_hand
    saga.when(answered("authorise-payment/do", authorisation="late")).then_nothing_happened("awaits no answer: done")


def test_a_reply_given_by_hand_must_be_one() -> None:
    saga = opened()
    before = saga.saga
    with pytest.raises(UnreadableReply, match="the reply to authorise-payment cannot be read: authorisation"):
        saga.when(resolved("authorise-payment"))
    assert saga.saga is before


def test_what_is_done_by_hand_is_undone_like_anything_else() -> None:
    opened().when(resolved("reserve-stock"), refused("authorise-payment")).then_undoes("reserve-stock")


def test_a_person_may_answer_for_a_stuck_pivot() -> None:
    saga = prepared().when(*[silence("capture-payment")] * 3, resolved("capture-payment"))
    saga.then_asks("confirm-order").then_status("running")


def test_a_person_may_answer_for_all_that_is_stuck_at_once() -> None:
    saga = prepared().when(refused("capture-payment"))
    saga.when(*[silence("reserve-stock")] * 3, *[silence("authorise-payment")] * 3).then_status("stuck")
    saga.when(resolved()).then_logs("undone-by-hand", "undone-by-hand", "undo-asked").then_undoes("open-order")
    assert UndoneByHand("reserve-stock", "ada", "seen to it by hand") in saga.log
    saga.when(answered("reserve-stock/undo")).then_nothing_happened("not the one that is out")


def test_a_person_may_answer_for_an_undo_that_is_out_or_was_refused() -> None:
    saga = prepared().when(refused("capture-payment"), refused("reserve-stock"))
    saga.when(resolved("reserve-stock")).then_logs("undone-by-hand").then_sends_nothing()
    saga.when(resolved("authorise-payment")).then_undoes("open-order")


def test_a_person_may_answer_for_a_refused_retriable_step() -> None:
    past_the_pivot().when(refused("confirm-order"), resolved("confirm-order")).then_completed()


def test_a_person_may_answer_for_a_step_that_could_not_be_built() -> None:
    saga = given(UNBUILDABLE).started().then_is_stuck("no_order")
    saga.when(resolved()).then_logs("done-by-hand", "asked").then_asks("capture-payment")


def test_what_is_not_under_way_cannot_be_answered_for() -> None:
    opened().when(resolved("capture-payment")).then_nothing_happened("step capture-payment is not under way: pending")
    opened().when(resolved("open-order")).then_nothing_happened("step open-order is not under way: done")
    back = opened().when(refused("reserve-stock"))
    back.when(resolved("reserve-stock")).then_nothing_happened("step reserve-stock is not under way: refused")
    back.when(resolved("open-order")).then_nothing_happened("step open-order is not under way: done")


def test_an_answer_for_a_step_that_is_not_there_names_those_that_are() -> None:
    opened().when(resolved("no-such-step")).then_nothing_happened(
        "the saga has no step no-such-step: it has open-order"
    )


def test_an_answer_for_all_when_nothing_is_stuck_changes_nothing() -> None:
    opened().when(resolved()).then_nothing_happened("nothing is stuck")


def test_an_answer_while_it_is_paused_is_noted_and_sends_nothing() -> None:
    saga = prepared().when(paused(), resolved("capture-payment")).then_logs("done-by-hand").then_sends_nothing()
    saga.when(resumed()).then_asks("confirm-order")


@pytest.mark.parametrize("order", [retried(), cancelled(), paused(), resumed(), resolved(), resolved("open-order")])
def test_an_ended_saga_obeys_nobody(order: Happening) -> None:
    completed().when(order).then_nothing_happened("the saga has ended: completed")
    compensated().when(order).then_nothing_happened("the saga has ended: compensated")


def test_a_person_answers_for_one_direction_only() -> None:
    stuck = prepared().when(*[silence("capture-payment")] * 3, cancelled(pivot_did_not_happen=True))
    stuck.when(resolved("reserve-stock")).then_step("reserve-stock", StepStatus.UNDONE)
    stuck.when(resolved("capture-payment")).then_nothing_happened("not under way: refused")
