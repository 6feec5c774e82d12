"""Steps that are skipped, and steps that are done once for each item of a list."""

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.calls import MOST_ITEMS
from orchestrator.definition import Policy, Saga, SagaData, parallel, reversible, reversible_each, step, step_each
from orchestrator.entries import Entry, Expanded, Skipped
from orchestrator.machine import evolve
from orchestrator.model import StepStatus
from orchestrator.steps import Reversible
from orchestrator.testing import Happening, answered, done, given, refused, resolved, retried, silence
from outbox.contracts import Command, Reply

# --- the trip ----------------------------------------------------------------------------------------------------


class Booked(Reply):
    price: int = 0


class Ok(Reply):
    pass


class BookRoom(Command[Booked], participant="hotel"):
    booking: str
    city: str


class FreeRoom(Command[Ok], participant="hotel"):
    booking: str


class Insure(Command[Ok], participant="insurer"):
    trip: str


class Charge(Command[Ok], participant="bank"):
    total: int


class SendTicket(Command[Ok], participant="mail"):
    city: str


class Trip(SagaData):
    cities: tuple[str, ...] = ("Oslo", "Rome", "Graz")
    insured: bool = False
    total: int = 0


def cities(trip: Trip) -> tuple[str, ...]:
    return trip.cities


def book_room(trip: Trip, city: str) -> BookRoom:
    return BookRoom(booking=f"{trip.saga_id}-{city}", city=city)


def free_room(trip: Trip, city: str) -> FreeRoom:
    return FreeRoom(booking=f"{trip.saga_id}-{city}")


def add_price(trip: Trip, booked: Booked) -> Trip:
    return trip.model_copy(update={"total": trip.total + booked.price})


def insure(trip: Trip) -> Insure:
    return Insure(trip=trip.saga_id)


def cancel_insurance(trip: Trip) -> Insure:
    return Insure(trip=trip.saga_id)


def is_insured(trip: Trip) -> bool:
    return trip.insured


def charge(trip: Trip) -> Charge:
    return Charge(total=trip.total)


def send_ticket(trip: Trip, city: str) -> SendTicket:
    return SendTicket(city=city)


FEW = Policy(timeout=timedelta(seconds=1), attempts=3, factor=2, jitter=0)


def one_room_at_a_time() -> Reversible[Trip]:
    return reversible_each(cities, book_room, undo=free_room, then=add_price, limit=1, policy=FEW, undo_policy=FEW)


def trip(limit: int | None = None, items: Any = cities, then: Any = add_price) -> Saga[Trip]:
    rooms = reversible_each(items, book_room, undo=free_room, then=then, limit=limit, policy=FEW, undo_policy=FEW)
    return Saga(
        name="trip",
        data=Trip,
        reversible=(reversible(insure, undo=cancel_insurance, when=is_insured), rooms),
        pivot=step(charge),
        retriable=(step_each(cities, send_ticket, limit=limit, policy=FEW),),
    )


ROOMS = ("book-room[0]", "book-room[1]", "book-room[2]")
TICKETS = ("send-ticket[0]", "send-ticket[1]", "send-ticket[2]")


def booked(price: int = 100) -> list[Happening]:
    return [done(room, price=price) for room in ROOMS]


# --- skipped -----------------------------------------------------------------------------------------------------


def test_a_step_whose_condition_does_not_hold_is_skipped_and_the_next_one_is_asked() -> None:
    saga = given(trip()).started(insured=False).then_logs("started", "skipped", "expanded", "asked", "asked", "asked")
    saga.then_asks(*ROOMS).then_step("insure", StepStatus.SKIPPED)


def test_a_step_whose_condition_holds_is_asked() -> None:
    given(trip()).started(insured=True).then_asks("insure").when(done("insure")).then_asks(*ROOMS)


def test_what_was_skipped_is_not_undone() -> None:
    saga = given(trip()).started(insured=False).when(*booked(), refused("charge")).then_undoes(*ROOMS)
    saga.when(*[done(room) for room in ROOMS]).then_compensated().then_step("insure", StepStatus.SKIPPED)


def test_a_reply_to_what_was_skipped_changes_nothing() -> None:
    given(trip()).started().when(answered("insure/do")).then_nothing_happened("awaits no answer: skipped")


