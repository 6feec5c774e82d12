"""The story of the state machine, told on one order."""

from datetime import timedelta
from typing import Literal

import pytest

from orchestrator.definition import Policy, Saga, parallel, reversible, step
from orchestrator.entries import Completed, Done, Entry, Started, Stuck
from orchestrator.machine import PHASES, TRANSITIONS, evolve, replay
from orchestrator.model import ENDED, Phase, StepStatus
from orchestrator.testing import (
    DAWN,
    SAGA_ID,
    Specification,
    answered,
    cancelled,
    done,
    given,
    refused,
    retried,
    silence,
)
from tests.support.order_story import (
    FEW,
    CapturePayment,
    ConfirmOrder,
    OpenOrder,
    Order,
    VoidPayment,
    capture_payment,
    compensated,
    completed,
    confirm_order,
    open_order,
    opened,
    paid,
    past_the_pivot,
    place_order,
    prepared,
    reject_order,
)

# --- going forward -----------------------------------------------------------------------------------------------


def test_it_asks_stage_by_stage_until_it_is_completed() -> None:
    saga = given(place_order).started(customer="grace").then_asks("open-order").then_status("running")
    saga.when(done("open-order")).then_asks("reserve-stock", "authorise-payment")
    saga.when(done("reserve-stock"), paid).then_asks("capture-payment")
    saga.when(done("capture-payment")).then_asks("confirm-order")
    saga.when(done("confirm-order")).then_logs("done", "completed").then_completed()
    saga.then_knows(customer="grace", authorisation="a-1", saga_id=SAGA_ID)


def test_a_parallel_stage_waits_for_all_its_branches() -> None:
    opened().when(paid).then_sends_nothing().when(done("reserve-stock")).then_asks("capture-payment")
    opened().when(done("reserve-stock")).then_sends_nothing().when(paid).then_asks("capture-payment")


def test_a_command_is_built_from_what_replies_have_added() -> None:
    saga = prepared()
    assert saga.last.dispatches[0].command == CapturePayment(authorisation="a-1")


def test_a_saga_is_accepted_with_an_id_from_which_commands_are_built() -> None:
    saga = given(place_order).started(saga_id="forged")
    assert saga.last.dispatches[0].command == OpenOrder(order=SAGA_ID)


def test_it_records_which_definition_it_runs_under() -> None:
    saga = given(place_order).started().saga
    recorded = (saga.definition, saga.version, saga.fingerprint)
    assert recorded == ("place-order", 1, place_order.fingerprint)


# --- refused: undone in the order of the reverse ------------------------------------------------------------------


def test_a_refusal_at_once_leaves_nothing_to_undo() -> None:
    saga = given(place_order).started().when(refused("open-order", "closed on Sundays"))
    saga.then_logs("refused", "compensation-started", "compensated").then_compensated()
    assert saga.saga.failure == "open-order was refused: closed on Sundays"


def test_a_refusal_in_a_parallel_stage_undoes_the_sibling_and_then_the_stage_before() -> None:
    saga = opened().when(paid, refused("reserve-stock")).then_undoes("authorise-payment")
    saga.when(done("authorise-payment")).then_undoes("open-order")
    saga.when(done("open-order")).then_logs("undone", "compensated").then_compensated()


def test_a_sibling_in_flight_is_undone_though_it_has_not_answered() -> None:
    saga = opened().when(refused("reserve-stock", "sold out"))
    saga.then_undoes("authorise-payment").then_status("compensating")
    saga.when(answered("authorise-payment/do", authorisation="late")).then_nothing_happened()
    saga.then_knows(authorisation="")
    saga.when(answered("authorise-payment/undo")).then_undoes("open-order")


def test_when_both_branches_are_refused_only_the_stage_before_is_undone() -> None:
    saga = opened().when(refused("reserve-stock"))
    saga.when(answered("authorise-payment/do", "refused")).then_nothing_happened()
    saga.when(done("authorise-payment")).then_undoes("open-order")


def test_a_refusal_of_the_pivot_undoes_everything_stage_by_stage() -> None:
    saga = prepared().when(refused("capture-payment")).then_undoes("reserve-stock", "authorise-payment")
    saga.when(done("authorise-payment")).then_sends_nothing()
    saga.when(done("reserve-stock")).then_undoes("open-order")
    saga.when(done("open-order")).then_compensated().then_step("capture-payment", StepStatus.REFUSED)


