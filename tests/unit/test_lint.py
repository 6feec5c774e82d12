"""Every hazard is found where it is, and not where it was mended; what is well made has none."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final

import pytest
from pydantic import Field

from orchestrator.definition import (
    Policy,
    Saga,
    SagaData,
    Signal,
    child,
    delay,
    parallel,
    reversible,
    reversible_each,
    step,
    step_each,
    supplied,
    wait_for,
)
from orchestrator.durations import in_words
from orchestrator.lint import CHECKS, Broker, Hazard, lint
from orchestrator.sagas.place_order import place_order
from outbox.contracts import Command, Reply

BROKER: Final = Broker(ack_wait=timedelta(seconds=30), kept_for=timedelta(days=3))
HOUR: Final = timedelta(hours=1)


class Booked(Reply):
    code: str


class Book(Command[Booked], participant="hotel"):
    booking_id: str
    guest_id: str = ""


class Cancel(Command[Booked], participant="hotel"):
    booking_id: str


class Drive(Command[Booked], participant="cars"):
    booking_id: str


class Charge(Command[Booked], participant="bank"):
    amount: int = 1


class Note(Command[Booked], participant="office"):
    text: str = ""


class Trip(SagaData):
    guest: str = "ada"
    rooms: tuple[str, ...] = ()
    few_rooms: Annotated[tuple[str, ...], Field(max_length=20)] = ()
    many_rooms: Annotated[tuple[str, ...], Field(max_length=21)] = ()
    code: str | None = supplied()


class Approval(Signal):
    pass


def open_trip(trip: Trip) -> Note:
    return Note()


def reject_trip(trip: Trip) -> Note:
    return Note()


def book_hotel(trip: Trip) -> Book:
    return Book(booking_id=trip.saga_id, guest_id=trip.guest)


def book_same_hotel(journey: Trip) -> Book:
    return Book(booking_id=journey.saga_id)


def book_other_hotel(trip: Trip) -> Book:
    return Book(booking_id=f"{trip.saga_id}-2", guest_id=trip.guest)


def rent_car(trip: Trip) -> Drive:
    return Drive(booking_id=trip.saga_id)


def cancel_hotel(trip: Trip) -> Cancel:
    return Cancel(booking_id=trip.saga_id)


def cancel_by_code(trip: Trip) -> Cancel:
    return Cancel(booking_id=trip.code or "?")


def keep_code(trip: Trip, reply: Booked) -> Trip:
    return trip.model_copy(update={"code": reply.code})


def book_room(trip: Trip, room: str) -> Book:
    return Book(booking_id=f"{trip.saga_id}-{room}")


def cancel_room(trip: Trip, room: str) -> Cancel:
    return Cancel(booking_id=f"{trip.saga_id}-{room}")


def pay(trip: Trip) -> Charge:
    return Charge()


def tell_hotel(trip: Trip) -> Cancel:
    return Cancel(booking_id=trip.saga_id)


def close_trip(trip: Trip) -> Note:
    return Note()


def agreed_code(trip: Trip) -> str | None:
    return trip.code


def has_code(trip: Trip) -> bool:
    return trip.code is not None


def rooms(trip: Trip) -> tuple[str, ...]:
    return trip.rooms


def few_rooms(trip: Trip) -> tuple[str, ...]:
    return trip.few_rooms


def many_rooms(trip: Trip) -> tuple[str, ...]:
    return trip.many_rooms


OPEN = reversible(open_trip, undo=reject_trip)
HOTEL = reversible(book_hotel, undo=cancel_hotel)
HOTEL_WITH_CODE = reversible(book_hotel, undo=cancel_hotel, then=keep_code)
PAY = step(pay)
TELL_HOTEL = step(tell_hotel)
CLOSE = step(close_trip)


def trip(*before: Any, **more: Any) -> Saga[Trip]:
    """A saga with these steps before its pivot. The places take anything, as the variety of the cases needs."""
    parts: dict[str, Any] = {"name": "trip", "data": Trip, "reversible": before or (HOTEL,), "pivot": PAY}
    return Saga(**{**parts, **more})


def asked(**policy: Any) -> Any:
    return reversible(book_hotel, undo=cancel_hotel, policy=Policy(**policy))


def undone(**policy: Any) -> Any:
    return reversible(book_hotel, undo=cancel_hotel, undo_policy=Policy(**policy))


SUB = trip(HOTEL, name="sub", pivot=None)
SUB_WITH_DEADLINE = trip(HOTEL, name="sub", pivot=None, deadline=HOUR)
SLOW_SUB = trip(wait_for(Approval, timeout=HOUR), name="sub", pivot=None, deadline=2 * HOUR)


def sub(saga: Saga[Trip], **more: Any) -> Any:
    return child(saga, lambda trip: trip, **more)


ONE_SECOND: Final = timedelta(seconds=1)
CASES: Final[Mapping[str, tuple[str, str, Saga[Trip], Saga[Trip]]]] = {
    "retries that outlast the deadline": (
        "A001", "",
        trip(OPEN, HOTEL, deadline=timedelta(minutes=7)),
        trip(OPEN, HOTEL, deadline=timedelta(minutes=8)),
    ),
    "a wait that leaves the retries no time": (
        "A001", "",
        trip(wait_for(Approval, timeout=2 * HOUR), HOTEL, deadline=2 * HOUR),
        trip(wait_for(Approval, timeout=2 * HOUR), HOTEL, deadline=3 * HOUR),
    ),
    "parallel retries count once": (
        "A001", "",
        trip(parallel(OPEN, HOTEL), reversible(rent_car, undo=cancel_hotel), deadline=timedelta(minutes=7)),
        trip(parallel(OPEN, HOTEL), deadline=timedelta(minutes=4)),
    ),
    "delays that outlast the deadline": (
        "A002", "",
        trip(delay("one", HOUR), delay("two", HOUR), HOTEL, deadline=2 * HOUR),
        trip(parallel(delay("one", HOUR), delay("two", HOUR)), HOTEL, deadline=2 * HOUR),
    ),
    "given up before the broker brings it again": (
        "A003", "book-hotel", trip(asked(attempts=1)), trip(asked(attempts=1, timeout=timedelta(minutes=1)))
    ),
    "an undo that is given up before the broker brings it again": (
        "A003", "book-hotel", trip(undone(attempts=7, timeout=ONE_SECOND, factor=1)), trip(undone(attempts=7))
    ),
    "asked too often": (
        "A004", "pay",
        trip(pivot=step(pay, policy=Policy(attempts=60, timeout=ONE_SECOND, factor=1))),
        trip(pivot=step(pay, policy=Policy(attempts=60, timeout=ONE_SECOND, factor=1.5))),
    ),
    "asked when it is forgotten": (
        "A005", "pay",
        trip(pivot=step(pay, policy=Policy(attempts=100, timeout=HOUR, cap=HOUR))),
        trip(pivot=step(pay, policy=Policy(attempts=50, timeout=HOUR, cap=HOUR))),
    ),
    "asked for ever with waits that outlast the memory": (
        "A005", "pay",
        trip(pivot=step(pay, policy=Policy(attempts=None, cap=timedelta(days=4)))),
        trip(pivot=step(pay, policy=Policy(attempts=None, cap=timedelta(days=2)))),
    ),
    "an undo that reads its own reply": (
        "A006", "book-hotel",
        trip(reversible(book_hotel, undo=cancel_by_code, then=keep_code)),
        trip(HOTEL_WITH_CODE),
    ),
    "an undo that reads a later reply": (
        "A006", "open-trip",
        trip(reversible(open_trip, undo=cancel_by_code), HOTEL_WITH_CODE),
        trip(HOTEL_WITH_CODE, reversible(open_trip, undo=cancel_by_code)),
    ),
    "an undo that gives up": ("A007", "book-hotel", trip(undone(attempts=5)), trip(undone(attempts=6))),
    "a pivot that gives up": (
        "A008", "pay",
        trip(pivot=step(pay, policy=Policy(attempts=5))),
        trip(pivot=step(pay, policy=Policy(attempts=None))),
    ),
    "a retriable step that gives up": (
        "A008", "close-trip",
        trip(retriable=(step(close_trip, policy=Policy(attempts=5)),)),
        trip(retriable=(step(close_trip, policy=Policy(attempts=6)),)),
    ),
    "a refusal that is asked again for ever": (
        "A009", "close-trip",
        trip(retriable=(step(close_trip, policy=Policy(attempts=None)),)),
        trip(retriable=(step(close_trip, policy=Policy(attempts=None, not_retried=frozenset({"gone"}))),)),
    ),
    "a child that is started anew for ever": (
        "A009", "sub",
        trip(retriable=(sub(SUB_WITH_DEADLINE, policy=Policy(attempts=None)),)),
        trip(retriable=(sub(SUB_WITH_DEADLINE, policy=Policy(attempts=20, cap=HOUR)),)),
    ),
    "an undo that is refused for ever": ("A009", "book-hotel", trip(undone(attempts=None)), trip(undone(attempts=20))),
    "silence for ever": ("A010", "book-hotel", trip(asked(attempts=None)), trip(asked(attempts=None), deadline=HOUR)),
    "a wait for ever": (
        "A011", "approval", trip(wait_for(Approval), HOTEL), trip(wait_for(Approval), HOTEL, deadline=HOUR)
    ),
    "a child without a deadline": ("A012", "sub", trip(sub(SUB)), trip(sub(SUB), deadline=HOUR)),
    "a child without a deadline after the pivot": (
        "A012", "sub",
        trip(retriable=(sub(SUB, policy=Policy()),), deadline=HOUR),
        trip(retriable=(sub(SUB_WITH_DEADLINE, policy=Policy()),), deadline=HOUR),
    ),
    "a list without a limit": (
        "A013", "book-room",
        trip(reversible_each(rooms, book_room, undo=cancel_room)),
        trip(reversible_each(rooms, book_room, undo=cancel_room, limit=10)),
    ),
    "a list that may be long": (
        "A013", "book-room",
        trip(retriable=(step_each(many_rooms, book_room),)),
        trip(retriable=(step_each(few_rooms, book_room),)),
    ),
    "the same thing twice at once": (
        "A014", "book-same-hotel",
        trip(parallel(HOTEL, reversible(book_same_hotel, undo=cancel_hotel))),
        trip(parallel(HOTEL, reversible(book_other_hotel, undo=cancel_hotel))),
    ),
    "two participants may use the same id": (
        "A014", "book-same-hotel",
        trip(parallel(HOTEL, reversible(book_same_hotel, undo=cancel_hotel))),
        trip(parallel(HOTEL, reversible(rent_car, undo=cancel_hotel))),
    ),
    "held while somebody thinks": (
        "A015", "approval",
        trip(HOTEL, wait_for(Approval, timeout=HOUR)),
        trip(wait_for(Approval, timeout=HOUR), HOTEL),
    ),
    "what is decided upon may be held": (
        "A015", "approval",
        trip(HOTEL_WITH_CODE, wait_for(Approval, timeout=HOUR)),
        trip(HOTEL_WITH_CODE, wait_for(Approval, timeout=HOUR), queries=(agreed_code,)),
    ),
    "what a delay depends on may be held": (
        "A015", "cool-off",
        trip(HOTEL_WITH_CODE, delay("cool-off", HOUR)),
        trip(HOTEL_WITH_CODE, delay("cool-off", HOUR, when=has_code)),
    ),
    "held while a child waits": (
        "A015", "sub", trip(HOTEL, sub(SLOW_SUB)), trip(HOTEL, sub(SUB_WITH_DEADLINE))
    ),
    "a lock that is lifted early": (
        "A016", "close-trip",
        trip(OPEN, HOTEL, retriable=(CLOSE, TELL_HOTEL)),
        trip(OPEN, HOTEL, retriable=(TELL_HOTEL, CLOSE)),
    ),
    "who holds nothing may hear later": (
        "A016", "close-trip",
        trip(OPEN, HOTEL, retriable=(CLOSE, TELL_HOTEL)),
        trip(OPEN, retriable=(CLOSE, TELL_HOTEL)),
    ),
}  # fmt: skip


def found(definition: Saga[Any], code: str) -> list[Hazard]:
    return [hazard for hazard in lint(definition, BROKER) if hazard.code == code]


@pytest.mark.parametrize(("code", "place", "hazardous", "mended"), CASES.values(), ids=CASES)
def test_a_hazard_is_found_where_it_is_and_gone_when_it_is_mended(
    code: str, place: str, hazardous: Saga[Trip], mended: Saga[Trip]
) -> None:
    assert [(hazard.saga, hazard.step) for hazard in found(hazardous, code)] == [("trip", place)]
    assert found(mended, code) == []


@pytest.mark.parametrize(("code", "place", "hazardous", "mended"), CASES.values(), ids=CASES)
def test_a_hazard_has_a_reason_and_a_remedy(code: str, place: str, hazardous: Saga[Trip], mended: Saga[Trip]) -> None:
    for hazard in lint(hazardous, BROKER):
        assert len(hazard.message.split()) > 10
        assert len(hazard.remedy.split()) > 3
        assert not set(hazard.message + hazard.remedy) & set("<>")  # no lambda, no object


def test_every_check_has_a_case_and_finds_hazards_of_its_own_code() -> None:
    assert {code for code, *_ in CASES.values()} == set(CHECKS)


def test_what_is_well_made_has_no_hazards() -> None:
    assert lint(place_order, BROKER) == []
    whole = trip(
        wait_for(Approval, timeout=HOUR),
        OPEN,
        parallel(HOTEL, reversible(rent_car, undo=cancel_hotel)),
        retriable=(TELL_HOTEL, CLOSE),
        deadline=2 * HOUR,
    )
    assert lint(whole, BROKER) == []


def test_a_delay_whose_length_depends_on_the_data_is_not_guessed() -> None:
    assert found(trip(delay("a-while", lambda trip: HOUR), HOTEL, deadline=timedelta(minutes=10)), "A002") == []


FIELD: Final = "code"


def keep_somehow(trip: Trip, reply: Booked) -> Trip:
    return trip.model_copy(update={FIELD: reply.code})


def test_an_answer_that_may_set_any_supplied_field_may_set_the_one_that_an_undo_reads() -> None:
    hidden = reversible(book_hotel, undo=cancel_by_code, then=keep_somehow)
    assert [hazard.step for hazard in found(trip(hidden), "A006")] == ["book-hotel"]


def cancel_somehow(trip: Trip) -> Cancel:
    return cancel_by_code(trip)


def test_where_the_whole_data_is_handed_on_nothing_is_claimed() -> None:
    assert found(trip(reversible(book_hotel, undo=cancel_somehow, then=keep_code)), "A006") == []


def test_delays_that_leave_no_time_at_all_are_said_once() -> None:
    always = trip(delay("one", HOUR), HOTEL, deadline=HOUR)
    assert [hazard.code for hazard in lint(always, BROKER)] == ["A002"]


def test_copies_are_counted_up_to_the_moment_when_the_broker_brings_the_first_again() -> None:
    hasty = trip(pivot=step(pay, policy=Policy(attempts=None, timeout=ONE_SECOND, factor=1)))
    (hazard,) = found(hasty, "A004")
    assert hazard.message.startswith("it is asked 30 times in the 30 s ")


@pytest.mark.parametrize(("timeout", "hazards"), [(30, 1), (33, 0)])
def test_ten_copies_are_no_storm(timeout: int, hazards: int) -> None:
    policy = Policy(attempts=None, timeout=timedelta(seconds=timeout / 11), factor=1)
    assert len(found(trip(pivot=step(pay, policy=policy)), "A004")) == hazards


def test_of_steps_in_parallel_the_slowest_counts_and_the_slowest_of_all_is_named() -> None:
    quick = reversible(open_trip, undo=reject_trip, policy=Policy(attempts=3))
    slow = reversible(rent_car, undo=cancel_hotel, policy=Policy(attempts=8))
    (hazard,) = found(trip(quick, parallel(quick_hotel(), slow), deadline=timedelta(minutes=6)), "A001")
    assert "may take 6 min 25 s" in hazard.message
    assert "most of it rent-car" in hazard.message
    assert "give rent-car a shorter timeout" in hazard.remedy


def quick_hotel() -> Any:
    return asked(attempts=3)


def test_where_a_saga_is_stuck_is_said() -> None:
    (pivot,) = found(trip(pivot=step(pay, policy=Policy(attempts=5))), "A008")
    assert "at its pivot, where nobody knows whether it happened" in pivot.message
    (after,) = found(trip(retriable=(step(close_trip, policy=Policy(attempts=5)),)), "A008")
    assert "past its pivot" in after.message


def test_children_in_parallel_are_not_the_same_thing() -> None:
    two = trip(parallel(sub(SUB), sub(trip(HOTEL, name="other", pivot=None))), deadline=HOUR)
    assert lint(two, BROKER) == []


def test_the_sentences_name_the_times_and_the_steps() -> None:
    (hazard,) = found(trip(OPEN, HOTEL, deadline=timedelta(minutes=5)), "A001")
    assert "7 min 9 s" in hazard.message
    assert "5 min" in hazard.message
    assert "7 min 9 s" in hazard.remedy
    (hazard,) = found(trip(OPEN, HOTEL, retriable=(CLOSE, TELL_HOTEL)), "A016")
    assert "office is asked first (open-trip)" in hazard.message
    assert "tell-hotel" in hazard.message
    assert hazard.remedy.startswith("put close-trip last")


def test_the_broker_that_runs_is_the_one_that_counts() -> None:
    patient = Broker(ack_wait=timedelta(minutes=10), kept_for=timedelta(days=3))
    assert "A003" in {hazard.code for hazard in lint(trip(), patient)}
    forgetful = Broker(ack_wait=timedelta(seconds=30), kept_for=timedelta(minutes=1))
    assert "A005" in {hazard.code for hazard in lint(trip(), forgetful)}


@pytest.mark.parametrize(
    ("lasting", "words"),
    [
        (timedelta(0), "no time"),
        (timedelta(milliseconds=250), "250 ms"),
        (timedelta(seconds=1.5), "1 s 500 ms"),
        (timedelta(seconds=90), "1 min 30 s"),
        (timedelta(hours=1, seconds=5), "1 h 5 s"),
        (timedelta(days=2, hours=3, minutes=4), "2 d 3 h"),
    ],
)
def test_times_are_said_in_words(lasting: timedelta, words: str) -> None:
    assert in_words(lasting) == words
