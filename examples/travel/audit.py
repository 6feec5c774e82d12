"""What must be true of trips in the end, read from the databases of all who took part."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, ColumnElement, select, true

from examples.audit import EffectAuditor
from examples.stage import ORCHESTRATOR, Stage
from examples.travel.cards.models import Card, Charge
from examples.travel.cars.models import Ride
from examples.travel.flights.models import Flight, Reservation
from examples.travel.hotels.models import Hotel, Stay
from examples.travel.mail.models import Letter
from examples.travel.saga import AIRPORT, BookTrip, book_trip
from orchestrator.model import SAGA, Phase, Saga
from orchestrator.tables import sagas
from participants.runtime.audit import Effect

SEATS, STAYS, RIDES = Reservation.table.c, Stay.table.c, Ride.table.c
CHARGES, LETTERS = Charge.table.c, Letter.table.c

SEAT: Mapping[str, Effect] = {"reserved": "partial", "ticketed": "applied", "released": "none"}
STAY: Mapping[str, Effect] = {"reserved": "partial", "confirmed": "applied", "released": "none"}
RIDE: Mapping[str, Effect] = {"booked": "applied", "cancelled": "none"}


def auditors(stage: Stage) -> list[EffectAuditor]:
    """What each service has left of a saga."""
    return [
        EffectAuditor("flights", stage.databases["flights"], SEATS.trip_id, SEATS.status, SEAT),
        EffectAuditor("hotels", stage.databases["hotels"], STAYS.trip_id, STAYS.status, STAY),
        EffectAuditor("cars", stage.databases["cars"], RIDES.booked_by, RIDES.status, RIDE),
        EffectAuditor("cards", stage.databases["cards"], CHARGES.trip_id),
        EffectAuditor("mail", stage.databases["mail"], LETTERS.trip_id),
    ]


async def every_seat_is_free_or_taken_once(stage: Stage) -> list[str]:
    """For each flight."""
    taken = await _by_owner(stage, "flights", SEATS.flight, SEATS.seat, SEATS.status != "released")
    return [
        f"{flight.number} has the seats {flight.seats}: {flight.free} are free and {taken[flight.number]} are taken"
        for flight in await stage.rows("flights", select(Flight.table))
        if sorted(flight.free + taken[flight.number]) != sorted(flight.seats)
    ]


async def every_room_is_free_or_taken_once(stage: Stage) -> list[str]:
    """For each hotel."""
    taken = await _by_owner(stage, "hotels", STAYS.hotel, STAYS.trip_id, STAYS.status != "released")
    return [
        f"{hotel.name} has {hotel.rooms} rooms: {hotel.free} are free and {len(taken[hotel.name])} are taken"
        for hotel in await stage.rows("hotels", select(Hotel.table))
        if hotel.free + len(taken[hotel.name]) != hotel.rooms
    ]


async def every_card_balances(stage: Stage) -> list[str]:
    """What is left on a card is its limit less its charges."""
    charged = await _by_owner(stage, "cards", CHARGES.card, CHARGES.amount)
    return [
        f"{card.number}: {card.left} is left of {card.limit}, and {charged[card.number]} were charged"
        for card in await stage.rows("cards", select(Card.table))
        if card.left + sum(charged[card.number]) != card.limit
    ]


async def every_trip_has_all_or_nothing(stage: Stage) -> list[str]:
    """Of seats, room, rides, charge and letter. The rides are the child saga's, and that is its parent's."""
    states = [SAGA.validate_json(row.state) for row in await stage.rows(ORCHESTRATOR, select(sagas.c.state))]
    trip_of = {saga.id: saga.caller.command_id.partition("/")[0] for saga in states if saga.caller}
    rides = await _by_owner(stage, "cars", RIDES.booked_by, RIDES.end, RIDES.status == "booked")
    has = {
        "seats": await _by_owner(stage, "flights", SEATS.trip_id, SEATS.traveller, SEATS.status != "released"),
        "guests": await _by_owner(stage, "hotels", STAYS.trip_id, STAYS.guests, STAYS.status != "released"),
        "rides to": defaultdict(list, {trip_of[child]: ends for child, ends in rides.items()}),
        "charges": await _by_owner(stage, "cards", CHARGES.trip_id, CHARGES.amount),
        "letters": await _by_owner(stage, "mail", LETTERS.trip_id, LETTERS.trip_id),
    }
    problems = []
    for trip in (saga for saga in states if saga.definition == book_trip.name):
        found, wanted = {what: sorted(owned[trip.id]) for what, owned in has.items()}, _wanted(trip)
        if found != wanted:
            problems.append(f"trip {trip.id} is {trip.phase}: it has {found}, and it should have {wanted}")
    return problems


def _wanted(trip: Saga) -> dict[str, list[Any]]:
    data = BookTrip.model_validate(trip.data)
    if trip.phase is not Phase.COMPLETED:
        return {"seats": [], "guests": [], "rides to": [], "charges": [], "letters": []}
    return {
        "seats": sorted(data.travellers),
        "guests": [len(data.travellers)],
        "rides to": sorted([AIRPORT, data.hotel]) if data.transfers else [],
        "charges": [data.price],
        "letters": [trip.id],
    }


async def _by_owner(
    stage: Stage, role: str, owner: Column[Any], value: Column[Any], condition: ColumnElement[bool] | None = None
) -> defaultdict[str, list[Any]]:
    """The values of a column, by whom they belong to."""
    found: defaultdict[str, list[Any]] = defaultdict(list)
    where = true() if condition is None else condition
    for row in await stage.rows(role, select(owner.label("owner"), value.label("value")).where(where)):
        found[row.owner].append(row.value)
    return found