def test_an_undo_names_the_command_that_it_takes_back() -> None:
    saga = opened().when(refused("reserve-stock"))
    undo = saga.last.dispatches[0]
    assert (undo.command, undo.undoes) == (VoidPayment(payment=SAGA_ID), "saga-1/authorise-payment/do")
    assert {one.undoes for one in saga.sent[:-1]} == {None}


def test_what_was_refused_gives_no_more_commands_forward() -> None:
    saga = opened().when(refused("reserve-stock"), done("authorise-payment"), done("open-order"))
    assert [one.command_id for one in saga.sent] == [
        "saga-1/open-order/do",
        "saga-1/reserve-stock/do",
        "saga-1/authorise-payment/do",
        "saga-1/authorise-payment/undo",
        "saga-1/open-order/undo",
    ]


# --- unknown: asked again, then given up -------------------------------------------------------------------------


def test_silence_is_asked_again_under_the_same_id_with_a_fresh_attempt() -> None:
    saga = given(place_order).started().then_sends(("open-order/do", 1))
    saga.when(silence("open-order")).then_sends(("open-order/do", 2)).then_status("running")
    saga.when(silence("open-order")).then_sends(("open-order/do", 3)).then_status("running")
    saga.when(done("open-order")).then_asks("reserve-stock", "authorise-payment")


def test_the_next_timer_of_a_saga_is_the_earliest_of_its_steps() -> None:
    opened().when(silence("reserve-stock")).then_next_timer_in(0, 0)
    opened().when(silence("reserve-stock"), paid).then_next_timer_in(2, 2)


def test_a_reversible_step_that_stays_unknown_is_given_up_and_undone_itself() -> None:
    saga = given(place_order).started().when(*[silence("open-order")] * 3)
    saga.then_logs("given-up", "compensation-started", "undo-asked").then_undoes("open-order")
    assert saga.saga.failure == "open-order gave no answer: its policy is spent"
    saga.when(done("open-order")).then_compensated()


def test_giving_up_undoes_the_unknown_step_together_with_its_sibling_that_is_done() -> None:
    saga = opened().when(paid, *[silence("reserve-stock")] * 3)
    saga.then_undoes("reserve-stock", "authorise-payment")
    saga.when(done("reserve-stock"), done("authorise-payment")).then_undoes("open-order")


@pytest.mark.parametrize("outcome", ["done", "refused"])
def test_a_reply_after_giving_up_changes_nothing(outcome: Literal["done", "refused"]) -> None:
    saga = given(place_order).started().when(*[silence("open-order")] * 3)
    saga.when(answered("open-order/do", outcome)).then_nothing_happened("not the one that is out")
    saga.when(answered("open-order/undo")).then_compensated()


def test_the_pivot_is_asked_again_with_growing_waits_and_then_stuck_never_undone() -> None:
    saga = prepared().then_next_timer_in(1, 1)
    saga.when(silence("capture-payment")).then_sends(("capture-payment/do", 2)).then_next_timer_in(2, 2)
    saga.when(silence("capture-payment")).then_sends(("capture-payment/do", 3)).then_next_timer_in(4, 4)
    saga.when(silence("capture-payment")).then_logs("stuck")
    saga.then_is_stuck("capture-payment: the command stayed without an answer after 3 attempts")
    assert saga.saga.due_at is None


def test_a_late_reply_frees_a_stuck_pivot() -> None:
    stuck = prepared().when(*[silence("capture-payment")] * 3)
    stuck.when(done("capture-payment")).then_asks("confirm-order").then_status("running")
    stuck.when(done("confirm-order")).then_completed()


def test_a_late_refusal_of_a_stuck_pivot_starts_the_way_back() -> None:
    stuck = prepared().when(*[silence("capture-payment")] * 3)
    stuck.when(refused("capture-payment")).then_undoes("reserve-stock", "authorise-payment")
    stuck.then_status("compensating")


def test_a_reversible_step_that_sticks_when_unknown_leaves_it_to_a_person() -> None:
    saga = careful().when(*[silence("open-order")] * 3).then_logs("stuck").then_no_timer_runs()
    saga.then_is_stuck("open-order: the command stayed without an answer after 3 attempts")
    saga.when(done("open-order")).then_asks("capture-payment").then_status("running")


def test_a_late_refusal_of_what_sticks_when_unknown_leaves_nothing_to_undo() -> None:
    careful().when(*[silence("open-order")] * 3, refused("open-order")).then_compensated()


