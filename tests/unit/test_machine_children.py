"""Sagas as steps of sagas: how a parent starts and undoes its child, and how a child obeys."""

from datetime import timedelta

import pytest

from orchestrator.definition import (
    Policy,
    Saga,
    SagaData,
    SagaEnded,
    child,
    reversible,
    step,
    supplied,
)
from orchestrator.machine import Terms, UnreadableReply
from orchestrator.model import Caller, StepStatus
from orchestrator.steps import SagaUndone, StartSaga, UndoSaga
from orchestrator.testing import (
    Happening,
    Specification,
    answered,
    cancelled,
    done,
    given,
    paused,
    refused,
    resumed,
    retried,
    silence,
    timer,
    undo_requested,
)
from outbox.contracts import Command, Reply

# --- the parent and the child --------------------------------------------------------------------------------------


class Ok(Reply):
    pass


class BookFlight(Command[Ok], participant="airline"):
    booking: str
    to: str


class FreeFlight(Command[Ok], participant="airline"):
    booking: str


class Charge(Command[Ok], participant="bank"):
    total: int


class Flight(SagaData):
    to: str
    seat: str | None = supplied()


class Trip(SagaData):
    city: str = "Rome"
    total: int = 0


def book_flight(flight: Flight) -> BookFlight:
    return BookFlight(booking=flight.saga_id, to=flight.to)


def book_way_back(flight: Flight) -> BookFlight:
    return BookFlight(booking=flight.saga_id, to="home")


def free_flight(flight: Flight) -> FreeFlight:
    return FreeFlight(booking=flight.saga_id)


def charge(trip: Trip) -> Charge:
    return Charge(total=trip.total)


def flight_of(trip: Trip) -> Flight:
    return Flight(to=trip.city)


def add_price(trip: Trip, ended: SagaEnded) -> Trip:
    return trip.model_copy(update={"total": len(ended.result["to"])})


FEW = Policy(timeout=timedelta(seconds=1), attempts=3, factor=2, jitter=0)
BOOK = reversible(book_flight, undo=free_flight, policy=FEW, undo_policy=FEW)
BACK = reversible(book_way_back, undo=free_flight, policy=FEW, undo_policy=FEW)
CHARGE = step(charge)

fly = Saga(name="fly", data=Flight, reversible=(BOOK, BACK), pivot=None)
trip = Saga(name="trip", data=Trip, reversible=(child(fly, flight_of, then=add_price),), pivot=CHARGE)

ended = done("fly", SagaEnded(saga_id="child-1", result={"to": "Rome", "saga_id": "child-1"}))
CALLER = Caller("parent-1/fly/do", "saga.reply.orchestrator")
UNDO = Caller("parent-1/fly/undo", "saga.reply.orchestrator")


def flown() -> Specification:
    """The child has completed."""
    return child_started().when(done("book-flight"), done("book-way-back")).then_completed()


def child_started() -> Specification:
    return given(fly).started_on(Terms(caller=CALLER), to="Rome")


# --- the parent ----------------------------------------------------------------------------------------------------


def test_a_child_is_a_command_to_the_orchestrator_with_the_childs_input() -> None:
    saga = given(trip).started(city="Oslo").then_asks("fly")
    assert saga.last.dispatches[0].command == StartSaga(saga="fly", input={"to": "Oslo"})
    assert trip.steps["fly"].participant == "orchestrator"


def test_a_child_that_has_completed_is_done_and_its_result_may_be_kept() -> None:
    given(trip).started().when(ended).then_asks("charge").then_knows(total=4)


def test_a_child_that_was_compensated_is_refused_and_leaves_nothing_to_undo() -> None:
    saga = given(trip).started().when(refused("fly", "no seats", code="compensated")).then_compensated()
    saga.then_failed("fly was refused: no seats")


def test_a_child_is_undone_as_a_whole() -> None:
    saga = given(trip).started().when(ended, refused("charge")).then_undoes("fly")
    undo = saga.last.dispatches[0]
    assert undo.command == UndoSaga(saga="fly", input={"to": "Rome"})
    assert undo.undoes == "saga-1/fly/do"
    saga.when(done("fly", SagaUndone(saga_id="child-1"))).then_compensated()


def test_a_child_that_still_runs_is_undone_when_its_parent_turns_back() -> None:
    saga = given(trip).started().when(cancelled()).then_undoes("fly")
    saga.when(answered("fly/do", saga_id="child-1", result={})).then_nothing_happened("not the one that is out")


def test_a_child_is_asked_for_as_long_as_it_takes() -> None:
    saga = given(trip).started().when(*[silence("fly")] * 50).then_sends(("fly/do", 51)).then_status("running")
    saga.then_next_timer_in(540, 660)


def test_the_end_of_a_child_must_be_told_in_full() -> None:
    with pytest.raises(UnreadableReply, match="the reply to fly cannot be read: saga_id"):
        given(trip).started().when(done("fly"))


def test_a_child_may_be_skipped() -> None:
    stay = Saga("stay", Trip, (child(fly, flight_of, when=lambda data: data.total > 0),), CHARGE)
    given(stay).started().then_asks("charge").then_step("fly", StepStatus.SKIPPED)


