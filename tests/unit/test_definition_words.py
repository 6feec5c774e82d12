"""Where the words of a saga may stand, and with which sentence they are refused elsewhere."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.definition import (
    Action,
    Kind,
    Policy,
    Rate,
    Saga,
    Signal,
    child,
    delay,
    parallel,
    reversible,
    reversible_each,
    step,
    step_each,
    wait_for,
)
from orchestrator.steps import UndoSaga
from tests.support.parcel_story import (
    CHILD,
    DAY,
    PACK,
    WRAP,
    Approval,
    Pack,
    Parcel,
    Wrapping,
    boxes,
    charge,
    charge_one,
    pack,
    pack_one,
    refusal,
    saga,
    send_off,
    unpack,
    unpack_one,
    wrap,
    wrapping_of,
)

# --- names and numbers -------------------------------------------------------------------------------------------


def function_called(name: str) -> Callable[[Parcel], Pack]:
    def build(parcel: Parcel) -> Pack:
        return Pack()

    build.__name__ = name
    return build


def test_the_name_of_a_step_fits_its_column() -> None:
    assert list(saga(pivot=step(function_called("a" * 60)), retriable=()).steps) == ["pack", "a" * 60]
    expected = f"saga send-parcel: the name of step {'a' * 61} has more than 60 characters; shorten it"
    assert refusal(lambda: saga(pivot=step(function_called("a" * 61)))) == expected


@pytest.mark.parametrize("name", ["", "Think", "think_it_over", "think it over", "-", "é"])
def test_a_delay_is_named_like_any_step(name: str) -> None:
    assert refusal(lambda: delay(name, DAY)) == f"delay {name!r}: use lower-case words joined by hyphens"


def test_a_wait_is_named_after_its_signal_and_a_child_after_its_saga() -> None:
    steps = saga(reversible=(wait_for(Approval), delay("think", DAY), child(WRAP, wrapping_of))).steps
    assert list(steps) == ["approval", "think", "wrap", "charge", "send-off"]
    assert [spec.action for spec in steps.values()][:3] == [Action.WAIT, Action.DELAY, Action.COMMAND]


def test_the_bare_signal_names_no_step() -> None:
    said = refusal(lambda: wait_for(Signal))
    assert said == "wait_for(Signal): name the signal, with a subclass: `class ManagerApproval(Signal)`"


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_lets_at_least_one_be_asked(limit: int) -> None:
    expected = f"saga send-parcel: the limit of step pack-one is {limit}; at least 1 may be asked at a time"
    each = reversible_each(boxes, pack_one, undo=unpack_one, limit=limit)
    assert refusal(lambda: saga(reversible=(each,))) == expected


def test_at_least_one_saga_may_be_in_flight() -> None:
    assert refusal(lambda: saga(max_in_flight=0)) == "saga send-parcel: max_in_flight is 0; at least 1 may run"


@pytest.mark.parametrize(("count", "per"), [(0, DAY), (-1, DAY), (1, timedelta(0)), (1, -DAY)])
def test_a_rate_lets_sagas_begin(count: int, per: timedelta) -> None:
    assert refusal(lambda: Rate(count, per)) == f"a rate needs count >= 1 and per > 0, not {count} per {per}"


def test_a_rate_is_spread_evenly() -> None:
    assert Rate(5).spacing == timedelta(seconds=0.2)
    assert Rate(24, DAY).spacing == timedelta(hours=1)


def test_a_saga_is_limited_by_what_may_be_in_flight_or_by_its_rate() -> None:
    limited = [saga(), saga(max_in_flight=1), saga(rate=Rate(1))]
    assert [one.is_limited for one in limited] == [False, True, True]


# --- no pivot ----------------------------------------------------------------------------------------------------


def test_a_saga_may_have_no_pivot_and_can_then_be_undone_as_a_whole() -> None:
    assert (WRAP.pivot_name, saga().pivot_name) == (None, "charge")
    assert [spec.kind for spec in WRAP.steps.values()] == [Kind.REVERSIBLE]


def test_retriable_steps_need_a_pivot_before_them() -> None:
    expected = "saga send-parcel: it has retriable steps and no pivot; make one of them the pivot, or all reversible"
    assert refusal(lambda: saga(pivot=None)) == expected


def test_a_saga_has_steps() -> None:
    said = refusal(lambda: saga(reversible=(), pivot=None, retriable=()))
    assert said == "saga send-parcel: it has no steps; give it one"


@pytest.mark.parametrize("pivot", [step_each(lambda _: (1,), charge_one), step(charge, when=lambda _: True)])
def test_the_pivot_is_one_step_and_never_skipped(pivot: Any) -> None:
    expected = "saga send-parcel: the pivot is one step, and never skipped; give it neither items nor `when`"
    assert refusal(lambda: saga(pivot=pivot)) == expected


@pytest.mark.parametrize(("pivot", "name"), [(wait_for(Approval), "approval"), (delay("think", DAY), "think")])
def test_the_pivot_does_something(pivot: Any, name: str) -> None:
    assert refusal(lambda: saga(pivot=pivot)) == f"saga send-parcel: step {name} cannot stand in `pivot`; use step(…)"


# --- children ----------------------------------------------------------------------------------------------------


def test_a_child_with_a_pivot_cannot_be_undone_as_a_whole() -> None:
    expected = "saga send-parcel: its child wrap has a pivot, so it cannot be undone as a whole; "
    expected += "put it at the pivot or after it, or take its pivot away (pivot=None)"
    final = child(Saga("wrap", Wrapping, (), step(wrap)), wrapping_of)
    assert refusal(lambda: saga(reversible=(final,))) == expected
    assert refusal(lambda: saga(reversible=(parallel(PACK, final),))) == expected
    assert list(saga(pivot=final).steps) == ["pack", "wrap", "send-off"]
    assert list(saga(retriable=(final,)).steps) == ["pack", "charge", "wrap"]


def test_a_child_at_the_pivot_is_never_skipped() -> None:
    sometimes = child(WRAP, wrapping_of, when=lambda _: True)
    assert refusal(lambda: saga(pivot=sometimes)) == "saga send-parcel: the pivot is never skipped; give it no `when`"


def test_a_child_has_an_undo_only_before_the_pivot() -> None:
    places: list[dict[str, Any]] = [{"reversible": (CHILD,)}, {"pivot": CHILD}, {"retriable": (CHILD,)}]
    undos = [saga(**place).steps["wrap"].undo_command for place in places]
    assert undos == [UndoSaga, None, None]


def test_the_same_child_cannot_be_two_steps() -> None:
    assert "two steps have the same name" in refusal(lambda: saga(reversible=(CHILD, CHILD)))


# --- waits and time ----------------------------------------------------------------------------------------------


def test_what_becomes_of_a_wait_depends_on_where_it_stands() -> None:
    before = saga(reversible=(wait_for(Approval, timeout=DAY),)).steps["approval"]
    after = saga(retriable=(wait_for(Approval, timeout=DAY),)).steps["approval"]
    assert (before.otherwise, after.otherwise) == ("refuse", "stick")


def test_after_the_pivot_a_wait_cannot_turn_the_saga_back() -> None:
    late: Any = wait_for(Approval, timeout=DAY, otherwise="refuse")
    expected = "saga send-parcel: step approval comes after the pivot, where nothing turns back: "
    assert refusal(lambda: saga(retriable=(late,))) == expected + "`otherwise` is proceed or stick"
    assert saga(retriable=(wait_for(Approval, timeout=DAY, otherwise="proceed"),)).steps


def test_what_waits_for_ever_has_no_otherwise() -> None:
    expected = "saga send-parcel: step approval says what to do otherwise, and waits for ever; give it a timeout"
    assert refusal(lambda: saga(reversible=(wait_for(Approval, otherwise="proceed"),))) == expected


@pytest.mark.parametrize("timeout", [timedelta(0), -DAY])
def test_a_wait_lasts(timeout: timedelta) -> None:
    said = refusal(lambda: saga(reversible=(wait_for(Approval, timeout=timeout),)))
    assert said == f"saga send-parcel: the timeout of step approval is {timeout}; it must be more than nothing"


@pytest.mark.parametrize("deadline", [timedelta(0), -DAY])
def test_a_deadline_leaves_some_time(deadline: timedelta) -> None:
    said = refusal(lambda: saga(deadline=deadline))
    assert said == f"saga send-parcel: its deadline is {deadline}; it must be more than nothing"


SLOW = Policy(timeout=timedelta(days=2), cap=timedelta(days=2))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"reversible": (reversible(pack, undo=unpack, policy=SLOW),)}, "pack"),
        ({"reversible": (parallel(PACK, wait_for(Approval, timeout=2 * DAY)),)}, "approval"),
        ({"pivot": step(charge, policy=SLOW)}, "charge"),
    ],
)
def test_a_timeout_is_not_longer_than_the_deadline(changes: dict[str, Any], name: str) -> None:
    expected = f"saga send-parcel: step {name} waits 2 days, 0:00:00 for an answer, and the deadline of the whole saga "
    expected += "is 1 day, 0:00:00; shorten the one or lengthen the other"
    assert refusal(lambda: saga(deadline=DAY, **changes)) == expected
    assert saga(deadline=2 * DAY, **changes).deadline == 2 * DAY


@pytest.mark.parametrize(
    "changes",
    [
        {"retriable": (step(send_off, policy=SLOW),)},
        {"retriable": (wait_for(Approval, timeout=2 * DAY),)},
        {"reversible": (reversible(pack, undo=unpack, undo_policy=SLOW),)},
        {"reversible": (wait_for(Approval),)},
        {"reversible": (child(WRAP, wrapping_of, policy=SLOW),)},
    ],
)
def test_what_the_deadline_does_not_cut_short_may_wait_longer(changes: dict[str, Any]) -> None:
    assert saga(deadline=DAY, **changes).deadline == DAY
