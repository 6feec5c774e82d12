"""What the cards service does."""

from collections.abc import Iterable
from dataclasses import replace

from examples.travel.cards.contracts import CardCharged, ChargeCard
from examples.travel.cards.models import Card, Charge, participant
from outbox.contracts import Refused
from participants.runtime import Key, Work


def charge_and_card(command: ChargeCard) -> Iterable[Key]:
    """The charge to be made, and the card that it is on."""
    return [Key(Charge, command.trip_id), Key(Card, command.card)]


@participant.handles(ChargeCard, needs=charge_and_card)
def charge_card(command: ChargeCard, work: Work) -> CardCharged:
    """All of it, or nothing."""
    card = work.get(Card, command.card)
    if card is None:
        raise Refused("unknown-card", f"there is no card {command.card}")
    if card.left < command.amount:
        raise Refused("declined", f"card {card.number} has {card.left} left, and {command.amount} is wanted")
    work.put(replace(card, left=card.left - command.amount))
    work.put(Charge(command.trip_id, card.number, command.amount))
    return CardCharged()
