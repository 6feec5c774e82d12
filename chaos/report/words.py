"""What a run has shown, in sentences: the same on the terminal and on the page."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from chaos.record import PASSED, Fault, Record
from chaos.report import figures
from outbox.moments import duration
from outbox.numbers import counted

Tone = Literal["good", "doubtful", "bad"]
NEVER: Final = "not in this run"
NAMED: Final = 3
"""So many targets, of faults that are told of together."""

DATABASES: Final = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}


def printable(text: str) -> str:
    """Anything that would not be seen, or would turn the text around, as its escape: `\\x1b`."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def clock(seconds: float) -> str:
    """A time of the run: `4.2` -> `0:04.2`, `3700` -> `1:01:40.0`."""
    tenths = round(max(0.0, seconds) * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    shown = f"{minutes:02}" if hours else f"{minutes}"
    return f"{hours}:{shown}:{rest / 10:04.1f}" if hours else f"{shown}:{rest / 10:04.1f}"


def tick(seconds: float) -> str:
    """A round time of the run: `90` -> `1:30`."""
    return clock(seconds).removesuffix(".0")


def time(seconds: float | None) -> str:
    """How long something took."""
    if seconds is None:
        return NEVER
    return duration(seconds).removesuffix(" 0 min").removesuffix(" 0 s") if seconds else "0 s"


def tone(record: Record) -> Tone:
    """A passed run may leave doubts."""
    if record.verdict != PASSED:
        return "bad"
    return "doubtful" if any(doubts(record)) else "good"


def verdict(record: Record) -> str:
    """As a headline."""
    said = record.verdict
    return said[:1].upper() + said[1:]


def story(record: Record) -> Iterator[str]:
    """What was thrown at it, what came out, and what it was held against."""
    yield f"In {time(record.duration)}, {_faults(record)} against {setup(record)}."
    sagas = figures.total(record.sagas)
    yield f"{counted(sagas, 'saga')} started{': ' if sagas else ''}{statuses(record.sagas)}."
    if record.settled_after is not None and record.faults:
        yield f"All had ended {time(record.settled_after)} after the last fault."
    claims = len(record.invariants)
    were = "was" if claims == 1 else "were"
    yield f"{counted(claims, 'invariant')} {were} held against {counted(figures.checked(record), 'thing')}."


def doubts(record: Record) -> Iterator[str]:
    """What a reader should know besides the verdict, before believing it."""
    if left := figures.not_ended(record):
        yield f"Not every saga has ended: {statuses(left)}."
    if (idle := figures.idle(record)) > len(record.faults) / 2:
        yield f"{idle:,} of {counted(len(record.faults), 'fault')} struck when no saga was in flight: more orders help."
    for one in record.invariants:
        if not one.checked and figures.checked(record):
            yield f"The invariant {printable(one.name)} was held against nothing."


def setup(record: Record) -> str:
    """`2 orchestrator, 2 order, 3 NATS servers and PostgreSQL`."""
    roles = [f"{replicas} {printable(role)}" for role, replicas in record.processes.items()]
    *first, last = [*roles, counted(record.brokers, "NATS server"), database(record)]
    return f"{', '.join(first)} and {last}"


def database(record: Record) -> str:
    """By its own name."""
    return DATABASES.get(record.database, printable(record.database))


def statuses(sagas: dict[str, int]) -> str:
    """`9 completed, 1 compensated`; those that ended first."""
    order = [*figures.ENDED, *sorted(set(sagas) - set(figures.ENDED))]
    return ", ".join(f"{sagas[status]:,} {printable(status)}" for status in order if status in sagas)


def fault(one: Fault) -> str:
    """One fault in a line."""
    told = [f"{one.kind} {one.target}", f"at {clock(one.at)}"]
    if figures.lasted(one):
        told.append(f"lasted {time(figures.lasted(one))}")
    took = figures.recovery(one)
    told.append("no recovery in this run" if took is None else f"recovered after {time(took)}")
    return printable(" · ".join([*told, one.detail] if one.detail else told))


def together(faults: Sequence[Fault]) -> str:
    """Several of one kind in a line, for which one mark stands."""
    kind = figures.Kind(faults[0].kind, tuple(faults))
    hit = Counter(fault.target for fault in faults).most_common()
    named = [f"{target} ({times:,})" if times > 1 else target for target, times in hit[:NAMED]]
    named += [f"{len(hit) - NAMED:,} more"] if len(hit) > NAMED else []
    told = [f"{kind.name}, {kind.fired:,} times", f"from {clock(min(fault.at for fault in faults))}", ", ".join(named)]
    told += [f"recovered after at most {time(kind.worst)}"] if kind.worst is not None else []
    told += [f"no recovery in this run after {kind.unrecovered:,}"] if kind.unrecovered else []
    return printable(" · ".join(told))


def _faults(record: Record) -> str:
    kinds = len(record.fired)
    of_kinds = f" of {counted(kinds, 'kind')}" if kinds else ""
    return f"{counted(len(record.faults), 'fault')}{of_kinds} fired"
