"""What the flights service does."""

from collections.abc import Iterable
from dataclasses import replace

from examples.travel.flights.contracts import (
    IssueTicket,
    ReleaseSeat,
    ReserveSeat,
    SeatReleased,
    SeatReserved,
    TicketIssued,
)
from examples.travel.flights.models import Flight, Reservation, participant, reservation_id
from outbox.contracts import Refused
from participants.runtime import Key, Work


def reservation_and_flight(command: ReserveSeat) -> Iterable[Key]:
    """The reservation to be made, and the flight that it is on."""
    return [Key(Reservation, reservation_id(command.trip_id, command.traveller)), Key(Flight, command.flight)]


def the_reservation(command: ReleaseSeat | IssueTicket) -> Iterable[Key]:
    """The reservation that the command is about."""
    return [Key(Reservation, reservation_id(command.trip_id, command.traveller))]


def its_flight(command: ReleaseSeat, work: Work) -> Iterable[Key]:
    """The flight that the reservation is on."""
    reservation = work.get(Reservation, reservation_id(command.trip_id, command.traveller))
    return [Key(Flight, reservation.flight)] if reservation else []


@participant.handles(ReserveSeat, needs=reservation_and_flight)
def reserve_seat(command: ReserveSeat, work: Work) -> SeatReserved:
    """The first seat that is free."""
    flight = _flight(command.flight, work)
    if not flight.free:
        raise Refused("sold-out", f"flight {flight.number} has no seat for {command.traveller}")
    seat, *free = flight.free
    name = reservation_id(command.trip_id, command.traveller)
    work.put(replace(flight, free=free))
    work.put(Reservation(name, command.trip_id, flight.number, command.traveller, seat, "reserved"))
    return SeatReserved(traveller=command.traveller, seat=seat)


@participant.handles(ReleaseSeat, needs=the_reservation, then_needs=its_flight)
def release_seat(command: ReleaseSeat, work: Work) -> SeatReleased:
    """Undo of reserve_seat."""
    reservation = _reserved(command, work)
    flight = _flight(reservation.flight, work)
    work.put(replace(flight, free=[*flight.free, reservation.seat]))
    work.put(replace(reservation, status="released"))
    return SeatReleased()


@participant.handles(IssueTicket, needs=the_reservation)
def issue_ticket(command: IssueTicket, work: Work) -> TicketIssued:
    """The seat stays taken."""
    work.put(replace(_reserved(command, work), status="ticketed"))
    return TicketIssued()


def _flight(number: str, work: Work) -> Flight:
    flight = work.get(Flight, number)
    if flight is None:
        raise Refused("unknown-flight", f"there is no flight {number}")
    return flight


def _reserved(command: ReleaseSeat | IssueTicket, work: Work) -> Reservation:
    reservation = work.get(Reservation, reservation_id(command.trip_id, command.traveller))
    if reservation is None or reservation.status != "reserved":
        status = "not there" if reservation is None else reservation.status
        raise Refused("not-reserved", f"the reservation of {command.traveller} on trip {command.trip_id} is {status}")
    return reservation
