"""The story of the state machine, told on one order."""

from datetime import timedelta
from typing import Any, Literal

import pytest

from orchestrator.definition import Policy, Saga, SagaData, parallel, reversible, step
from orchestrator.entries import Completed, Done, Entry, RefusedStep, Started, Stuck
from orchestrator.machine import PHASES, TRANSITIONS, UnreadableReply, evolve, replay
from orchestrator.model import Phase, StepStatus
from outbox.contracts import Command, Reply
from tests.support.machine import (
    DAWN,
    SAGA_ID,
    Happening,
    Specification,
    answered,
    done,
    given,
    refused,
    retried,
    silence,
    timer,
)

# --- the order ---------------------------------------------------------------------------------------------------


class Ok(Reply):
    pass


class Authorised(Reply):
    authorisation: str


class OpenOrder(Command[Ok], participant="order"):
    order: str


class RejectOrder(Command[Ok], participant="order"):
    order: str


class ConfirmOrder(Command[Ok], participant="order"):
    order: str


class ReserveStock(Command[Ok], participant="inventory"):
    reservation: str


class ReleaseStock(Command[Ok], participant="inventory"):
    reservation: str


class AuthorisePayment(Command[Authorised], participant="payment"):
    payment: str


class VoidPayment(Command[Ok], participant="payment"):
    payment: str


class CapturePayment(Command[Ok], participant="payment"):
    authorisation: str


class Order(SagaData):
    customer: str = "ada"
    authorisation: str = ""


BROKEN: set[str] = set()
"""The definition functions that raise."""


@pytest.fixture
def broken() -> Any:
    """Functions of the definition that are named here raise, until the test takes them out."""
    yield BROKEN
    BROKEN.clear()


def break_if_told(function: str) -> None:
    if function in BROKEN:
        raise ZeroDivisionError(f"{function} is broken")


def open_order(order: Order) -> OpenOrder:
    break_if_told("open_order")
    return OpenOrder(order=order.saga_id)


def reject_order(order: Order) -> RejectOrder:
    break_if_told("reject_order")
    return RejectOrder(order=order.saga_id)


def reserve_stock(order: Order) -> ReserveStock:
    break_if_told("reserve_stock")
    return ReserveStock(reservation=order.saga_id)


def release_stock(order: Order) -> ReleaseStock:
    break_if_told("release_stock")
    return ReleaseStock(reservation=order.saga_id)


def authorise_payment(order: Order) -> AuthorisePayment:
    return AuthorisePayment(payment=order.saga_id)


def void_payment(order: Order) -> VoidPayment:
    return VoidPayment(payment=order.saga_id)


def keep_authorisation(order: Order, reply: Authorised) -> Order:
    break_if_told("keep_authorisation")
    return order.model_copy(update={"authorisation": reply.authorisation})


def capture_payment(order: Order) -> CapturePayment:
    return CapturePayment(authorisation=order.authorisation)


def confirm_order(order: Order) -> ConfirmOrder:
    break_if_told("confirm_order")
    return ConfirmOrder(order=order.saga_id)


FEW = Policy(timeout=timedelta(seconds=1), attempts=3, factor=2, jitter=0)

place_order = Saga(
    name="place-order",
    data=Order,
    reversible=(
        reversible(open_order, undo=reject_order, policy=FEW, undo_policy=FEW),
        parallel(
            reversible(reserve_stock, undo=release_stock, policy=FEW, undo_policy=FEW),
            reversible(authorise_payment, undo=void_payment, then=keep_authorisation, policy=FEW, undo_policy=FEW),
        ),
    ),
    pivot=step(capture_payment, policy=FEW),
    retriable=(step(confirm_order, policy=FEW),),
)

paid = done("authorise-payment", authorisation="a-1")


def opened() -> Specification:
    """The order is open, and both parallel steps are out."""
    return given(place_order).started().when(done("open-order"))


def prepared() -> Specification:
    """Everything reversible is done, and the pivot is out."""
    return opened().when(done("reserve-stock"), paid)


