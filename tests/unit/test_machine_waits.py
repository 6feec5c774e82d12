"""Waits for a signal, and delays: steps that send nothing."""

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.definition import Saga, SagaData, Signal, delay, parallel, reversible, step, wait_for
from orchestrator.entries import SignalReceived
from orchestrator.machine import Terms, UnreadableReply
from orchestrator.model import StepStatus
from orchestrator.testing import (
    DAWN,
    Happening,
    Specification,
    admitted,
    answered,
    cancelled,
    done,
    given,
    paused,
    refused,
    resolved,
    resumed,
    retried,
    signal_refused,
    signalled,
    silence,
    timer,
)
from outbox.contracts import Command, Reply

# --- the claim: it is assessed, a manager approves, the money is paid -------------------------------------------------


class Ok(Reply):
    pass


class Assess(Command[Ok], participant="surveyor"):
    claim: str


class Dismiss(Command[Ok], participant="surveyor"):
    claim: str


class Pay(Command[Ok], participant="bank"):
    amount: int


class ManagerApproval(Signal):
    amount: int


class CustomerThanks(Signal):
    stars: int = 5


class Claim(SagaData):
    amount: int = 0
    stars: int = 0
    days: int = 2


def assess(claim: Claim) -> Assess:
    return Assess(claim=claim.saga_id)


def dismiss(claim: Claim) -> Dismiss:
    return Dismiss(claim=claim.saga_id)


def pay(claim: Claim) -> Pay:
    return Pay(amount=claim.amount)


def keep_amount(claim: Claim, approval: ManagerApproval) -> Claim:
    if approval.amount == 13:
        raise ZeroDivisionError("bad luck")
    return claim.model_copy(update={"amount": approval.amount})


def keep_stars(claim: Claim, thanks: CustomerThanks) -> Claim:
    return claim.model_copy(update={"stars": thanks.stars})


def days_of(claim: Claim) -> timedelta:
    return timedelta(days=claim.days)


def is_large(claim: Claim) -> bool:
    return claim.amount > 1000


DAY = timedelta(days=1)
ASSESS = reversible(assess, undo=dismiss)
PAY = step(pay)


def claim(*before: Any, after: Any = (), **approval: Any) -> Saga[Claim]:
    """First the report, then the approval (and what comes before it), then the money."""
    wait = wait_for(ManagerApproval, then=keep_amount, **approval)
    return Saga("claim", Claim, (ASSESS, *before, wait), PAY, after)


def waiting(**approval: Any) -> Specification:
    """The report is filed, and the approval is awaited."""
    return given(claim(**approval)).started().when(done("assess"))


# --- a signal in its turn ------------------------------------------------------------------------------------------


def test_a_wait_sends_nothing_and_the_signal_lets_the_saga_go_on() -> None:
    saga = waiting().then_waits_for("manager-approval").then_sends_nothing().then_status("running")
    saga.when(signalled("manager-approval", amount=7)).then_logs("signal-received", "done", "asked").then_asks("pay")
    saga.then_knows(amount=7)


def test_a_signal_is_in_the_log_with_who_sent_it() -> None:
    saga = waiting().when(signalled("manager-approval", ManagerApproval(amount=7)))
    assert SignalReceived("manager-approval", "done", {"amount": 7}, "ada") in saga.log


def test_a_refusal_by_a_person_turns_back() -> None:
    saga = waiting().when(signal_refused("manager-approval", "too dear")).then_undoes("assess")
    saga.then_failed("manager-approval was refused: too dear").when(done("assess")).then_compensated()


def test_a_signal_that_came_is_over_and_a_second_one_changes_nothing() -> None:
    saga = waiting().when(signalled("manager-approval", amount=7))
    saga.when(signalled("manager-approval", amount=8)).then_nothing_happened("waits for no signal any more: done")
    saga.when(signal_refused("manager-approval")).then_nothing_happened("waits for no signal any more: done")
    saga.then_knows(amount=7)


