"""`python -m examples.travel`: five trips on real parts, each with the end that it should have."""

import sys
from decimal import Decimal
from typing import Any, Final

from examples.playbill import Example, Scene, run
from examples.stage import Stage
from examples.travel import audit
from examples.travel.cards import handlers as cards
from examples.travel.cards.models import Card
from examples.travel.cars import handlers as cars
from examples.travel.flights import handlers as flights
from examples.travel.flights.models import Flight
from examples.travel.hotels import handlers as hotels
from examples.travel.hotels.models import Hotel
from examples.travel.mail import handlers as mail
from examples.travel.saga import arrange_transfers, book_trip
from orchestrator.events import Signalled

FAMILY: Final = ("ada", "ben", "cleo")
LARGE, SMALL = ["1A", "1B", "1C", "2A", "2B", "2C"], ["1A", "1B"]


async def prepare(stage: Stage) -> None:
    """Two flights, one of them small, a hotel, and a card."""
    await stage.seed("flights", Flight("BER-LIS", LARGE, LARGE), Flight("BER-FLR", SMALL, SMALL))
    await stage.seed("hotels", Hotel("Miramar", rooms=3, free=3))
    await stage.seed("cards", Card("4000-1234", limit=Decimal(5000), left=Decimal(5000)))


def trip(**wishes: Any) -> dict[str, Any]:
    """A dear trip for three with transfers, unless wished otherwise."""
    usual = {"travellers": FAMILY, "flight": "BER-LIS", "hotel": "Miramar", "card": "4000-1234"}
    return usual | {"price": "1840.00", "transfers": True} | wishes


async def cheap(stage: Stage) -> str:
    """Nobody is asked, and no car is wanted: both steps are skipped."""
    saga_id = await stage.start("book-trip", trip(travellers=["ada"], price="312.50", transfers=False))
    await stage.reaches(saga_id, "cool-off")
    stage.passes(hours=1)
    return saga_id


async def approved(stage: Stage) -> str:
    """A day passes before the manager says yes."""
    saga_id = await stage.start("book-trip", trip())
    await stage.reaches(saga_id, "manager-approval")
    stage.passes(days=1)
    await stage.tell(saga_id, Signalled("manager-approval", "done", {}, by="grace"))
    await stage.reaches(saga_id, "cool-off")
    stage.passes(hours=1)
    return saga_id


async def not_approved(stage: Stage) -> str:
    """By then the transfers are booked, and their saga has completed: it is undone as well."""
    saga_id = await stage.start("book-trip", trip(travellers=["ada", "ben"]))
    await stage.reaches(saga_id, "manager-approval")
    await stage.tell(saga_id, Signalled("manager-approval", "refused", {"reason": "the budget is spent"}, by="grace"))
    return saga_id


async def sold_out(stage: Stage) -> str:
    """Two of three have a seat, and there is a room: all that is given back."""
    return await stage.start("book-trip", trip(flight="BER-FLR"))


async def no_answer(stage: Stage) -> str:
    """No manager looks at it for two days, which is a no."""
    saga_id = await stage.start("book-trip", trip(travellers=["ada", "ben"]))
    await stage.reaches(saga_id, "manager-approval")
    stage.passes(days=2)
    return saga_id


TRAVEL: Final = Example(
    module="examples.travel",
    sagas=(book_trip, arrange_transfers),
    participants=[service.participant for service in (flights, hotels, cars, cards, mail)],
    prepare=prepare,
    scenes=(
        Scene("a cheap trip needs no approval", "completed", cheap),
        Scene("a dear trip is approved", "completed", approved),
        Scene("a dear trip is not approved", "compensated", not_approved, shown=True),
        Scene("no seat for the third traveller", "compensated", sold_out),
        Scene("nobody approves in time", "compensated", no_answer),
    ),
    auditors=audit.auditors,
    claims={
        "every seat is free, or taken once": audit.every_seat_is_free_or_taken_once,
        "every room is free, or taken once": audit.every_room_is_free_or_taken_once,
        "every card has its limit less its charges": audit.every_card_balances,
        "every trip has seats, room, rides, charge and letter, or nothing": audit.every_trip_has_all_or_nothing,
    },
)

if __name__ == "__main__":
    sys.exit(run(TRAVEL))
