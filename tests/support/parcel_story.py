"""A parcel is packed, paid for and sent off: the good saga that tests of definitions change in one place."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.definition import InvalidDefinition, Saga, SagaData, Signal, child, reversible, step
from outbox.contracts import Command, Reply


class Ok(Reply):
    pass


class Pack(Command[Ok], participant="warehouse"):
    pass


class Unpack(Command[Ok], participant="warehouse"):
    label: str | None = None


class Charge(Command[Ok], participant="bank"):
    reference: str = ""


class Approval(Signal):
    by: str = "ada"


class Parcel(SagaData):
    weight: int = 1


def pack(parcel: Parcel) -> Pack:
    return Pack()


def pack_again(parcel: Parcel) -> Pack:
    return Pack()


def unpack(parcel: Parcel) -> Unpack:
    return Unpack()


def charge(parcel: Parcel) -> Charge:
    return Charge()


def send_off(parcel: Parcel) -> Pack:
    return Pack()


def boxes(parcel: Parcel) -> range:
    return range(parcel.weight)


def pack_one(parcel: Parcel, box: int) -> Pack:
    return Pack()


def unpack_one(parcel: Parcel, box: int) -> Unpack:
    return Unpack()


def charge_one(parcel: Parcel, box: int) -> Charge:
    return Charge()


class Wrapping(SagaData):
    paper: str = "red"


def wrap(wrapping: Wrapping) -> Pack:
    return Pack()


def unwrap(wrapping: Wrapping) -> Unpack:
    return Unpack()


def wrapping_of(data: SagaData) -> Wrapping:
    return Wrapping()


DAY = timedelta(days=1)
WRAP = Saga("wrap", Wrapping, (reversible(wrap, undo=unwrap),), pivot=None)
CHILD = child(WRAP, wrapping_of)
PACK = reversible(pack, undo=unpack)
PACK_AGAIN = reversible(pack_again, undo=unpack)
CHARGE = step(charge)
SEND_OFF = step(send_off)


def saga(**changes: Any) -> Saga[Parcel]:
    """A good saga, changed in one place. The places take anything: what mypy would refuse is tried here."""
    parts: dict[str, Any] = {
        "name": "send-parcel",
        "data": Parcel,
        "reversible": (PACK,),
        "pivot": CHARGE,
        "retriable": (SEND_OFF,),
    }
    return Saga(**{**parts, **changes})


def refusal(build: Callable[[], object]) -> str:
    """The sentence with which a definition is refused."""
    with pytest.raises(InvalidDefinition) as caught:
        build()
    return str(caught.value)
