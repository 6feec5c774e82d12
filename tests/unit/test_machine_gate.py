"""What changes nothing: duplicates, late and foreign replies, timers that lost their race, all that follows the end."""

from datetime import timedelta

import pytest

from orchestrator.testing import (
    Happening,
    answered,
    done,
    given,
    refused,
    retried,
    silence,
    timer,
)
from tests.support.order_story import compensated, completed, opened, past_the_pivot, place_order, prepared

# --- what changes nothing ----------------------------------------------------------------------------------------


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
