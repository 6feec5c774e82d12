"""A journey with everything that a saga may have: items, a child, a delay, an approval, a deadline."""

from datetime import timedelta

from orchestrator.definition import (
    Policy,
    Saga,
    SagaData,
    Signal,
    child,
    delay,
    reversible,
    reversible_each,
    step,
    wait_for,
)
from orchestrator.testing import Script, SignalScript
from outbox.contracts import Command, Reply


class Ok(Reply):
    pass


class Priced(Reply):
    price: int


class Book(Command[Priced], participant="hotel"):
    city: str


class Free(Command[Ok], participant="hotel"):
    city: str


class Hire(Command[Ok], participant="cars"):
    pass


class Return(Command[Ok], participant="cars"):
    pass


class Pay(Command[Ok], participant="bank"):
    total: int


class Send(Command[Ok], participant="mail"):
    pass


class Approval(Signal):
    by: str


class Ride(SagaData):
    city: str = ""


class Trip(SagaData):
    cities: tuple[str, ...] = ("Oslo", "Rome")
    total: int = 0
    approved_by: str = ""
    by_car: bool = False
    insured: bool = False


def cities(trip: Trip) -> tuple[str, ...]:
    return trip.cities


def book(trip: Trip, city: str) -> Book:
    return Book(city=city)


def free(trip: Trip, city: str) -> Free:
    return Free(city=city)


def add_price(trip: Trip, reply: Priced) -> Trip:
    return trip.model_copy(update={"total": trip.total + reply.price})


def hire(ride: Ride) -> Hire:
    return Hire()


def hire_driver(ride: Ride) -> Hire:
    return Hire()


def bring_back(ride: Ride) -> Return:
    return Return()


def ride_of(trip: Trip) -> Ride:
    return Ride(city=trip.cities[0])


def goes_by_car(trip: Trip) -> bool:
    return trip.by_car


def keep_approval(trip: Trip, approval: Approval) -> Trip:
    return trip.model_copy(update={"approved_by": approval.by})


def pay(trip: Trip) -> Pay:
    return Pay(total=trip.total)


def send_tickets(trip: Trip) -> Send:
    return Send()


DAY = timedelta(days=1)
FEW = Policy(timeout=timedelta(seconds=1), attempts=3, factor=2, jitter=0)

ASKING = Policy(timeout=DAY / 2, cap=DAY / 2, attempts=None)

drive = Saga(
    "drive",
    Ride,
    (
        reversible(hire, undo=bring_back, policy=FEW, undo_policy=FEW),
        reversible(hire_driver, undo=bring_back, policy=FEW, undo_policy=FEW),
    ),
    pivot=None,
)

travel = Saga(
    "travel",
    Trip,
    reversible=(
        reversible_each(cities, book, undo=free, then=add_price, policy=FEW, undo_policy=FEW),
        child(drive, ride_of, when=goes_by_car),
        delay("cool-off", DAY),
        wait_for(Approval, then=keep_approval, timeout=2 * DAY),
    ),
    pivot=step(pay, policy=FEW),
    retriable=(step(send_tickets, policy=FEW),),
    deadline=7 * DAY,
)

PRICED: Script = {Book: Priced(price=10)}
YES: SignalScript = {Approval: Approval(by="grace")}
