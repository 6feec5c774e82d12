"""The sagas of the examples do what their pages say: on the pure machine, in virtual time."""

import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from examples.transfer.saga import TransferMoney, transfer_money
from examples.travel.cards.contracts import ChargeCard
from examples.travel.cars.contracts import BookRide
from examples.travel.flights.contracts import ReserveSeat, SeatReserved
from examples.travel.mail.contracts import SendItinerary
from examples.travel.saga import BookTrip, ManagerApproval, arrange_transfers, book_trip
from orchestrator.definition import Saga
from orchestrator.explorer import Bounds, Explorer
from orchestrator.graph import picture, text
from orchestrator.lint import Broker, lint
from orchestrator.registry import Definitions
from orchestrator.testing import (
    SILENCE,
    Rehearsal,
    Script,
    SignalScript,
    Specification,
    answered,
    cancelled,
    deadline,
    done,
    given,
    late,
    refused,
    rehearse,
    retried,
    silence,
)
from outbox.contracts import Refused
from outbox.topology import ACK_WAIT, KEPT_FOR

# --- book-trip -----------------------------------------------------------------------------------------------------

DEAR = BookTrip(
    travellers=("ada", "ben", "cleo"),
    flight="BER-LIS",
    hotel="Miramar",
    transfers=True,
    card="4000-1234",
    price=Decimal("1840.00"),
)
CHEAP = DEAR.model_copy(update={"travellers": ("ada",), "price": Decimal("1000.00"), "transfers": False})

SEATS = {"ada": "1A", "ben": "1B", "cleo": "1C"}


def any_seat(command: ReserveSeat) -> SeatReserved:
    """The flight has room."""
    return SeatReserved(traveller=command.traveller, seat=SEATS[command.traveller])


def book(trip: BookTrip, answers: Script | None = None, signals: SignalScript | None = None) -> Rehearsal[BookTrip]:
    """A flight with seats, and a manager who agrees after a day, unless the script says otherwise."""
    if signals is None:
        signals = {ManagerApproval: late(timedelta(days=1), ManagerApproval())}
    return rehearse(book_trip, trip, {ReserveSeat: any_seat, **(answers or {})}, signals=signals)


def sent(trip: Rehearsal[Any], kind: type[Any]) -> list[Any]:
    """The commands of one type, in the order in which they went out."""
    return [one.command for one in trip.commands if isinstance(one.command, kind)]


def test_a_dear_trip_is_booked_when_a_manager_agrees() -> None:
    trip = book(DEAR)
    assert trip.status == "completed"
    assert trip.skipped == []
    assert trip.took == timedelta(days=1, hours=1)
    assert [charge.amount for charge in sent(trip, ChargeCard)] == [Decimal("1840.00")]
    assert [letter.seats for letter in sent(trip, SendItinerary)] == [SEATS]


def test_a_cheap_trip_asks_nobody_and_needs_no_car() -> None:
    trip = book(CHEAP, signals={})
    assert trip.status == "completed"
    assert trip.skipped == ["arrange-transfers", "manager-approval"]
    assert trip.took == timedelta(hours=1)
    assert trip.children == {}


def test_seats_are_reserved_two_at_a_time_beside_the_room() -> None:
    saga = given(book_trip).started(DEAR).then_asks("reserve-seat[0]", "reserve-seat[1]", "reserve-room")
    saga.when(done("reserve-room")).then_sends_nothing()
    saga.when(done("reserve-seat[1]", SeatReserved(traveller="ben", seat="1B"))).then_asks("reserve-seat[2]")
    saga.then_knows(seats={"ben": "1B"})


def test_transfers_are_booked_for_the_whole_party_there_and_back() -> None:
    rides = sent(book(DEAR).children["arrange-transfers"], BookRide)
    assert [(ride.start, ride.end, ride.passengers) for ride in rides] == [
        ("airport", "Miramar", 3),
        ("Miramar", "airport", 3),
    ]
    assert len({ride.ride_id for ride in rides}) == 2


def test_a_no_undoes_everything_and_the_child_that_had_completed() -> None:
    trip = book(DEAR, signals={ManagerApproval: Refused("no", "the budget is spent")})
    assert (trip.status, trip.failure) == ("compensated", "manager-approval was refused: the budget is spent")
    assert trip.undone[0] == "arrange-transfers"
    assert sorted(trip.undone[1:]) == ["reserve-room", "reserve-seat[0]", "reserve-seat[1]", "reserve-seat[2]"]
    child = trip.children["arrange-transfers"]
    assert "completed" in [entry.kind for entry in child.log]
    assert (child.status, child.undone) == ("compensated", ["book-ride-back", "book-ride-there"])


def test_silence_for_two_days_is_a_no() -> None:
    trip = book(DEAR, signals={})
    assert trip.status == "compensated"
    assert trip.took == timedelta(days=2)


def test_no_seat_for_the_third_gives_back_the_others() -> None:
    trip = book(DEAR, {"reserve-seat[2]": Refused("sold-out", "no seat")})
    assert trip.status == "compensated"
    assert sorted(trip.undone) == ["reserve-room", "reserve-seat[0]", "reserve-seat[1]"]
    assert trip.children == {}