def test_a_condition_is_asked_when_the_turn_of_its_step_comes() -> None:
    def is_dear(data: Trip) -> bool:
        return data.total > 250

    rooms = reversible_each(cities, book_room, undo=free_room, then=add_price)
    late = Saga("late", Trip, (rooms, reversible(insure, undo=cancel_insurance, when=is_dear)), step(charge))
    given(late).started().when(*booked(100)).then_asks("insure")
    given(late).started().when(*booked(50)).then_asks("charge").then_step("insure", StepStatus.SKIPPED)


def test_a_whole_stage_may_be_skipped_and_a_saga_of_nothing_else_completes_at_once() -> None:
    nothing = Saga("nothing", Trip, (parallel(reversible(insure, undo=cancel_insurance, when=is_insured)),), pivot=None)
    given(nothing).started().then_logs("started", "skipped", "completed").then_completed()


def test_one_of_two_parallel_steps_may_be_skipped() -> None:
    group = parallel(
        reversible(insure, undo=cancel_insurance, when=is_insured),
        reversible_each(cities, book_room, undo=free_room, when=is_insured),
        reversible_each(lambda _: ("Bonn",), book_room_again, undo=free_room),
    )
    saga = given(Saga("beside", Trip, (group,), step(charge))).started().then_asks("book-room-again[0]")
    saga.when(done("book-room-again[0]")).then_asks("charge").then_step("book-room", StepStatus.SKIPPED)


def book_room_again(trip: Trip, city: str) -> BookRoom:
    return BookRoom(booking=trip.saga_id, city=city)


def test_a_condition_that_fails_is_stuck_until_a_person_retries() -> None:
    ill = {"now": True}

    def is_asked_for(_: Trip) -> bool:
        if ill["now"]:
            raise ZeroDivisionError("who knows")
        return True

    first = reversible(insure, undo=cancel_insurance, when=is_asked_for)
    saga = given(Saga("ill", Trip, (first,), step(charge))).started().then_logs("started", "stuck")
    saga.then_is_stuck("insure: the definition's `when` failed: ZeroDivisionError: who knows").then_no_timer_runs()
    saga.when(retried()).then_is_stuck("who knows").then_sends()
    ill["now"] = False
    saga.when(retried()).then_asks("insure").then_status("running")


def test_a_retriable_step_may_be_skipped_too() -> None:
    last = step(insure, when=is_insured)
    saga = given(Saga("last", Trip, (), step(charge), (last,))).started().when(done("charge"))
    saga.then_logs("done", "skipped", "completed").then_completed()


# --- each --------------------------------------------------------------------------------------------------------


def test_a_step_is_done_for_each_item_in_parallel() -> None:
    saga = given(trip()).started().then_asks(*ROOMS)
    assert [one.command for one in saga.last.dispatches] == [
        BookRoom(booking=f"saga-1-{city}", city=city) for city in ("Oslo", "Rome", "Graz")
    ]
    saga.when(done(ROOMS[1], price=1), done(ROOMS[0], price=2)).then_sends_nothing()
    saga.when(done(ROOMS[2], price=4)).then_asks("charge").then_knows(total=7)
    saga.when(done("charge")).then_asks(*TICKETS).when(*[done(ticket) for ticket in TICKETS]).then_completed()


def test_the_instances_stand_in_the_place_of_their_step() -> None:
    saga = given(trip()).started().saga
    assert list(saga.steps) == ["insure", *ROOMS, "charge", "send-ticket"]


def test_no_items_no_step() -> None:
    saga = given(trip()).started(cities=()).then_asks("charge").then_step("book-room", StepStatus.SKIPPED)
    saga.when(done("charge")).then_logs("done", "skipped", "completed").then_completed()


def test_at_most_as_many_as_the_limit_says_are_asked_at_a_time() -> None:
    saga = given(trip(limit=2)).started().then_asks(*ROOMS[:2])
    saga.when(silence(ROOMS[0])).then_sends((f"{ROOMS[0]}/do", 2))
    saga.when(done(ROOMS[1])).then_asks(ROOMS[2])
    saga.when(done(ROOMS[0])).then_sends_nothing().when(done(ROOMS[2])).then_asks("charge")


def test_what_is_refused_and_waits_to_be_asked_again_counts_for_the_limit() -> None:
    saga = given(trip(limit=1)).started()
    saga.when(*booked(), done("charge")).then_asks(TICKETS[0])
    saga.when(refused(TICKETS[0])).then_sends_nothing().when(silence(TICKETS[0])).then_sends((f"{TICKETS[0]}/do/2", 2))
    saga.when(done(TICKETS[0])).then_asks(TICKETS[1])


def test_a_limit_above_the_number_of_items_changes_nothing() -> None:
    given(trip(limit=99)).started().then_asks(*ROOMS)