def test_a_cancel_of_what_sticks_when_unknown_undoes_it_for_it_may_have_happened() -> None:
    saga = careful().when(*[silence("open-order")] * 3, cancelled()).then_undoes("open-order")
    saga.when(done("open-order")).then_compensated()


def careful() -> Specification:
    first = reversible(open_order, undo=reject_order, policy=FEW, if_unknown="stick")
    return given(Saga(name="careful", data=Order, reversible=(first,), pivot=step(capture_payment))).started()


def test_a_stuck_branch_does_not_hold_back_its_sibling() -> None:
    saga = given(two_pushes).started().when(done("capture-payment")).then_asks("push-one", "push-two")
    saga.when(*[silence("push-one")] * 3).then_is_stuck("push-one")
    saga.when(refused("push-two"), silence("push-two")).then_sends(("push-two/do/2", 2))
    saga.when(done("push-two")).then_is_stuck("push-one").when(done("push-one")).then_completed()


def push_one(order: Order) -> ConfirmOrder:
    return ConfirmOrder(order=order.saga_id)


def push_two(order: Order) -> ConfirmOrder:
    return ConfirmOrder(order=order.saga_id)


two_pushes = Saga(
    name="two-pushes",
    data=Order,
    reversible=(),
    pivot=step(capture_payment, policy=FEW),
    retriable=(parallel(step(push_one, policy=FEW), step(push_two, policy=FEW)),),
)


# --- what must succeed -------------------------------------------------------------------------------------------


def test_a_refused_retriable_step_waits_and_is_asked_again_under_a_new_id() -> None:
    saga = past_the_pivot().when(refused("confirm-order")).then_sends_nothing()
    saga.then_status("running").then_next_timer_in(1, 1)
    saga.when(silence("confirm-order")).then_sends(("confirm-order/do/2", 2))
    saga.when(answered("confirm-order/do")).then_nothing_happened("not the one that is out")
    saga.when(answered("confirm-order/do/2")).then_completed()


def test_a_retriable_step_that_is_always_refused_gets_stuck_and_nothing_is_undone() -> None:
    refuse, wait = refused("confirm-order"), silence("confirm-order")
    saga = past_the_pivot().when(refuse, wait, refuse, wait, refuse).then_status("running")
    saga.when(wait).then_is_stuck("confirm-order: the command was refused after 3 attempts")
    assert [one for one in saga.sent if one.undoes] == []


IMPATIENT = Policy(
    timeout=timedelta(seconds=30),
    first_delay=timedelta(seconds=2),
    attempts=3,
    jitter=0,
    not_retried=frozenset({"gone"}),
)


def impatient() -> Specification:
    first = reversible(open_order, undo=reject_order, undo_policy=IMPATIENT)
    last = step(confirm_order, policy=IMPATIENT)
    saga = Saga(name="impatient", data=Order, reversible=(first,), pivot=step(capture_payment), retriable=(last,))
    return given(saga).started().when(done("open-order"))


def test_a_refusal_is_asked_again_after_a_delay_of_its_own_and_silence_after_the_timeout() -> None:
    saga = impatient().when(done("capture-payment")).then_next_timer_in(30, 30)
    saga.when(refused("confirm-order")).then_next_timer_in(2, 2)
    saga.when(silence("confirm-order")).then_sends(("confirm-order/do/2", 2)).then_next_timer_in(60, 60)
    saga.when(refused("confirm-order")).then_next_timer_in(4, 4)


def test_a_refusal_that_is_not_retried_is_stuck_at_once_until_a_person_retries() -> None:
    saga = impatient().when(done("capture-payment"), refused("confirm-order", "no such order", code="gone"))
    saga.then_logs("refused", "stuck").then_no_timer_runs().then_sends_nothing()
    saga.then_is_stuck("confirm-order: it was refused with gone, which is not retried: no such order")
    saga.when(retried()).then_sends(("confirm-order/do/2", 2)).when(done("confirm-order")).then_completed()


def test_an_undo_that_is_refused_and_not_retried_is_stuck_at_once() -> None:
    saga = impatient().when(refused("capture-payment"), refused("open-order", code="gone"))
    saga.then_logs("undo-refused", "stuck").then_is_stuck("open-order", "gone")
    saga.when(retried()).then_sends(("open-order/undo/2", 2)).when(done("open-order")).then_compensated()


