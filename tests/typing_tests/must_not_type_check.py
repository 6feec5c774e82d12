"""Sagas that the theory forbids, as mypy sees them. Never run: `tests/unit/test_typing.py` proves each line.

A line that must not type-check says which error it is: `# type: ignore[code]`. So mypy --strict passes on this file
just as long as every one of them is an error (an ignore that nobody needs is one too), and every other line is right.
"""

from datetime import timedelta

from orchestrator.definition import (
    Saga,
    SagaData,
    SagaEnded,
    Signal,
    child,
    delay,
    parallel,
    reversible,
    reversible_each,
    step,
    step_each,
    wait_for,
)
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


class Approval(Signal):
    by: str


class Payment(Signal):
    amount: int


class Parcel(SagaData):
    weight: int = 1
    box: str = ""
    parts: tuple[str, ...] = ()


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


def parts(parcel: Parcel) -> tuple[str, ...]:
    return parcel.parts


def numbers(parcel: Parcel) -> list[int]:
    return []


def pack_part(parcel: Parcel, part: str) -> Pack:
    return Pack(weight=len(part))


def unpack_part(parcel: Parcel, part: str) -> Unpack:
    return Unpack()


def keep_approval(parcel: Parcel, approval: Approval) -> Parcel:
    return parcel


def keep_payment(parcel: Parcel, payment: Payment) -> Parcel:
    return parcel


def keep_end(parcel: Parcel, ended: SagaEnded) -> Parcel:
    return parcel


def is_heavy(parcel: Parcel) -> bool:
    return parcel.weight > 10


def is_stamped(letter: Letter) -> bool:
    return bool(letter.stamp)


def heavy_word(parcel: Parcel) -> str:
    return "heavy"


def drying(parcel: Parcel) -> timedelta:
    return timedelta(days=parcel.weight)


def drying_days(parcel: Parcel) -> int:
    return parcel.weight


def letter_of(parcel: Parcel) -> Letter:
    return Letter()


def parcel_of(parcel: Parcel) -> Parcel:
    return parcel


def letter_labels(letter: Letter) -> dict[str, str]:
    return {}


def letter_priority(letter: Letter) -> int:
    return 0


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

DAY = timedelta(days=1)
LETTER = Saga(name="letter", data=Letter, reversible=(reversible(stamp, undo=peel_off),), pivot=None)

also_good = Saga(
    name="also-good",
    data=Parcel,
    reversible=(
        reversible_each(parts, pack_part, undo=unpack_part, then=keep_box, when=is_heavy, limit=3),
        parallel(wait_for(Approval, then=keep_approval, timeout=DAY, otherwise="proceed"), PACK, delay("dry", drying)),
        child(LETTER, letter_of, then=keep_end),
    ),
    pivot=child(LETTER, letter_of),
    retriable=(
        step_each(parts, pack_part, then=keep_box),
        parallel(wait_for(Payment, then=keep_payment), delay("rest", DAY), child(LETTER, letter_of)),
    ),
    deadline=DAY,
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

# one step for each item: the item goes to the step and to its undo
reversible_each(numbers, pack_part, undo=unpack_part)  # type: ignore[misc]
reversible_each(parts, pack_part)  # type: ignore[call-arg]
reversible_each(parts, pack_part, undo=unpack)  # type: ignore[arg-type]
reversible_each(parts, pack, undo=unpack_part)  # type: ignore[arg-type]
reversible_each(parts, pack_part, undo=unpack_part, then=keep_receipt)  # type: ignore[misc]
reversible_each(heavy_word, unpack, undo=unpack_part)  # type: ignore[arg-type]
reversible_each(is_heavy, pack_part, undo=unpack_part)  # type: ignore[arg-type]
step_each(numbers, pack_part)  # type: ignore[misc]
step_each(parts, pack_part, undo=unpack_part)  # type: ignore[call-arg]
step_each(parts, pack_part, limit="3")  # type: ignore[arg-type]

# conditions
Saga(name="when", data=Parcel, reversible=(), pivot=CHARGE, retriable=(step(pack, when=is_stamped),))  # type: ignore[misc]
step(pack, when=heavy_word)  # type: ignore[arg-type]
wait_for(Approval, then=keep_approval, when=is_stamped)  # type: ignore[misc]

# waits and delays
wait_for(Approval, then=keep_payment)  # type: ignore[arg-type]
wait_for(Packed, then=keep_box)  # type: ignore[type-var]
wait_for(Approval, timeout=3)  # type: ignore[arg-type]
wait_for(Approval, timeout=DAY, otherwise="ignore")  # type: ignore[arg-type]
delay("dry", drying_days)  # type: ignore[arg-type]
delay("dry", 3)  # type: ignore[arg-type]
reversible(pack, undo=unpack, if_unknown="hope")  # type: ignore[arg-type]

# children
child(LETTER, parcel_of)  # type: ignore[arg-type]
child(LETTER, letter_of, then=keep_box)  # type: ignore[arg-type]
child(PACK, letter_of)  # type: ignore[arg-type]

# where they may stand, and with which data
WAIT = wait_for(Approval, then=keep_approval)
CHILD = child(LETTER, letter_of, then=keep_end)
Saga(name="pivot", data=Parcel, reversible=(), pivot=WAIT)  # type: ignore[arg-type]
Saga(name="pivot", data=Parcel, reversible=(), pivot=delay("dry", DAY))  # type: ignore[arg-type]
Saga(name="each", data=Parcel, reversible=(step_each(parts, pack_part),), pivot=CHARGE)  # type: ignore[arg-type]
Saga(name="wait", data=Letter, reversible=(WAIT,), pivot=None)  # type: ignore[misc]
Saga(name="child", data=Letter, reversible=(CHILD,), pivot=None)  # type: ignore[misc]
Saga(name="delay", data=Letter, reversible=(delay("dry", drying),), pivot=None)  # type: ignore[misc]
Saga(name="undone-each", data=Parcel, reversible=(), pivot=None, retriable=(PACK,))  # type: ignore[arg-type]
Saga(name="labels", data=Parcel, reversible=(PACK,), pivot=None, labels=letter_labels)  # type: ignore[arg-type]
Saga(name="priority", data=Parcel, reversible=(PACK,), pivot=None, priority=letter_priority)  # type: ignore[arg-type]