def test_an_instance_that_is_refused_undoes_the_others_and_asks_no_more() -> None:
    saga = given(trip()).started().when(done(ROOMS[0]), refused(ROOMS[1], "full")).then_undoes(ROOMS[0], ROOMS[2])
    assert saga.saga.failure == "book-room[1] was refused: full"
    saga.when(done(ROOMS[0])).then_sends_nothing().when(done(ROOMS[2])).then_compensated()


def test_an_instance_that_was_not_asked_yet_is_neither_asked_nor_undone_on_the_way_back() -> None:
    saga = given(trip(limit=1)).started().when(done(ROOMS[0]), refused(ROOMS[1])).then_undoes(ROOMS[0])
    saga.when(done(ROOMS[0])).then_compensated().then_step(ROOMS[2], StepStatus.PENDING)


def test_undos_keep_the_limit_too() -> None:
    saga = given(trip(limit=2)).started()
    for room in ROOMS:
        saga.when(done(room))
    saga.when(refused("charge")).then_undoes(*ROOMS[:2]).when(done(ROOMS[1])).then_undoes(ROOMS[2])
    saga.when(refused(ROOMS[0])).then_sends_nothing().when(done(ROOMS[2])).then_sends_nothing()
    saga.when(silence(ROOMS[0])).then_sends((f"{ROOMS[0]}/undo/2", 2)).when(done(ROOMS[0])).then_compensated()


def test_what_waits_for_the_turn_of_its_undo_is_not_asked_again() -> None:
    group = parallel(reversible(insure, undo=cancel_insurance), one_room_at_a_time())
    saga = given(Saga("narrow", Trip, (group,), step(charge))).started()
    saga.when(done(ROOMS[0])).then_asks(ROOMS[1]).when(refused("insure")).then_undoes(ROOMS[0])
    saga.when(silence(ROOMS[1])).then_logs("given-up").then_sends_nothing()
    saga.when(answered(f"{ROOMS[1]}/do")).then_nothing_happened("awaits no answer: unknown")
    saga.when(done(ROOMS[0])).then_undoes(ROOMS[1]).when(done(ROOMS[1])).then_compensated()


def test_what_waits_for_the_turn_of_its_undo_may_still_answer() -> None:
    group = parallel(reversible(insure, undo=cancel_insurance), one_room_at_a_time())
    saga = given(Saga("narrow", Trip, (group,), step(charge))).started().when(done(ROOMS[0]), refused("insure"))
    saga.when(refused(ROOMS[1])).then_logs("refused").then_sends_nothing()
    saga.when(done(ROOMS[0])).then_compensated().then_step(ROOMS[1], StepStatus.REFUSED)


def test_an_undo_is_built_from_the_same_item() -> None:
    saga = given(trip()).started().when(*booked(), refused("charge"))
    assert [one.command for one in saga.last.dispatches] == [
        FreeRoom(booking=f"saga-1-{city}") for city in ("Oslo", "Rome", "Graz")
    ]
    assert [one.undoes for one in saga.last.dispatches] == [f"saga-1/{room}/do" for room in ROOMS]


def test_an_instance_that_stays_unknown_is_undone_itself() -> None:
    saga = given(trip()).started().when(done(ROOMS[0]), done(ROOMS[2]), *[silence(ROOMS[1])] * 3)
    saga.then_undoes(*ROOMS).then_failed("book-room[1] gave no answer")


def test_an_instance_that_is_stuck_does_not_hold_back_the_others() -> None:
    saga = given(trip()).started().when(*booked(), done("charge"), *[silence(TICKETS[0])] * 3)
    saga.then_is_stuck("send-ticket[0]").when(done(TICKETS[1]), done(TICKETS[2])).then_is_stuck("send-ticket[0]")
    saga.when(retried()).then_sends((f"{TICKETS[0]}/do", 4)).when(done(TICKETS[0])).then_completed()


def test_two_steps_over_lists_may_stand_side_by_side() -> None:
    group = parallel(
        reversible_each(cities, book_room, undo=free_room),
        reversible_each(cities, book_room_again, undo=free_room, limit=1),
    )
    saga = given(Saga("twice", Trip, (group,), step(charge))).started(cities=("Oslo", "Rome"))
    saga.then_asks("book-room[0]", "book-room[1]", "book-room-again[0]")


@pytest.mark.parametrize("late", ["book-room/do", "book-room[3]/do", "book-room[0]/do/2", "book-room[x]/do"])
def test_a_reply_to_no_instance_changes_nothing(late: str) -> None:
    given(trip()).started().when(answered(late)).then_nothing_happened("not the one that is out")