def test_a_refused_undo_is_asked_again_under_a_new_id_and_then_stuck() -> None:
    saga = opened().when(done("reserve-stock"), refused("authorise-payment")).then_undoes("reserve-stock")
    refuse, wait = refused("reserve-stock"), silence("reserve-stock")
    saga.when(refuse).then_logs("undo-refused").then_status("compensating")
    assert saga.saga.command_id("reserve-stock") == "saga-1/reserve-stock/undo"
    saga.when(wait).then_sends(("reserve-stock/undo/2", 2))
    saga.when(refuse).then_next_timer_in(2, 2)
    saga.when(wait).then_sends(("reserve-stock/undo/3", 3))
    saga.when(refuse, wait).then_is_stuck("reserve-stock: the undo was refused after 3 attempts")


def test_it_is_never_compensated_while_an_undo_is_not_answered() -> None:
    saga = given(place_order).started().when(*[silence("open-order")] * 3)
    saga.when(silence("open-order")).then_sends(("open-order/undo", 2)).then_status("compensating")
    saga.when(silence("open-order")).then_sends(("open-order/undo", 3)).then_status("compensating")
    saga.when(silence("open-order")).then_is_stuck("the undo stayed without an answer after 3 attempts")
    assert saga.saga.phase is Phase.COMPENSATING
    saga.when(done("open-order")).then_compensated()


def test_the_stage_before_waits_for_an_undo_that_is_stuck() -> None:
    saga = opened().when(refused("reserve-stock"), *[silence("authorise-payment")] * 3)
    saga.then_is_stuck("authorise-payment").then_step("open-order", StepStatus.DONE)
    saga.when(done("authorise-payment")).then_undoes("open-order").then_status("compensating")


def test_a_late_refusal_of_a_stuck_undo_has_it_asked_again_under_a_new_id() -> None:
    saga = given(place_order).started().when(*[silence("open-order")] * 6).then_is_stuck("open-order")
    saga.when(refused("open-order")).then_status("compensating").then_next_timer_in(4, 4)
    saga.when(silence("open-order")).then_is_stuck("the undo was refused after 3 attempts")


def test_an_undo_has_a_policy_of_its_own() -> None:
    once = Policy(timeout=timedelta(seconds=9), attempts=1, jitter=0)
    patient = reversible(open_order, undo=reject_order, policy=once, undo_policy=FEW)
    saga = given(Saga(name="patient", data=Order, reversible=(patient,), pivot=step(capture_payment)))
    saga.started().then_next_timer_in(9, 9).when(silence("open-order"))
    saga.then_undoes("open-order").then_next_timer_in(1, 1)
    saga.when(silence("open-order")).then_sends(("open-order/undo", 2)).then_next_timer_in(2, 2)


# --- the log -----------------------------------------------------------------------------------------------------


def test_the_same_events_at_the_same_time_give_the_same_decisions() -> None:
    assert compensated().log == compensated().log
    assert compensated().sent == compensated().sent


@pytest.mark.parametrize("log", [[], [Completed()], [Done("open-order")]])
def test_a_log_that_does_not_begin_with_its_start_is_refused(log: list[Entry]) -> None:
    with pytest.raises(KeyError, match="does not begin"):
        replay(SAGA_ID, log)


@pytest.mark.parametrize("forged", [Done("confirm-order"), Done("no-such-step"), Stuck("no-such-step", "?")])
def test_an_entry_that_the_tables_do_not_allow_is_refused(forged: Entry) -> None:
    with pytest.raises(KeyError):
        evolve(opened().saga, forged)


def test_a_saga_starts_once() -> None:
    saga = opened()
    assert isinstance(saga.log[0], Started)
    with pytest.raises(KeyError, match="starts once"):
        evolve(saga.saga, saga.log[0])


def test_a_saga_ends_once() -> None:
    with pytest.raises(KeyError):
        evolve(completed().saga, Completed())


def test_what_is_undone_and_what_has_ended_leads_nowhere() -> None:
    assert [before for before, _ in TRANSITIONS if before is StepStatus.UNDONE] == []
    ways_out = [(before, entry) for before, entry in PHASES if before in ENDED]
    assert ways_out == [(Phase.COMPLETED, "compensation-started")], "and that only without a pivot, as a child"


def test_virtual_time_does_not_move_by_itself() -> None:
    assert prepared().now == DAWN
