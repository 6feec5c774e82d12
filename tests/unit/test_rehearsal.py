"""A whole saga in one call, with fakes that keep the protocol: a journey with everything that a saga may have."""

from datetime import timedelta
from typing import Any, Literal

import pytest

from orchestrator.definition import Policy, Saga, SagaEnded, child, reversible_each, step, wait_for
from orchestrator.events import Answered, Cancelled, Order, PauseOrdered, Resolved, ResumeOrdered, Retried
from orchestrator.machine import Dispatch
from orchestrator.steps import StartSaga
from orchestrator.testing import SILENCE, CannotRehearse, Inbox, Script, late, rehearse
from outbox.contracts import Refused
from tests.support.travel_story import (
    ASKING,
    DAY,
    PRICED,
    YES,
    Approval,
    Book,
    Hire,
    Ok,
    Pay,
    Priced,
    Return,
    Ride,
    Send,
    Trip,
    book,
    cities,
    drive,
    free,
    pay,
    ride_of,
    travel,
)

# --- how it goes -------------------------------------------------------------------------------------------------


def test_a_saga_with_everything_completes_in_its_own_time() -> None:
    trip = rehearse(travel, Trip(by_car=True), PRICED, signals=YES)
    assert trip.status == "completed"
    assert trip.asked == ["book[0]", "book[1]", "drive", "pay", "send-tickets"]
    assert (trip.data.total, trip.data.approved_by) == (20, "grace")
    assert trip.took == DAY
    assert trip.children["drive"].status == "completed"
    assert trip.children["drive"].asked == ["hire", "hire-driver"]
    assert trip.children["drive"].data.city == "Oslo"


def test_what_is_not_needed_is_skipped() -> None:
    trip = rehearse(travel, Trip(), PRICED, signals=YES)
    assert (trip.status, trip.skipped, trip.children) == ("completed", ["drive"], {})


def test_an_answer_may_be_a_function_of_the_command() -> None:
    def priced(command: Book) -> Priced:
        if command.city == "Rome":
            raise Refused("full", "all rooms are taken")
        return Priced(price=len(command.city))

    trip = rehearse(travel, Trip(cities=("Oslo", "Ulm")), {Book: priced}, signals=YES)
    assert trip.data.total == 7
    trip = rehearse(travel, Trip(), {Book: priced})
    assert (trip.status, trip.failure) == ("compensated", "book[1] was refused: all rooms are taken")
    assert trip.undone == ["book[0]"]


def test_the_exactest_name_counts() -> None:
    script: Script = {Book: Priced(price=1), "book": Priced(price=10), "book[1]": Priced(price=100)}
    assert rehearse(travel, Trip(), script, signals=YES).data.total == 110


# --- silence and time ------------------------------------------------------------------------------------------------


def test_silence_is_asked_again_until_the_policy_is_spent_and_then_undone() -> None:
    trip = rehearse(travel, Trip(), {**PRICED, "book[0]": SILENCE})
    assert trip.status == "compensated"
    assert [one.attempt for one in trip.commands if str(one) == "book[0]"] == [1, 2, 3]
    assert sorted(trip.undone) == ["book[0]", "book[1]"]
    assert trip.took == timedelta(seconds=7)


def test_an_answer_that_is_late_is_given_once_however_often_it_is_asked_for() -> None:
    calls = []

    def slowly(command: Pay) -> Ok:
        calls.append(command)
        return Ok()

    trip = rehearse(travel, Trip(), {**PRICED, Pay: late(timedelta(seconds=4), slowly)}, signals=YES)
    assert trip.status == "completed"
    assert [one.attempt for one in trip.commands if one.step == "pay"] == [1, 2, 3]
    assert (len(calls), trip.took) == (1, DAY + timedelta(seconds=4))


def test_an_answer_that_comes_after_its_undo_changes_nothing() -> None:
    trip = rehearse(travel, Trip(), {**PRICED, "book[0]": late(timedelta(seconds=30), Priced(price=1))})
    assert trip.status == "compensated"
    assert trip.ignored
    assert trip.took == timedelta(seconds=7)