def past_the_pivot() -> Specification:
    """The money is taken, and the last step is out."""
    return prepared().when(done("capture-payment"))


# --- going forward -----------------------------------------------------------------------------------------------


def test_it_asks_stage_by_stage_until_it_is_completed() -> None:
    saga = given(place_order).started(customer="grace").then_asks("open-order").then_status("running")
    saga.when(done("open-order")).then_asks("reserve-stock", "authorise-payment")
    saga.when(done("reserve-stock"), paid).then_asks("capture-payment")
    saga.when(done("capture-payment")).then_asks("confirm-order")
    saga.when(done("confirm-order")).then_logs("done", "completed").ended(Phase.COMPLETED)
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
    saga.then_logs("refused", "compensation-started", "compensated").ended(Phase.COMPENSATED)
    assert saga.saga.failure == "open-order was refused: closed on Sundays"


def test_a_refusal_in_a_parallel_stage_undoes_the_sibling_and_then_the_stage_before() -> None:
    saga = opened().when(paid, refused("reserve-stock")).then_undoes("authorise-payment")
    saga.when(done("authorise-payment")).then_undoes("open-order")
    saga.when(done("open-order")).then_logs("undone", "compensated").ended(Phase.COMPENSATED)


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
    saga.when(done("open-order")).ended(Phase.COMPENSATED).then_step("capture-payment", StepStatus.REFUSED)


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
    saga.when(done("open-order")).ended(Phase.COMPENSATED)


def test_giving_up_undoes_the_unknown_step_together_with_its_sibling_that_is_done() -> None:
    saga = opened().when(paid, *[silence("reserve-stock")] * 3)
    saga.then_undoes("reserve-stock", "authorise-payment")
    saga.when(done("reserve-stock"), done("authorise-payment")).then_undoes("open-order")


@pytest.mark.parametrize("outcome", ["done", "refused"])
def test_a_reply_after_giving_up_changes_nothing(outcome: Literal["done", "refused"]) -> None:
    saga = given(place_order).started().when(*[silence("open-order")] * 3)
    saga.when(answered("open-order/do", outcome)).then_nothing_happened("not the one that is out")
    saga.when(answered("open-order/undo")).ended(Phase.COMPENSATED)


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
    stuck.when(done("confirm-order")).ended(Phase.COMPLETED)


def test_a_late_refusal_of_a_stuck_pivot_starts_the_way_back() -> None:
    stuck = prepared().when(*[silence("capture-payment")] * 3)
    stuck.when(refused("capture-payment")).then_undoes("reserve-stock", "authorise-payment")
    stuck.then_status("compensating")


def test_a_stuck_branch_does_not_hold_back_its_sibling() -> None:
    saga = given(two_pushes).started().when(done("capture-payment")).then_asks("push-one", "push-two")
    saga.when(*[silence("push-one")] * 3).then_is_stuck("push-one")
    saga.when(refused("push-two"), silence("push-two")).then_sends(("push-two/do/2", 2))
    saga.when(done("push-two")).then_is_stuck("push-one").when(done("push-one")).ended(Phase.COMPLETED)


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
    saga.when(answered("confirm-order/do/2")).ended(Phase.COMPLETED)


def test_a_retriable_step_that_is_always_refused_gets_stuck_and_nothing_is_undone() -> None:
    refuse, wait = refused("confirm-order"), silence("confirm-order")
    saga = past_the_pivot().when(refuse, wait, refuse, wait, refuse).then_status("running")
    saga.when(wait).then_is_stuck("confirm-order: the command was refused after 3 attempts")
    assert [one for one in saga.sent if one.undoes] == []


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
    saga.when(done("open-order")).ended(Phase.COMPENSATED)


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
    saga.when(done("open-order")).ended(Phase.COMPENSATED)


def test_a_retry_asks_a_refused_retriable_step_again_under_a_new_id() -> None:
    saga = past_the_pivot().when(*[refused("confirm-order"), silence("confirm-order")] * 3)
    saga.when(retried()).then_sends(("confirm-order/do/4", 4))
    saga.when(done("confirm-order")).ended(Phase.COMPLETED)


