"""What the mail service does."""

from collections.abc import Iterable

from examples.travel.mail.contracts import ItinerarySent, SendItinerary
from examples.travel.mail.models import Letter, participant
from participants.runtime import Key, Work


def the_letter(command: SendItinerary) -> Iterable[Key]:
    """The letter to be written."""
    return [Key(Letter, command.trip_id)]


@participant.handles(SendItinerary, needs=the_letter)
def send_itinerary(command: SendItinerary, work: Work) -> ItinerarySent:
    """Written once, however often it is asked for: the inbox sees to that."""
    seats = ", ".join(f"{traveller} on {seat}" for traveller, seat in sorted(command.seats.items()))
    work.put(Letter(command.trip_id, f"Flight {command.flight}: {seats}. You stay at {command.hotel}."))
    return ItinerarySent()