@pytest.mark.parametrize("wrong", [{}, {"amount": "much"}, {"amount": None}])
def test_a_signal_that_breaks_its_contract_raises_and_leaves_the_saga_as_it_was(wrong: dict[str, Any]) -> None:
    saga = waiting()
    before = saga.saga
    with pytest.raises(UnreadableReply, match="the signal to manager-approval cannot be read: amount"):
        saga.when(signalled("manager-approval", **wrong))
    assert saga.saga is before
    saga.when(signalled("manager-approval", amount=7)).then_asks("pay")


@pytest.mark.parametrize("step", ["assess", "pay", "no-such-step", ""])
def test_a_signal_to_what_is_no_wait_changes_nothing(step: str) -> None:
    waiting().when(signalled(step)).then_nothing_happened("waits for a signal")


def test_a_reply_to_a_wait_changes_nothing() -> None:
    waiting().when(answered("manager-approval/do", amount=7)).then_nothing_happened("awaits no answer: asked")


def test_a_wait_without_a_timeout_waits_for_ever() -> None:
    waiting().then_no_timer_runs().then_status("running")


# --- a signal before its turn --------------------------------------------------------------------------------------


def test_a_signal_that_comes_before_its_turn_is_kept_until_then() -> None:
    saga = given(claim()).started().when(signalled("manager-approval", amount=7))
    saga.then_logs("signal-received").then_sends_nothing().then_knows(amount=0)
    saga.when(done("assess")).then_logs("done", "asked", "done", "asked").then_asks("pay").then_knows(amount=7)
    assert saga.saga.signals == {}


def test_a_refusal_that_comes_before_its_turn_is_kept_until_then() -> None:
    saga = given(claim()).started().when(signal_refused("manager-approval", "no")).then_sends_nothing()
    saga.when(done("assess")).then_undoes("assess").then_failed("manager-approval was refused: no")


@pytest.mark.parametrize("second", [signalled("manager-approval", amount=8), signal_refused("manager-approval")])
def test_a_second_signal_before_its_turn_changes_nothing(second: Happening) -> None:
    saga = given(claim()).started().when(signalled("manager-approval", amount=7))
    saga.when(second).then_nothing_happened("has been signalled already")
    saga.when(done("assess")).then_knows(amount=7)


def test_a_signal_that_cannot_be_read_is_refused_before_its_turn_too() -> None:
    with pytest.raises(UnreadableReply):
        given(claim()).started().when(signalled("manager-approval"))


def test_a_signal_that_came_for_what_is_then_skipped_changes_nothing_more() -> None:
    saga = given(claim(when=is_large)).started().when(signalled("manager-approval", amount=7))
    saga.when(done("assess")).then_logs("done", "skipped", "asked").then_asks("pay").then_knows(amount=0)
    saga.when(signalled("manager-approval", amount=7)).then_nothing_happened("waits for no signal any more: skipped")


def test_a_saga_that_waits_to_begin_keeps_its_signals() -> None:
    saga = given(claim()).started_on(Terms(waits=True)).when(signalled("manager-approval", amount=7))
    saga.then_logs("signal-received").then_status("waiting")
    saga.when(admitted(), done("assess")).then_asks("pay").then_knows(amount=7)


# --- when it does not come -----------------------------------------------------------------------------------------


def test_no_signal_in_time_is_a_refusal_before_the_pivot() -> None:
    saga = waiting(timeout=DAY).then_next_timer_in(86_400, 86_400)
    saga.when(silence("manager-approval")).then_undoes("assess")
    saga.then_failed("manager-approval was refused: no signal came in 1 day")


def test_no_signal_in_time_may_be_as_good_as_one() -> None:
    saga = waiting(timeout=DAY, otherwise="proceed").when(silence("manager-approval"))
    saga.then_asks("pay").then_knows(amount=0).then_step("manager-approval", StepStatus.DONE)


def test_no_signal_in_time_may_be_left_to_a_person_and_a_late_one_still_counts() -> None:
    saga = waiting(timeout=DAY, otherwise="stick").when(silence("manager-approval")).then_sends_nothing()
    saga.then_is_stuck("manager-approval: no signal came in 1 day").then_no_timer_runs()
    saga.when(signalled("manager-approval", amount=7)).then_asks("pay").then_status("running")