def test_a_retry_of_what_is_not_stuck_is_ignored() -> None:
    opened().when(retried()).then_nothing_happened("nothing is stuck")


def test_a_retry_leaves_what_is_not_stuck_alone() -> None:
    saga = prepared().when(refused("capture-payment"), *[silence("reserve-stock")] * 3)
    saga.then_is_stuck("reserve-stock").when(retried()).then_undoes("reserve-stock")


# --- what changes nothing ----------------------------------------------------------------------------------------


def completed() -> Specification:
    return past_the_pivot().when(done("confirm-order")).ended(Phase.COMPLETED)


def compensated() -> Specification:
    return opened().when(refused("reserve-stock"), done("authorise-payment"), done("open-order"))


ALWAYS_POSSIBLE = [
    done("open-order"),
    refused("capture-payment"),
    answered("authorise-payment/undo"),
    answered("confirm-order/do/2", "refused"),
    timer("open-order", 1),
    timer("confirm-order", 1),
    retried(),
]


@pytest.mark.parametrize("happening", ALWAYS_POSSIBLE)
def test_an_ended_saga_absorbs_every_event(happening: Happening) -> None:
    completed().when(happening).then_nothing_happened("the saga has ended: completed")
    compensated().when(happening).then_nothing_happened("the saga has ended: compensated")


def test_a_duplicate_of_a_reply_is_ignored() -> None:
    again = answered("open-order/do")
    given(place_order).started().when(again, again).then_nothing_happened("awaits no answer: done")


def test_a_contradiction_of_a_reply_is_ignored() -> None:
    opened().when(answered("open-order/do", "refused")).then_nothing_happened("awaits no answer: done")


def test_a_duplicate_of_a_refusal_is_ignored_also_where_it_is_asked_again() -> None:
    again = answered("confirm-order/do", "refused")
    past_the_pivot().when(again, again).then_nothing_happened("awaits no answer: refused")


def test_a_duplicate_of_an_undo_reply_is_ignored() -> None:
    again = answered("authorise-payment/undo")
    opened().when(refused("reserve-stock"), again, again).then_nothing_happened("not the one that is out")


@pytest.mark.parametrize(
    "foreign",
    [
        "open-order/undo",
        "open-order/do/2",
        "open-order",
        "no-such-step/do",
        "open-order/do/",
        "",
    ],
)
def test_a_reply_to_a_command_that_is_not_out_is_ignored(foreign: str) -> None:
    given(place_order).started().when(answered(foreign)).then_nothing_happened("not the one that is out")


def test_a_reply_to_a_step_that_was_not_asked_is_ignored() -> None:
    given(place_order).started().when(answered("confirm-order/do")).then_nothing_happened("pending")


def test_a_reply_to_another_saga_is_ignored() -> None:
    from_another = "/../saga-2/open-order/do"
    given(place_order).started().when(answered(from_another)).then_nothing_happened("not the one")


@pytest.mark.parametrize("stale", [0, 1, 3])
def test_a_timer_of_another_attempt_is_ignored(stale: int) -> None:
    saga = given(place_order).started().when(silence("open-order")).after(timedelta(hours=1))
    saga.when(timer("open-order", stale)).then_nothing_happened("moved on")
    saga.when(timer("open-order", 2)).then_sends(("open-order/do", 3))


def test_a_timer_of_a_step_that_is_answered_is_ignored() -> None:
    opened().after(timedelta(hours=1)).when(timer("open-order", 1)).then_nothing_happened("moved on")


def test_a_timer_of_a_step_that_is_stuck_is_ignored() -> None:
    stuck = prepared().when(*[silence("capture-payment")] * 3)
    stuck.when(timer("capture-payment", 3)).then_nothing_happened("moved on")


def test_a_timer_that_fires_early_is_ignored() -> None:
    saga = given(place_order).started().when(timer("open-order", 1)).then_nothing_happened("not due before")
    saga.after(timedelta(seconds=1)).when(timer("open-order", 1)).then_sends(("open-order/do", 2))