def test_the_deadline_turns_a_rehearsal_back() -> None:
    slow: Script = {Book: late(8 * DAY, Priced(price=1))}
    patient = Saga("patient", Trip, (reversible_each(cities, book, undo=free, policy=ASKING),), None, deadline=DAY)
    trip = rehearse(patient, Trip(), slow)
    assert (trip.status, trip.failure) == ("compensated", "its deadline of 1 day, 0:00:00 has passed")
    assert trip.took == DAY


# --- signals ---------------------------------------------------------------------------------------------------------


def test_a_signal_that_does_not_come_runs_into_its_timeout() -> None:
    trip = rehearse(travel, Trip(), PRICED)
    assert (trip.status, trip.took) == ("compensated", 3 * DAY)
    assert trip.failure == "approval was refused: no signal came in 2 days, 0:00:00"
    assert rehearse(travel, Trip(), PRICED, signals={"approval": SILENCE}).took == 3 * DAY


def test_a_signal_may_say_no_or_come_late() -> None:
    no = rehearse(travel, Trip(), PRICED, signals={"approval": Refused("no", "too dear")})
    assert (no.status, no.failure) == ("compensated", "approval was refused: too dear")
    yes = rehearse(travel, Trip(), PRICED, signals={Approval: late(DAY, Approval(by="ada"))})
    assert (yes.status, yes.took) == ("completed", 2 * DAY)


def test_a_saga_that_waits_for_ever_is_left_waiting() -> None:
    endless = Saga("endless", Trip, (wait_for(Approval),), step(pay))
    trip = rehearse(endless, Trip())
    assert (trip.status, trip.waits_for) == ("running", ["approval"])


def test_what_is_no_signal_is_refused() -> None:
    wrong: Any = {"approval": Ok}
    with pytest.raises(CannotRehearse, match="is no signal for approval; give a signal, Refused or SILENCE"):
        rehearse(travel, Trip(), PRICED, signals=wrong)


# --- people ----------------------------------------------------------------------------------------------------------


def test_orders_are_given_in_their_time() -> None:
    trip = rehearse(travel, Trip(), PRICED, orders=[(DAY / 2, Cancelled("ada", "ill"))])
    assert (trip.status, trip.failure, trip.took) == ("compensated", "cancelled by ada: ill", DAY / 2)


def test_a_saga_may_be_paused_and_resumed() -> None:
    orders: list[tuple[timedelta, Order]] = [
        (DAY / 2, PauseOrdered("ada", "wait")),
        (3 * DAY, ResumeOrdered("ada", "go on")),
    ]
    trip = rehearse(travel, Trip(), PRICED, signals=YES, orders=orders)
    assert (trip.status, trip.took) == ("completed", 3 * DAY)
    assert rehearse(travel, Trip(), PRICED, signals=YES, orders=orders[:1]).status == "paused"


def test_an_order_that_changes_nothing_is_told() -> None:
    trip = rehearse(travel, Trip(), PRICED, signals=YES, orders=[(2 * DAY, Cancelled("ada", "too late"))])
    assert (trip.status, trip.ignored) == ("completed", ["the saga has ended: completed"])


def test_a_refused_retriable_step_is_asked_again_and_a_person_helps_when_it_is_stuck() -> None:
    no = Refused("no", "closed")
    trip = rehearse(travel, Trip(), {**PRICED, Send: [no, no, no]}, signals=YES)
    assert (trip.status, trip.stuck) == ("stuck", "send-tickets: the command was refused after 3 attempts")
    script: Script = {**PRICED, Send: [no, no, no, Ok()]}
    trip = rehearse(travel, Trip(), script, signals=YES, when_stuck=[Retried("ada", "open again")])
    assert trip.status == "completed"


def test_an_undo_has_answers_of_its_own() -> None:
    script: Script = {**PRICED, "pay": Refused("no", "no"), "book[0]/undo": SILENCE}
    trip = rehearse(travel, Trip(), script, signals=YES)
    assert (trip.status, trip.undone) == ("stuck", ["book[1]"])
    trip = rehearse(travel, Trip(), script, signals=YES, when_stuck=[Resolved("ada", "seen to it")])
    assert (trip.status, trip.undone) == ("compensated", ["book[1]", "book[0]"])


