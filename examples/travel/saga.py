"""The saga `book-trip`: a seat for each traveller and a room, transfers if wanted, a manager's word on what is dear.

    | stage | step              | by       | undo         |                                                      |
    |-------|-------------------|----------|--------------|------------------------------------------------------|
    | 1     | reserve-seat      | flights  | release-seat | for each traveller, two at a time ...                |
    |       | reserve-room      | hotels   | release-room | ... and beside them                                  |
    | 2     | arrange-transfers | a saga   | is undone    | a child saga, if transfers are wanted                |
    | 3     | manager-approval  | a person |              | if the trip is dear; no answer in two days is a "no" |
    | 4     | cool-off          | time     |              | an hour in which it costs nothing to cancel          |
    | 5     | charge-card       | cards    |              | the pivot                                            |
    | 6     | issue-ticket      | flights  |              | for each traveller ...                               |
    |       | confirm-room      | hotels   |              | ... and beside them                                  |
    | 7     | send-itinerary    | mail     |              |                                                      |

Whatever turns it back before the card is charged (a flight that is sold out, a manager's "no", two days of silence, a
card that is declined) undoes what was done, the transfers included, although that saga has long been completed.
"""

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from examples.travel.cards.contracts import ChargeCard
from examples.travel.cars.contracts import BookRide, CancelRide
from examples.travel.flights.contracts import IssueTicket, ReleaseSeat, ReserveSeat, SeatReserved
from examples.travel.hotels.contracts import ConfirmRoom, ReleaseRoom, ReserveRoom
from examples.travel.mail.contracts import SendItinerary
from orchestrator.definition import (
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

DEAR: Final = Decimal(1000)
"""Above this price a manager must approve."""

AIRPORT: Final = "airport"

Name = Annotated[str, Field(min_length=1, max_length=60)]


# --- a child saga: without a pivot it can be undone as a whole, even after it has completed ---------------------------


class ArrangeTransfers(SagaData):
    """Rides for a party, from the airport to its hotel and back."""

    hotel: Name
    passengers: Annotated[int, Field(ge=1)]

    @property
    def there(self) -> str:
        """The id of the ride to the hotel: the saga's own, so that an undo knows it without any reply."""
        return f"{self.saga_id}/there"

    @property
    def back(self) -> str:
        """The id of the ride to the airport."""
        return f"{self.saga_id}/back"


def book_ride_there(data: ArrangeTransfers) -> BookRide:
    """A car waits at the airport."""
    return BookRide(
        ride_id=data.there, booked_by=data.saga_id, start=AIRPORT, end=data.hotel, passengers=data.passengers
    )


def cancel_ride_there(data: ArrangeTransfers) -> CancelRide:
    """Undo of book_ride_there."""
    return CancelRide(ride_id=data.there)


def book_ride_back(data: ArrangeTransfers) -> BookRide:
    """A car waits at the hotel."""
    return BookRide(
        ride_id=data.back, booked_by=data.saga_id, start=data.hotel, end=AIRPORT, passengers=data.passengers
    )


def cancel_ride_back(data: ArrangeTransfers) -> CancelRide:
    """Undo of book_ride_back."""
    return CancelRide(ride_id=data.back)


arrange_transfers = Saga(
    name="arrange-transfers",
    data=ArrangeTransfers,
    reversible=(
        reversible(book_ride_there, undo=cancel_ride_there),
        reversible(book_ride_back, undo=cancel_ride_back),
    ),
    pivot=None,
    deadline=timedelta(minutes=30),
)


# --- the trip ---------------------------------------------------------------------------------------------------------


class BookTrip(SagaData):
    """What a customer wants, what it costs, and in the course of it: who sits where."""

    travellers: Annotated[tuple[Name, ...], Field(min_length=1, max_length=9)]
    flight: Name
    hotel: Name
    transfers: bool = False
    card: Name
    price: Annotated[Decimal, Field(gt=0, decimal_places=2)]
    seats: dict[str, str] | None = supplied()

    @model_validator(mode="after")
    def _travellers_can_be_told_apart(self) -> Self:
        if len(set(self.travellers)) < len(self.travellers):
            raise ValueError("two travellers have the same name: write how they differ")
        return self


class ManagerApproval(Signal):
    """A manager says yes to a dear trip; or no, with a reason."""


def travellers(data: BookTrip) -> tuple[str, ...]:
    """Each of them has a seat and a ticket."""
    return data.travellers


def wants_transfers(data: BookTrip) -> bool:
    """Otherwise they walk."""
    return data.transfers


def is_dear(data: BookTrip) -> bool:
    """Whether somebody must approve of it."""
    return data.price > DEAR


def reserve_seat(data: BookTrip, traveller: str) -> ReserveSeat:
    """Any seat that is free."""
    return ReserveSeat(trip_id=data.saga_id, flight=data.flight, traveller=traveller)


def keep_seat(data: BookTrip, reply: SeatReserved) -> BookTrip:
    """Remember who sits where."""
    return data.model_copy(update={"seats": {**(data.seats or {}), reply.traveller: reply.seat}})


def release_seat(data: BookTrip, traveller: str) -> ReleaseSeat:
    """Undo of reserve_seat."""
    return ReleaseSeat(trip_id=data.saga_id, traveller=traveller)


def reserve_room(data: BookTrip) -> ReserveRoom:
    """One for all of them."""
    return ReserveRoom(trip_id=data.saga_id, hotel=data.hotel, guests=len(data.travellers))


def release_room(data: BookTrip) -> ReleaseRoom:
    """Undo of reserve_room."""
    return ReleaseRoom(trip_id=data.saga_id)


def transfers_of(data: BookTrip) -> ArrangeTransfers:
    """What the child saga is to do."""
    return ArrangeTransfers(hotel=data.hotel, passengers=len(data.travellers))


def charge_card(data: BookTrip) -> ChargeCard:
    """The point of no return."""
    return ChargeCard(trip_id=data.saga_id, card=data.card, amount=data.price)


def issue_ticket(data: BookTrip, traveller: str) -> IssueTicket:
    """What was reserved is theirs."""
    return IssueTicket(trip_id=data.saga_id, traveller=traveller)


def confirm_room(data: BookTrip) -> ConfirmRoom:
    """What was reserved is theirs."""
    return ConfirmRoom(trip_id=data.saga_id)


def send_itinerary(data: BookTrip) -> SendItinerary:
    """Who flies where, on which seat, and where they stay."""
    return SendItinerary(trip_id=data.saga_id, flight=data.flight, hotel=data.hotel, seats=data.seats or {})


book_trip = Saga(
    name="book-trip",
    data=BookTrip,
    reversible=(
        parallel(
            reversible_each(travellers, reserve_seat, undo=release_seat, then=keep_seat, limit=2),
            reversible(reserve_room, undo=release_room),
        ),
        child(arrange_transfers, transfers_of, when=wants_transfers),
        wait_for(ManagerApproval, timeout=timedelta(days=2), otherwise="refuse", when=is_dear),
        delay("cool-off", timedelta(hours=1)),
    ),
    pivot=step(charge_card),
    retriable=(
        parallel(step_each(travellers, issue_ticket), step(confirm_room)),
        step(send_itinerary),
    ),
)
