"""What the inventory service does."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from outbox.contracts import Refused
from participants.inventory.contracts import (
    ReleaseStock,
    ReserveStock,
    SellStock,
    StockReleased,
    StockReserved,
    StockSold,
    StockWasReleased,
    StockWasReserved,
    StockWasSold,
)
from participants.inventory.models import Reservation, Stock, participant
from participants.runtime import Key, Work


def reservation_and_stock(command: ReserveStock) -> Iterable[Key]:
    """The reservation to be made, and the articles it wants."""
    yield Key(Reservation, command.reservation_id)
    for line in command.lines:
        yield Key(Stock, line.sku)


def the_reservation(command: ReleaseStock | SellStock) -> Iterable[Key]:
    """The reservation that the command is about."""
    return [Key(Reservation, command.reservation_id)]


def its_stock(command: ReleaseStock | SellStock, work: Work) -> Iterable[Key]:
    """The articles that the reservation holds."""
    reservation = work.get(Reservation, command.reservation_id)
    return [Key(Stock, sku) for sku in reservation.lines] if reservation else []


@participant.handles(ReserveStock, needs=reservation_and_stock)
def reserve_stock(command: ReserveStock, work: Work) -> StockReserved:
    """All lines or none."""
    if work.get(Reservation, command.reservation_id) is not None:
        raise Refused("duplicate-reservation", f"reservation {command.reservation_id} exists already")
    wanted: Counter[str] = Counter()
    for line in command.lines:
        wanted[line.sku] += line.quantity
    for sku, quantity in wanted.items():
        stock = work.get(Stock, sku)
        if stock is None:
            raise Refused("unknown-article", f"there is no article {sku}")
        if stock.available < quantity:
            raise Refused("out-of-stock", f"{quantity} of {sku} wanted, {stock.available} available")
        work.put(replace(stock, available=stock.available - quantity, reserved=stock.reserved + quantity))
    work.put(Reservation(command.reservation_id, dict(wanted), "held"))
    work.publish(StockWasReserved(reservation_id=command.reservation_id))
    return StockReserved()


@participant.handles(ReleaseStock, needs=the_reservation, then_needs=its_stock)
def release_stock(command: ReleaseStock, work: Work) -> StockReleased:
    """Undo of reserve_stock."""
    reservation = _held(command, work)
    for sku, quantity in reservation.lines.items():
        stock = _stock(sku, work)
        work.put(replace(stock, available=stock.available + quantity, reserved=stock.reserved - quantity))
    work.put(replace(reservation, status="released"))
    work.publish(StockWasReleased(reservation_id=reservation.reservation_id))
    return StockReleased()


@participant.handles(SellStock, needs=the_reservation, then_needs=its_stock)
def sell_stock(command: SellStock, work: Work) -> StockSold:
    """What was set aside leaves the books."""
    reservation = _held(command, work)
    for sku, quantity in reservation.lines.items():
        stock = _stock(sku, work)
        work.put(replace(stock, reserved=stock.reserved - quantity, sold=stock.sold + quantity))
    work.put(replace(reservation, status="sold"))
    work.publish(StockWasSold(reservation_id=reservation.reservation_id))
    return StockSold()


def _held(command: ReleaseStock | SellStock, work: Work) -> Reservation:
    reservation = work.get(Reservation, command.reservation_id)
    if reservation is None:
        raise Refused("unknown-reservation", f"there is no reservation {command.reservation_id}")
    if reservation.status != "held":
        raise Refused("reservation-ended", f"reservation {command.reservation_id} is {reservation.status}")
    return reservation


def _stock(sku: str, work: Work) -> Stock:
    stock = work.get(Stock, sku)
    if stock is None:
        raise Refused("unknown-article", f"article {sku} is gone although a reservation holds it")
    return stock