# --- children --------------------------------------------------------------------------------------------------------


def test_a_child_that_fails_undoes_itself_and_then_its_parent_is_undone() -> None:
    trip = rehearse(travel, Trip(by_car=True), {**PRICED, "hire-driver": Refused("no", "no driver")})
    assert trip.children["drive"].undone == ["hire"]
    assert (trip.status, sorted(trip.undone)) == ("compensated", ["book[0]", "book[1]"])
    assert trip.failure == "drive was refused: hire-driver was refused: no driver"


def test_a_child_that_has_completed_is_undone_when_its_parent_is() -> None:
    trip = rehearse(travel, Trip(by_car=True), {**PRICED, "pay": Refused("no", "no")}, signals=YES)
    assert trip.undone[0] == "drive"
    assert trip.children["drive"].status == "compensated"
    assert trip.children["drive"].undone == ["hire-driver", "hire"]


def test_a_child_that_still_runs_is_undone_when_its_parent_is_cancelled() -> None:
    slow: Script = {**PRICED, "hire": late(timedelta(seconds=4), Ok())}
    order = [(timedelta(seconds=2), Cancelled("ada", "ill"))]
    trip = rehearse(travel, Trip(by_car=True), slow, orders=order)
    assert (trip.status, trip.children["drive"].status) == ("compensated", "compensated")
    assert trip.children["drive"].undone == ["hire"]


errand = Saga("errand", Trip, (child(drive, ride_of),), pivot=None)
NO_RETURN: Script = {"hire-driver": Refused("no", "no driver"), Return: SILENCE}


def test_a_child_that_is_stuck_leaves_its_parent_waiting() -> None:
    trip = rehearse(errand, Trip(), NO_RETURN)
    assert (trip.status, trip.children["drive"].status) == ("running", "stuck")
    trip = rehearse(errand, Trip(), NO_RETURN, when_stuck=[Resolved("ada", "the car is back")])
    assert (trip.status, trip.children["drive"].status) == ("compensated", "compensated")


def test_the_deadline_of_the_parent_does_not_move_a_child_that_is_stuck() -> None:
    trip = rehearse(travel, Trip(by_car=True), {**PRICED, **NO_RETURN})
    assert (trip.status, trip.children["drive"].status) == ("compensating", "stuck")
    assert trip.failure == "its deadline of 7 days, 0:00:00 has passed"


def test_a_child_may_be_answered_for_instead_of_being_rehearsed() -> None:
    trip = rehearse(errand, Trip(), {"drive": Refused("compensated", "no car")})
    assert (trip.status, trip.children) == ("compensated", {})
    trip = rehearse(errand, Trip(), {StartSaga: SagaEnded(saga_id="child-1", result={})})
    assert (trip.status, trip.children) == ("completed", {})


def test_children_have_children() -> None:
    outer = Saga("outer", Trip, (child(errand, lambda trip: trip),), pivot=step(pay))
    trip = rehearse(outer, Trip(), {Pay: Refused("no", "no")})
    assert trip.status == "compensated"
    assert trip.children["errand"].children["drive"].undone == ["hire-driver", "hire"]


# --- scripts that do not fit -----------------------------------------------------------------------------------------


def complaint(*arguments: Any, **options: Any) -> str:
    with pytest.raises(CannotRehearse) as caught:
        rehearse(*arguments, **options)
    return str(caught.value)


def test_a_reply_that_is_needed_and_missing_is_named_with_its_step() -> None:
    said = complaint(travel, Trip())
    assert said == (
        "the script has no answer for step book[0], and Priced needs one; "
        'add {"book[0]": Priced(price=…)}, or under Book'
    )
    with_undo = Saga("dear", Trip, (reversible_each(cities, free, undo=book),), step(pay))
    assert 'add {"free[0]/undo": Priced(price=…)}' in complaint(with_undo, Trip(), {Pay: Refused("no", "no")})


