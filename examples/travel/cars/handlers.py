"""What the cars service does."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from examples.travel.cars.contracts import BookRide, CancelRide, RideBooked, RideCancelled
from examples.travel.cars.models import Ride, participant
from outbox.contracts import Refused
from participants.runtime import Key, Work

SEATS: Final = 8
"""In the largest car."""


def the_ride(command: BookRide | CancelRide) -> Iterable[Key]:
    """The ride that the command is about."""
    return [Key(Ride, command.ride_id)]


@participant.handles(BookRide, needs=the_ride)
def book_ride(command: BookRide, work: Work) -> RideBooked:
    """There are always enough cars, as long as they are large enough."""
    if command.passengers > SEATS:
        raise Refused("too-many", f"no car has {command.passengers} seats, the largest has {SEATS}")
    work.put(Ride(command.ride_id, command.booked_by, command.start, command.end, command.passengers, "booked"))
    return RideBooked()


@participant.handles(CancelRide, needs=the_ride)
def cancel_ride(command: CancelRide, work: Work) -> RideCancelled:
    """Undo of book_ride."""
    ride = work.get(Ride, command.ride_id)
    if ride is None:
        raise Refused("unknown-ride", f"there is no ride {command.ride_id}")
    work.put(replace(ride, status="cancelled"))
    return RideCancelled()
