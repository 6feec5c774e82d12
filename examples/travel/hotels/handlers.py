"""What the hotels service does."""

from collections.abc import Iterable
from dataclasses import replace

from examples.travel.hotels.contracts import (
    ConfirmRoom,
    ReleaseRoom,
    ReserveRoom,
    RoomConfirmed,
    RoomReleased,
    RoomReserved,
)
from examples.travel.hotels.models import Hotel, Stay, participant
from outbox.contracts import Refused
from participants.runtime import Key, Work


def stay_and_hotel(command: ReserveRoom) -> Iterable[Key]:
    """The stay to be made, and the hotel that it is in."""
    return [Key(Stay, command.trip_id), Key(Hotel, command.hotel)]


def the_stay(command: ReleaseRoom | ConfirmRoom) -> Iterable[Key]:
    """The stay that the command is about."""
    return [Key(Stay, command.trip_id)]


def its_hotel(command: ReleaseRoom, work: Work) -> Iterable[Key]:
    """The hotel that the stay is in."""
    stay = work.get(Stay, command.trip_id)
    return [Key(Hotel, stay.hotel)] if stay else []


@participant.handles(ReserveRoom, needs=stay_and_hotel)
def reserve_room(command: ReserveRoom, work: Work) -> RoomReserved:
    """One room less is free."""
    hotel = _hotel(command.hotel, work)
    if hotel.free == 0:
        raise Refused("full", f"hotel {hotel.name} has no free room")
    work.put(replace(hotel, free=hotel.free - 1))
    work.put(Stay(command.trip_id, hotel.name, command.guests, "reserved"))
    return RoomReserved()


@participant.handles(ReleaseRoom, needs=the_stay, then_needs=its_hotel)
def release_room(command: ReleaseRoom, work: Work) -> RoomReleased:
    """Undo of reserve_room."""
    stay = _reserved(command, work)
    hotel = _hotel(stay.hotel, work)
    work.put(replace(hotel, free=hotel.free + 1))
    work.put(replace(stay, status="released"))
    return RoomReleased()


@participant.handles(ConfirmRoom, needs=the_stay)
def confirm_room(command: ConfirmRoom, work: Work) -> RoomConfirmed:
    """The room stays taken."""
    work.put(replace(_reserved(command, work), status="confirmed"))
    return RoomConfirmed()


def _hotel(name: str, work: Work) -> Hotel:
    hotel = work.get(Hotel, name)
    if hotel is None:
        raise Refused("unknown-hotel", f"there is no hotel {name}")
    return hotel


def _reserved(command: ReleaseRoom | ConfirmRoom, work: Work) -> Stay:
    stay = work.get(Stay, command.trip_id)
    if stay is None or stay.status != "reserved":
        status = "not there" if stay is None else stay.status
        raise Refused("not-reserved", f"the room of trip {command.trip_id} is {status}")
    return stay