@pytest.mark.parametrize("key", ["boook", "book/do", "pay/undo", "cool-off", "approval", "", Return])
def test_a_script_that_speaks_of_what_is_not_there_is_refused(key: Any) -> None:
    alone = Saga("alone", Trip, travel.reversible[:1], step(pay))
    name = key if isinstance(key, str) else "Return"
    said = complaint(alone, Trip(), {key: Ok()})
    assert said == f"answers speaks of {name}, which alone does not have; it has: book, book/undo, pay"


def test_signals_that_nobody_waits_for_are_refused() -> None:
    said = complaint(travel, Trip(), PRICED, signals={"aproval": Approval(by="ada")})
    assert said == "signals speaks of aproval, which travel does not have; it has: approval"
    assert complaint(drive, Ride(), signals=YES).endswith("which drive does not have; it has: none")


def test_an_answer_of_the_wrong_type_is_refused() -> None:
    said = complaint(travel, Trip(), {Book: Ok()})
    assert said == "Book is answered by Priced or Refused, not by Ok(); mend the script"


def test_an_empty_list_of_answers_is_refused() -> None:
    assert "an empty list for Book" in complaint(travel, Trip(), {Book: []})


def test_a_saga_that_does_not_come_to_an_end_says_what_goes_on() -> None:
    stubborn = Saga("stubborn", Trip, (), step(pay, policy=Policy(attempts=None)))
    said = complaint(stubborn, Trip(), {Pay: SILENCE}, most_events=500)
    assert "the saga does not come to an end: after 500 events" in said
    assert "asked most often: stubborn: pay, 501 times" in said


def test_what_a_fake_raises_is_not_hidden() -> None:
    def broken(_: Book) -> Priced:
        raise ZeroDivisionError("the fake is broken")

    with pytest.raises(ZeroDivisionError, match="the fake is broken"):
        rehearse(travel, Trip(), {Book: broken})


def test_a_rehearsal_shows_itself_in_one_line() -> None:
    trip = rehearse(travel, Trip(cities=("Oslo",)), {**PRICED, "pay": Refused("no", "no money")}, signals=YES)
    assert repr(trip) == (
        "<travel compensated (pay was refused: no money) after 1 day, 0:00:00; sent: book[0], pay, book[0]/undo>"
    )


# --- fakes keep the protocol -----------------------------------------------------------------------------------------


def sent(command_id: str, undoes: str | None = None, attempt: int = 1) -> Dispatch:
    return Dispatch(command_id, attempt, Hire(), undoes)


def answer_to(one: Dispatch, outcome: Literal["done", "refused"] = "done") -> Answered:
    return Answered(one.command_id, outcome)


def test_a_command_is_carried_out_once_and_answered_as_often_as_it_comes() -> None:
    inbox, do = Inbox(), sent("s/hire/do")
    first = inbox.handle(do, lambda: answer_to(do))
    assert inbox.handle(sent("s/hire/do", attempt=2), lambda: answer_to(do, "refused")) == first


def test_silence_is_not_remembered() -> None:
    inbox, do = Inbox(), sent("s/hire/do")
    assert inbox.handle(do, lambda: None) is None
    assert inbox.handle(do, lambda: answer_to(do)) == answer_to(do)


def test_a_do_that_comes_after_its_undo_is_refused() -> None:
    inbox, do, undo = Inbox(), sent("s/hire/do"), sent("s/hire/undo", undoes="s/hire/do")
    assert inbox.handle(undo, lambda: answer_to(undo)) == answer_to(undo)
    late_one = inbox.handle(do, lambda: answer_to(do))
    assert late_one is not None
    assert late_one.outcome == "refused"


def test_there_is_nothing_to_undo_of_what_was_refused() -> None:
    inbox, do, undo = Inbox(), sent("s/hire/do"), sent("s/hire/undo", undoes="s/hire/do")
    inbox.handle(do, lambda: answer_to(do, "refused"))
    assert inbox.handle(undo, lambda: answer_to(undo, "refused")) == answer_to(undo)