def test_a_timer_that_lost_its_race_to_a_refusal_does_not_cut_the_wait_short() -> None:
    saga = past_the_pivot().after(timedelta(seconds=1)).when(refused("confirm-order"))
    saga.when(timer("confirm-order", 1)).then_nothing_happened("not due before")


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
    saga = given(place_order).started().when(answered("open-order/do", "refused")).ended(Phase.COMPENSATED)
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
    saga.when(done("open-order")).ended(Phase.COMPENSATED).then_step("reserve-stock", StepStatus.PENDING)


def test_a_step_that_cannot_be_built_again_is_stuck(broken: set[str]) -> None:
    saga = past_the_pivot()
    broken.add("confirm_order")
    saga.when(silence("confirm-order")).then_is_stuck("confirm_order is broken").then_sends_nothing()
    saga.when(done("confirm-order")).ended(Phase.COMPLETED)


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
    saga.when(retried()).then_sends(("open-order/undo", 1)).when(done("open-order")).ended(Phase.COMPENSATED)


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


def nothing_built(order: Order) -> OpenOrder:
    return None  # type: ignore[return-value]


def other_built(order: Order) -> OpenOrder:
    return RejectOrder(order=order.saga_id)  # type: ignore[return-value]


@pytest.mark.parametrize("then", [nothing_kept, nonsense_kept, another_kind_kept])
def test_a_then_that_returns_what_the_saga_cannot_be_is_stuck(then: Any) -> None:
    careless = Saga(name="careless", data=Order, reversible=(), pivot=step(authorise_payment, then=then))
    given(careless).started().when(paid).then_is_stuck("`then` failed").then_knows(authorisation="")


@pytest.mark.parametrize("do", [nothing_built, other_built])
def test_a_step_that_returns_another_command_than_it_says_is_stuck(do: Any) -> None:
    careless = Saga(name="careless", data=Order, reversible=(), pivot=step(do))
    given(careless).started().then_is_stuck("annotated with OpenOrder").then_sends()


# --- how long it waits -------------------------------------------------------------------------------------------


def seconds(policy: Policy, tries: int, seed: str = "seed") -> float:
    return policy.wait(tries, seed).total_seconds()


def test_waits_grow_up_to_the_cap() -> None:
    policy = Policy(timeout=timedelta(seconds=1), factor=3, cap=timedelta(seconds=20), jitter=0)
    assert [seconds(policy, tries) for tries in range(1, 6)] == [1, 3, 9, 20, 20]


@pytest.mark.parametrize("factor", [1.001, 2.0, 1e9])
def test_the_cap_is_reached_and_kept_however_often_it_is_asked(factor: float) -> None:
    policy = Policy(timeout=timedelta(seconds=1), attempts=None, factor=factor, jitter=0)
    assert seconds(policy, 100_000) == 60


def test_jitter_spreads_the_waits_within_its_range() -> None:
    policy = Policy(timeout=timedelta(seconds=10), jitter=0.2)
    waits = [seconds(policy, 1, f"saga-{number}") for number in range(300)]
    assert min(waits) >= 8
    assert max(waits) <= 12
    assert min(waits) < 8.5
    assert max(waits) > 11.5


def test_jitter_is_the_same_for_the_same_seed_and_another_for_the_next_try() -> None:
    policy = Policy(factor=1, jitter=0.2)
    assert policy.wait(1, "seed") == policy.wait(1, "seed")
    assert policy.wait(1, "seed") != policy.wait(2, "seed")


def test_a_policy_without_an_end_is_never_spent() -> None:
    assert not Policy(attempts=None).is_spent(10**9)
    assert [Policy(attempts=3).is_spent(tries) for tries in (1, 2, 3, 4)] == [False, False, True, True]


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
    assert [before for before, _ in PHASES if before in (Phase.COMPLETED, Phase.COMPENSATED)] == []


def test_virtual_time_does_not_move_by_itself() -> None:
    assert prepared().now == DAWN