def test_the_input_of_a_child_that_cannot_be_made_is_stuck() -> None:
    def no_flight(_: Trip) -> Flight:
        raise ZeroDivisionError("no flight")

    ill = Saga("ill", Trip, (child(fly, no_flight),), CHARGE)
    given(ill).started().then_is_stuck("fly: the definition's `do` failed: ZeroDivisionError: no flight")


def test_a_child_with_a_pivot_may_be_the_pivot_or_follow_it() -> None:
    paid = Saga("paid", Trip, (), CHARGE)
    at_pivot = given(Saga("at-pivot", Trip, (), child(paid, lambda data: data))).started().then_asks("paid")
    at_pivot.when(cancelled()).then_nothing_happened("its pivot paid was asked")
    at_pivot.when(refused("paid")).then_compensated()
    after = given(Saga("after", Trip, (), CHARGE, (child(paid, lambda data: data),))).started().when(done("charge"))
    after.then_asks("paid").when(refused("paid")).then_status("running")
    after.when(silence("paid")).then_sends(("paid/do/2", 2))


# --- the child -----------------------------------------------------------------------------------------------------


def test_a_saga_knows_its_caller_and_whoever_undoes_it() -> None:
    assert child_started().saga.caller == CALLER
    assert flown().when(undo_requested(UNDO.command_id)).saga.undoer == UNDO


def test_a_child_that_has_completed_is_undone_in_the_order_of_the_reverse() -> None:
    saga = flown().when(undo_requested())
    saga.then_logs("undo-ordered", "compensation-started", "undo-asked").then_undoes("book-way-back")
    saga.then_failed("whoever started it undoes it").then_status("compensating")
    saga.when(done("book-way-back")).then_undoes("book-flight").when(done("book-flight")).then_compensated()


def test_a_child_that_runs_is_undone_from_where_it_is() -> None:
    saga = child_started().when(undo_requested()).then_undoes("book-flight")
    saga.when(done("book-flight")).then_compensated()


def test_a_child_that_waits_to_begin_is_undone_at_once() -> None:
    saga = given(fly).started_on(Terms(waits=True, caller=CALLER), to="Rome").when(undo_requested())
    saga.then_logs("undo-ordered", "compensation-started", "compensated").then_sends_nothing().then_compensated()


def test_a_child_that_is_paused_takes_note_and_is_undone_when_it_is_resumed() -> None:
    saga = child_started().when(paused(), undo_requested()).then_logs("undo-ordered", "compensation-started")
    saga.then_sends_nothing().when(resumed()).then_undoes("book-flight")


def test_a_child_that_is_stuck_is_undone() -> None:
    stuck = Saga("stuck", Flight, (reversible(book_flight, undo=free_flight, policy=FEW, if_unknown="stick"),), None)
    saga = given(stuck).started(to="Rome").when(*[silence("book-flight")] * 3).then_is_stuck()
    saga.when(undo_requested()).then_undoes("book-flight").then_status("compensating")


def test_a_child_that_turns_back_already_only_remembers_whom_to_tell() -> None:
    saga = child_started().when(done("book-flight"), refused("book-way-back")).then_undoes("book-flight")
    saga.when(undo_requested(UNDO.command_id)).then_logs("undo-ordered").then_sends_nothing()
    assert saga.saga.undoer == UNDO
    saga.when(undo_requested(UNDO.command_id)).then_nothing_happened("it is being undone already")
    saga.when(undo_requested("another/fly/undo")).then_logs("undo-ordered")


def test_a_child_that_was_compensated_stays_so() -> None:
    saga = child_started().when(refused("book-flight")).then_compensated()
    saga.when(undo_requested()).then_nothing_happened("the saga has ended: compensated")


def test_a_child_that_was_undone_is_not_undone_twice() -> None:
    saga = flown().when(undo_requested(), done("book-way-back"), done("book-flight")).then_compensated()
    saga.when(undo_requested()).then_nothing_happened("the saga has ended: compensated")


@pytest.mark.parametrize("event", [cancelled(), retried(), answered("book-flight/do"), timer("book-flight", 1)])
def test_only_its_caller_undoes_a_child_that_has_completed(event: Happening) -> None:
    flown().when(event).then_nothing_happened("the saga has ended: completed")


def test_a_saga_with_a_pivot_is_undone_before_it_and_never_after() -> None:
    def started() -> Specification:
        return given(trip).started_on(Terms(caller=CALLER))

    started().when(undo_requested()).then_undoes("fly")
    started().when(ended, undo_requested()).then_nothing_happened("its pivot charge was asked and may have happened")
    started().when(ended, done("charge"), undo_requested()).then_nothing_happened("the saga has ended: completed")


def test_a_child_whose_steps_were_all_skipped_is_undone_at_once() -> None:
    idle = Saga("idle", Flight, (reversible(book_flight, undo=free_flight, when=lambda data: data.to == "x"),), None)
    saga = given(idle).started(to="Rome").then_completed().when(undo_requested()).then_sends_nothing()
    saga.then_compensated()