def test_transfers_that_cannot_be_had_turn_the_trip_back() -> None:
    trip = book(DEAR, {"book-ride-back": Refused("too-many", "no car is large enough")})
    assert trip.status == "compensated"
    assert trip.children["arrange-transfers"].undone == ["book-ride-there"]
    assert "arrange-transfers" not in trip.undone


def test_a_card_that_is_declined_undoes_everything() -> None:
    trip = book(DEAR, {ChargeCard: Refused("declined", "too little left")})
    assert trip.status == "compensated"
    assert len(trip.undone) == 5


def test_travellers_must_be_told_apart() -> None:
    with pytest.raises(ValueError, match="two travellers have the same name"):
        BookTrip.model_validate({**DEAR.model_dump(), "travellers": ["ada", "ada"]})


# --- transfer-money --------------------------------------------------------------------------------------------------

TRANSFER = TransferMoney(payer="ada", payee="cleo", amount=Decimal("250.00"))


def at_the_pivot() -> Specification:
    """The money is held, the credit announced, and the clearing house has been asked."""
    return given(transfer_money).started(TRANSFER).when(done("hold-money"), done("announce-credit"))


def stuck() -> Specification:
    """The clearing house was asked three times, and has not answered."""
    return at_the_pivot().when(*[silence("book-transfer")] * 3).then_is_stuck("book-transfer", "3 attempts")


def test_a_transfer_goes_through() -> None:
    saga = at_the_pivot().then_asks("book-transfer")
    saga.when(done("book-transfer")).then_asks("pay-out", "credit-payee")
    saga.when(done("credit-payee"), done("pay-out")).then_completed()


def test_a_silent_clearing_house_is_asked_again_under_the_same_id() -> None:
    saga = at_the_pivot().when(silence("book-transfer")).then_sends(("book-transfer/do", 2))
    saga.when(done("book-transfer")).then_asks("pay-out", "credit-payee")


def test_nothing_is_undone_while_nobody_knows() -> None:
    saga = stuck()
    assert [one.command_id for one in saga.sent if one.undoes] == []
    saga.when(cancelled()).then_nothing_happened("was asked and may have happened")
    saga.when(deadline()).then_nothing_happened("no deadline runs")


def test_a_late_answer_moves_a_stuck_transfer() -> None:
    stuck().when(done("book-transfer")).then_asks("pay-out", "credit-payee")


def test_a_retry_moves_a_stuck_transfer() -> None:
    stuck().when(retried()).then_sends(("book-transfer/do", 4))


def test_a_persons_word_turns_a_stuck_transfer_back() -> None:
    saga = stuck().when(cancelled(pivot_did_not_happen=True)).then_undoes("announce-credit")
    saga.when(done("announce-credit")).then_undoes("hold-money")
    saga.when(done("hold-money")).then_compensated()
    saga.when(answered("book-transfer/do")).then_nothing_happened("the saga has ended")


def test_a_refusal_by_the_clearing_house_releases_the_money() -> None:
    at_the_pivot().when(refused("book-transfer", "above the limit")).then_undoes("announce-credit")


def test_the_deadline_decides_how_long_the_payees_bank_is_asked() -> None:
    transfer = rehearse(transfer_money, TRANSFER, {"announce-credit": SILENCE})
    assert transfer.status == "compensated"
    assert "deadline" in str(transfer.failure)
    assert transfer.took == timedelta(hours=2)
    assert transfer.undone == ["announce-credit", "hold-money"]


# --- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("definition", "bounds"),
    [
        (arrange_transfers, Bounds(attempts=2, orders=1)),
        (transfer_money, Bounds(attempts=1, orders=1)),
        (book_trip, Bounds(attempts=1, orders=0, items=1)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_no_way_through_an_example_breaks_a_promise(definition: Saga[Any], bounds: Bounds) -> None:
    found = Explorer(definition, bounds).explore()
    assert found.counterexample is None
    assert found.exhausted
    assert found.ends["completed"] > 0
    assert found.ends["compensated"] > 0


@pytest.mark.parametrize(
    ("definition", "accepted"),
    [
        (arrange_transfers, []),
        (transfer_money, [("A008", "book-transfer")]),  # that it becomes stuck is what the example shows
        (book_trip, [("A015", "manager-approval"), ("A015", "cool-off")]),  # the seats are kept for whoever decides
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_lint_finds_what_the_example_takes_on_knowingly(definition: Saga[Any], accepted: list[Any]) -> None:
    found = lint(definition, Broker(ack_wait=ACK_WAIT, kept_for=KEPT_FOR))
    assert [(hazard.code, hazard.step) for hazard in found] == accepted


def test_the_examples_are_found_by_the_names_of_their_modules() -> None:
    found = Definitions.of_modules(["examples.travel.saga", "examples.transfer.saga"])
    assert sorted(found) == ["arrange-transfers", "book-trip", "transfer-money"]


# --- their page ------------------------------------------------------------------------------------------------------

FOLDER = Path(__file__).parents[2] / "examples"
PAGE = (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("definition", [book_trip, transfer_money], ids=lambda definition: definition.name)
def test_the_page_draws_the_saga_that_runs(definition: Saga[Any]) -> None:
    assert f"```text\n{text(picture(definition)).strip()}\n```" in PAGE


def test_every_page_that_it_links_to_is_there() -> None:
    linked = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert len(linked) > 10
    assert [target for target in linked if not (FOLDER / target).exists()] == []
