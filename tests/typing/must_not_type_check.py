"""Sagas that the theory forbids, as mypy sees them. Never run: `tests/unit/test_typing.py` proves each line.

A line that must not type-check says which error it is: `# type: ignore[code]`. So mypy --strict passes on this file
just as long as every one of them is an error (an ignore that nobody needs is one too), and every other line is right.
"""

from orchestrator.definition import Saga, SagaData, parallel, reversible, step
from outbox.contracts import Command, Reply


class Packed(Reply):
    box: str


class Charged(Reply):
    receipt: str


class Pack(Command[Packed], participant="warehouse"):
    weight: int


class Unpack(Command[Packed], participant="warehouse"):
    pass


class Charge(Command[Charged], participant="bank"):
    pass


class Parcel(SagaData):
    weight: int = 1
    box: str = ""


class Letter(SagaData):
    stamp: str = ""


def pack(parcel: Parcel) -> Pack:
    return Pack(weight=parcel.weight)


def unpack(parcel: Parcel) -> Unpack:
    return Unpack()


def charge(parcel: Parcel) -> Charge:
    return Charge()


def notify(anything: SagaData) -> Charge:
    return Charge()


def stamp(letter: Letter) -> Charge:
    return Charge()


def peel_off(letter: Letter) -> Unpack:
    return Unpack()


def keep_box(parcel: Parcel, reply: Packed) -> Parcel:
    return parcel.model_copy(update={"box": reply.box})


def keep_receipt(parcel: Parcel, reply: Charged) -> Parcel:
    return parcel


def keep_any(parcel: Parcel, reply: Reply) -> Parcel:
    return parcel


def become_letter(parcel: Parcel, reply: Packed) -> Letter:
    return Letter()


def not_a_command(parcel: Parcel) -> Packed:
    return Packed(box="")


PACK = reversible(pack, undo=unpack, then=keep_box)
CHARGE = step(charge, then=keep_receipt)

good = Saga(
    name="good",
    data=Parcel,
    reversible=(PACK, parallel(PACK, reversible(charge, undo=unpack, then=keep_any))),
    pivot=CHARGE,
    retriable=(step(notify), parallel(step(notify), step(pack, then=keep_box))),
)

# the three fields of a saga
Saga(name="undo-less", data=Parcel, reversible=(CHARGE,), pivot=CHARGE)  # type: ignore[arg-type]
Saga(name="undo-less", data=Parcel, reversible=(parallel(CHARGE),), pivot=CHARGE)  # type: ignore[arg-type]
Saga(name="undone-pivot", data=Parcel, reversible=(), pivot=PACK)  # type: ignore[arg-type]
Saga(name="two-pivots", data=Parcel, reversible=(), pivot=parallel(CHARGE, CHARGE))  # type: ignore[arg-type]
Saga(name="undone-after", data=Parcel, reversible=(), pivot=CHARGE, retriable=(PACK,))  # type: ignore[arg-type]
Saga(name="no-pivot", data=Parcel, reversible=(PACK,))  # type: ignore[call-arg]
reversible(pack)  # type: ignore[call-arg]
step(charge, undo=unpack)  # type: ignore[call-arg]

# a handler for the wrong reply
reversible(pack, undo=unpack, then=keep_receipt)  # type: ignore[misc]
step(charge, then=keep_box)  # type: ignore[misc]
reversible(pack, undo=unpack, then=become_letter)  # type: ignore[misc]

# a function for the data of another saga
Saga(name="letter", data=Parcel, reversible=(), pivot=step(stamp))  # type: ignore[misc]
Saga(name="letter", data=Parcel, reversible=(reversible(stamp, undo=peel_off),), pivot=CHARGE)  # type: ignore[misc]
Saga(name="letter", data=Parcel, reversible=(reversible(pack, undo=peel_off),), pivot=CHARGE)  # type: ignore[misc]
Saga(name="letter", data=Letter, reversible=(), pivot=CHARGE)  # type: ignore[misc]

# what is no command
step(not_a_command)  # type: ignore[arg-type]