def test_a_late_refusal_of_a_stuck_wait_turns_back() -> None:
    saga = waiting(timeout=DAY, otherwise="stick").when(silence("manager-approval"))
    saga.when(signal_refused("manager-approval")).then_undoes("assess")


def test_a_retry_of_a_stuck_wait_waits_once_more_as_long() -> None:
    saga = waiting(timeout=DAY, otherwise="stick").when(silence("manager-approval"), retried())
    saga.then_logs("retry-ordered", "asked").then_waits_for("manager-approval").then_next_timer_in(86_400, 86_400)
    saga.when(silence("manager-approval")).then_is_stuck("no signal came")


def test_a_person_may_answer_for_a_signal() -> None:
    saga = waiting(timeout=DAY, otherwise="stick").when(silence("manager-approval"))
    saga.when(resolved("manager-approval", amount=9)).then_logs("done-by-hand", "asked").then_knows(amount=9)
    saga.when(signalled("manager-approval", amount=7)).then_nothing_happened("waits for no signal any more: done")


def test_the_timer_of_a_wait_that_was_signalled_changes_nothing() -> None:
    saga = waiting(timeout=DAY).when(signalled("manager-approval", amount=7)).after(DAY)
    saga.when(timer("manager-approval", 1)).then_nothing_happened("moved on")


def test_after_the_pivot_no_signal_in_time_is_left_to_a_person() -> None:
    thanks = wait_for(CustomerThanks, then=keep_stars, timeout=DAY)
    saga = given(Saga("thankful", Claim, (), PAY, (thanks,))).started().when(done("pay"))
    saga.then_waits_for("customer-thanks").when(silence("customer-thanks")).then_is_stuck("no signal came in 1 day")
    saga.when(signalled("customer-thanks")).then_completed().then_knows(stars=5)


def test_after_the_pivot_a_refusal_is_not_the_end_and_it_waits_again() -> None:
    thanks = wait_for(CustomerThanks, then=keep_stars)
    saga = given(Saga("thankful", Claim, (), PAY, (thanks,))).started().when(done("pay"))
    saga.when(signal_refused("customer-thanks", "bad service")).then_logs("signal-received", "refused")
    saga.when(silence("customer-thanks")).then_waits_for("customer-thanks")
    saga.when(signalled("customer-thanks", stars=1)).then_completed().then_knows(stars=1)


def test_after_the_pivot_a_yes_counts_at_once_also_after_a_no() -> None:
    thanks = wait_for(CustomerThanks, then=keep_stars)
    saga = given(Saga("thankful", Claim, (), PAY, (thanks,))).started().when(done("pay"))
    saga.when(signal_refused("customer-thanks"), signal_refused("customer-thanks")).then_logs(
        "signal-received", "asked", "refused"
    )
    saga.when(paused(), signalled("customer-thanks", stars=2)).then_logs("signal-received", "asked", "done")
    saga.when(resumed()).then_completed().then_knows(stars=2)


def test_a_then_that_fails_is_stuck_and_a_retry_takes_the_same_signal_again() -> None:
    saga = waiting().when(signalled("manager-approval", amount=13))
    saga.then_is_stuck("manager-approval: the definition's `then` failed: ZeroDivisionError: bad luck")
    saga.when(signalled("manager-approval", amount=14)).then_nothing_happened("has been signalled already")
    saga.when(retried()).then_is_stuck("bad luck").then_sends_nothing()
    saga.when(resolved("manager-approval", amount=12)).then_asks("pay").then_knows(amount=12)


# --- on the way back -----------------------------------------------------------------------------------------------


def test_a_wait_beside_what_is_refused_is_dropped_and_costs_nothing() -> None:
    group = parallel(ASSESS, wait_for(ManagerApproval, timeout=DAY))
    saga = given(Saga("beside", Claim, (group,), PAY)).started().when(refused("assess"))
    saga.then_logs("refused", "compensation-started", "dropped", "compensated").then_sends_nothing().then_compensated()
    saga.when(signalled("manager-approval", amount=1)).then_nothing_happened("the saga has ended")