def test_a_duplicate_of_an_instances_reply_changes_nothing() -> None:
    again = answered("book-room[0]/do", price=5)
    given(trip()).started().when(again, again).then_nothing_happened("awaits no answer: done").then_knows(total=5)


# --- what goes wrong with a list -----------------------------------------------------------------------------------


def test_a_then_that_changes_the_list_is_stuck_and_says_so() -> None:
    def drop_one(data: Trip, _: Booked) -> Trip:
        return data.model_copy(update={"cities": data.cities[1:]})

    saga = given(trip(then=drop_one)).started().when(done(ROOMS[0]))
    saga.then_is_stuck("book-room[0]: the definition's `then` failed", "changed the list that step book-room runs over")
    saga.then_knows(cities=["Oslo", "Rome", "Graz"])


def test_a_later_then_must_not_change_the_list_either() -> None:
    def forget_all(data: Trip, _: Ok) -> Trip:
        return data.model_copy(update={"cities": ()})

    rooms = reversible_each(cities, book_room, undo=free_room)
    forgetful = Saga("forgetful", Trip, (rooms,), step(charge, then=forget_all))
    saga = given(forgetful).started().when(*booked(), done("charge"))
    saga.then_is_stuck("charge: the definition's `then` failed", "changed the list that step book-room runs over")


def test_a_list_may_be_changed_before_its_turn_comes() -> None:
    def add_city(data: Trip, _: Ok) -> Trip:
        return data.model_copy(update={"cities": (*data.cities, "Bonn")})

    rooms = reversible_each(cities, book_room, undo=free_room)
    longer = Saga("longer", Trip, (reversible(insure, undo=cancel_insurance, then=add_city), rooms), step(charge))
    given(longer).started().when(done("insure")).then_asks(*ROOMS, "book-room[3]")


def test_more_items_than_a_saga_can_carry_are_stuck_and_say_so() -> None:
    just_enough = given(trip()).started(cities=("Oslo",) * MOST_ITEMS)
    assert len(just_enough.last.dispatches) == MOST_ITEMS
    too_many = given(trip()).started(cities=("Oslo",) * (MOST_ITEMS + 1)).then_sends()
    too_many.then_is_stuck("book-room: the step has 1,001 items, and 1,000 is the limit")


def test_items_that_fail_are_stuck() -> None:
    def no_list(_: Trip) -> Any:
        return 7

    given(trip(items=no_list)).started().then_is_stuck(
        "book-room: the definition's `items` failed: TypeError"
    ).then_sends()


def test_a_person_may_answer_for_items_that_fail() -> None:
    def no_list(_: Trip) -> Any:
        return 7

    rooms = reversible_each(no_list, book_room, undo=free_room)
    saga = given(Saga("by-hand", Trip, (rooms,), step(charge))).started().then_is_stuck("items")
    saga.when(resolved("book-room")).then_asks("charge").then_step("book-room", StepStatus.DONE)


def test_a_step_that_cannot_be_built_for_one_item_does_not_hold_back_the_others() -> None:
    def book_unless_rome(data: Trip, city: str) -> BookRoom:
        if city == "Rome":
            raise ZeroDivisionError("all roads lead there")
        return book_room(data, city)

    rooms = reversible_each(cities, book_unless_rome, undo=free_room)
    saga = given(Saga("not-rome", Trip, (rooms,), step(charge))).started()
    saga.then_asks("book-unless-rome[0]", "book-unless-rome[2]").then_is_stuck("book-unless-rome[1]", "all roads")
    saga.when(refused("book-unless-rome[2]"), done("book-unless-rome[0]")).then_compensated()
    saga.then_step("book-unless-rome[1]", StepStatus.PENDING)


@pytest.mark.parametrize(
    "forged",
    [
        Expanded("book-room", ["book-room[0]"]),
        Expanded("charge[0]", []),
        Skipped("book-room[0]"),
    ],
)
def test_an_entry_about_a_list_that_no_machine_writes_is_refused(forged: Entry) -> None:
    with pytest.raises(KeyError):
        evolve(given(trip()).started().when(done("book-room[0]")).saga, forged)


def test_what_was_asked_cannot_be_expanded() -> None:
    with pytest.raises(KeyError, match="only what was never asked can be expanded"):
        evolve(given(trip()).started(insured=True).saga, Expanded("insure", ["insure[0]"]))