def test_a_wait_that_was_signalled_is_dropped_before_the_stage_before_it_is_undone() -> None:
    saga = waiting().when(signalled("manager-approval", amount=7), refused("pay"))
    saga.then_logs("refused", "compensation-started", "dropped", "undo-asked").then_undoes("assess")
    saga.when(signalled("manager-approval", amount=7)).then_nothing_happened("waits for no signal any more: undone")


def test_a_signal_to_a_saga_that_turns_back_before_its_turn_changes_nothing() -> None:
    saga = given(claim(delay("think", DAY))).started().when(done("assess"), cancelled()).then_undoes("assess")
    saga.when(signalled("manager-approval", amount=7)).then_nothing_happened("waits for no signal any more: pending")


def test_a_stuck_wait_is_dropped_when_the_saga_is_cancelled() -> None:
    saga = waiting(timeout=DAY, otherwise="stick").when(silence("manager-approval"), cancelled())
    saga.then_undoes("assess").then_status("compensating").when(done("assess")).then_compensated()


# --- delays --------------------------------------------------------------------------------------------------------


def test_a_delay_lets_time_pass() -> None:
    saga = given(claim(delay("think-it-over", DAY))).started().when(done("assess"))
    saga.then_waits_for("think-it-over").then_sends_nothing().then_next_timer_in(86_400, 86_400)
    saga.after(DAY / 2).when(timer("think-it-over", 1)).then_nothing_happened("not due before")
    saga.when(silence("think-it-over")).then_logs("done", "asked").then_waits_for("manager-approval")


def test_a_delay_may_be_as_long_as_the_data_says() -> None:
    think = delay("think", days_of)
    saga = given(claim(think)).started(days=3).when(done("assess")).then_next_timer_in(3 * 86_400, 3 * 86_400)
    saga.when(silence("think")).then_waits_for("manager-approval")


@pytest.mark.parametrize("days", [0, -1])
def test_a_delay_that_is_over_before_it_begins_is_over_at_once(days: int) -> None:
    think = delay("think", days_of)
    saga = given(claim(think)).started(days=days).when(done("assess"), timer("think", 1)).then_logs("done", "asked")
    assert saga.now == DAWN


def no_timedelta(_: Claim) -> Any:
    return 7


def longer_than_time(_: Claim) -> timedelta:
    return timedelta.max


@pytest.mark.parametrize(
    ("lasting", "why"), [(no_timedelta, "it returned 7, which is no timedelta"), (longer_than_time, "OverflowError")]
)
def test_a_delay_that_cannot_be_counted_is_stuck(lasting: Any, why: str) -> None:
    saga = given(claim(delay("think", lasting))).started().when(done("assess"))
    saga.then_is_stuck("think: the definition's `lasting` failed", why)
    saga.when(resolved("think")).then_waits_for("manager-approval")


def test_a_delay_may_be_skipped() -> None:
    saga = given(claim(delay("think", DAY, when=is_large))).started().when(done("assess"))
    saga.then_waits_for("manager-approval").then_step("think", StepStatus.SKIPPED)


def test_a_delay_is_dropped_on_the_way_back_and_its_timer_changes_nothing() -> None:
    saga = given(claim(delay("think", DAY))).started().when(done("assess"), cancelled()).then_undoes("assess")
    saga.then_step("think", StepStatus.UNDONE).after(DAY).when(timer("think", 1)).then_nothing_happened()


def test_a_delay_may_follow_the_pivot() -> None:
    saga = given(Saga("later", Claim, (), PAY, (delay("settle", DAY),))).started().when(done("pay"))
    saga.when(silence("settle")).then_completed()


def test_a_reply_or_a_signal_to_a_delay_changes_nothing() -> None:
    saga = given(claim(delay("think", DAY))).started().when(done("assess"))
    saga.when(answered("think/do")).then_nothing_happened("awaits no answer")
    saga.when(signalled("think")).then_nothing_happened("waits for a signal")


def test_a_person_may_cut_a_delay_short() -> None:
    saga = given(claim(delay("think", DAY))).started().when(done("assess"), resolved("think"))
    saga.then_logs("done-by-hand", "asked").then_waits_for("manager-approval")
    saga.after(DAY).when(timer("think", 1)).then_nothing_happened("moved on")
