"""Records of chaos runs that never were, as the real ones look: orders come in, faults hold sagas up, they catch up."""

from bisect import bisect
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import Any, Final

from hypothesis import strategies as some

from chaos.record import Fault, Invariant, Record, Sample, Violation

PROCESSES: Final = {"orchestrator": 2, "order": 2, "inventory": 2, "payment": 2}
REPLICAS: Final = [f"{role}-{number}" for role, replicas in PROCESSES.items() for number in range(1, replicas + 1)]
SERVERS: Final = ("nats-1", "nats-2", "nats-3")
LINES: Final = [f"{replica}>{server}" for replica in REPLICAS for server in (*SERVERS, "postgres")]
KINDS: Final[dict[str, tuple[Sequence[str], tuple[float, float], float, int]]] = {
    # kind: targets, seconds that it lasts, what is left of the throughput meanwhile, weight
    "kill": ([*REPLICAS, *SERVERS], (0.5, 4), 0.6, 40),
    "pause": (REPLICAS, (1, 12), 0.5, 14),
    "cut": (LINES, (2, 15), 0.6, 10),
    "cut-one-way": (LINES, (2, 15), 0.6, 5),
    "delay": (LINES, (5, 20), 0.7, 8),
    "loss": (LINES, (5, 20), 0.6, 6),
    "database-restart": (["postgres"], (1, 4), 0.0, 5),
    "store-wipe": (["nats-1"], (0, 0), 0.1, 3),
    "store-rollback": (["nats-1"], (1, 3), 0.1, 3),
    "consumer-deleted": (["orchestrator", "order", "inventory", "payment"], (0, 0), 0.3, 3),
    "stream-deleted": (["COMMANDS", "REPLIES"], (0, 0), 0.2, 2),
    "clock-skew": (REPLICAS, (10, 30), 0.9, 1),
}
LONGEST: Final = 35
"""Seconds for which a fault and what follows from it last, at most."""

INVARIANTS: Final = (
    ("replay", "The log of every saga replays to its stored state.", 50_000),
    ("effects", "A completed saga has all of its effects, a compensated one has none.", 50_000),
    ("stock", "Stock, reserved and sold sum to what there was, for every article.", 1_000),
    ("ledger", "The ledger sums to zero, and what was captured belongs to confirmed orders.", 49_213),
    ("outboxes", "No outbox holds a row once everything is quiet.", 4),
    ("orders", "Every order that was accepted has its saga.", 50_000),
)
VIOLATIONS: Final = (
    Violation(
        invariant="effects",
        message="compensated, but the payment still holds 19.90 for it",
        saga_id="01KB2V7Q8M4T6W9X1Y3Z5A7C9E",
        rows=("payment.holds: id=…A7C9E amount=19.90 state=held", "saga_log: revision=7 undone authorise-payment"),
    ),
    Violation(
        invariant="effects", message="completed, but there is no reservation", saga_id="01KB2V7Q8M4T6W9X1Y3Z5A7C9F"
    ),
    Violation(
        invariant="outboxes", message="12 rows are left over in the outbox of inventory", rows=("id=991 attempts=40",)
    ),
)


def chaos_run(seed: int = 7, *, duration: float = 300.0, faults: int = 60, sagas: int = 5_000, **other: Any) -> Record:
    """A run without a violation, in which all have ended; `other` replaces what it says."""
    random = Random(seed)
    fired = list(_faults(random, duration, faults))
    samples = list(_samples(random, duration, fired, sagas))
    last = samples[-1]
    settled = last.at - max((fault.until for fault in fired), default=0.0)
    fields: dict[str, Any] = {
        "scenario": "mix",
        "seed": seed,
        "reproduce": f"saga chaos run mix --seed {seed} --duration {duration:g}",
        "began": datetime(2026, 11, 24, 9, 30, tzinfo=UTC),
        "duration": duration,
        "settled_after": round(max(0.0, settled), 2),
        "database": "postgresql",
        "brokers": 3,
        "processes": PROCESSES,
        "samples": samples,
        "faults": [_recovered(fault, samples, sagas / duration) for fault in fired],
        "sagas": {"completed": last.completed, "compensated": last.compensated},
        "invariants": [Invariant(name=name, sentence=said, checked=number) for name, said, number in INVARIANTS],
        "violations": (),
    }
    return Record(**fields | other)


@cache
def an_hour() -> Record:
    """The size that the page has to bear: 1,500 faults, 3,600 samples, 50,000 sagas."""
    return chaos_run(duration=3600.0, faults=1500, sagas=50_000)


def broken() -> Record:
    """Three violations."""
    return chaos_run(11, duration=120.0, faults=30, sagas=2_000, violations=VIOLATIONS)


def calm() -> Record:
    """Nothing has fired."""
    return chaos_run(3, duration=30.0, faults=0, sagas=300)


def unsettled() -> Record:
    """Some sagas never ended, and the run was over before the last faults were recovered from."""
    run = chaos_run(5, duration=60.0, faults=20, sagas=900)
    held_up = [fault.model_copy(update={"recovered_at": None}) if fault.at > 40 else fault for fault in run.faults]
    sagas = {"completed": 700, "compensated": 150, "running": 38, "stuck": 12}
    return run.model_copy(update={"settled_after": None, "faults": tuple(held_up), "sagas": sagas})


def empty() -> Record:
    """Nothing happened at all."""
    nothing: dict[str, Any] = {"samples": (), "sagas": {}, "invariants": (), "processes": {}, "settled_after": None}
    return chaos_run(1, duration=1.0, faults=0, sagas=1).model_copy(update=nothing | {"duration": 0.0})


def _faults(random: Random, duration: float, number: int) -> Iterator[Fault]:
    weights = [weight for *_, weight in KINDS.values()]
    for at in sorted(random.uniform(min(2.0, duration / 10), duration * 0.97) for _ in range(number)):
        [kind] = random.choices(list(KINDS), weights)
        targets, (shortest, longest), _, _ = KINDS[kind]
        until = min(duration, at + random.uniform(shortest, longest))
        detail = {"delay": "250 ms ± 50 ms", "loss": "20%", "clock-skew": "+90 s"}.get(kind, "")
        yield Fault(
            kind=kind, target=random.choice(targets), at=round(at, 2), until=round(max(at, until), 2), detail=detail
        )


def _samples(random: Random, duration: float, faults: Sequence[Fault], sagas: int) -> Iterator[Sample]:
    """One a second, or ten when the run is short, until all have ended."""
    step = 1.0 if duration > 60 else 0.1
    rate, at, able, started, completed, compensated = sagas / duration, 0.0, 1.0, 0, 0, 0
    while True:
        yield Sample(at=round(at, 2), started=started, completed=completed, compensated=compensated, stuck=0)
        if at >= duration and completed + compensated >= sagas:
            return
        at += step
        started = sagas if at >= duration else min(sagas, round(rate * at + random.uniform(-0.5, 0.5) * rate * step))
        started = max(started, completed + compensated)
        usual = rate * 0.4
        room = started - completed - compensated - usual * (at < duration)
        able += rate * 6 * _left(faults, at) * random.uniform(0.8, 1.2) * step
        ended = max(0, min(int(able), round(room)))
        able = min(able - ended, rate)
        refused = sum(random.random() < 0.14 for _ in range(ended))
        completed, compensated = completed + ended - refused, compensated + refused


def _at(fault: Fault) -> float:
    return fault.at


def _left(faults: Sequence[Fault], at: float) -> float:
    """Which part of the throughput is left under the faults of this moment, and the seconds after them."""
    left = 1.0
    for fault in faults[bisect(faults, at - LONGEST, key=_at) : bisect(faults, at, key=_at)]:
        if at < fault.until + 1.5:
            left *= KINDS[fault.kind][2]
    return left


def _recovered(fault: Fault, samples: Sequence[Sample], rate: float) -> Fault:
    after = (sample for sample in samples if sample.at > fault.at + 1 and sample.in_flight <= rate * 1.5 + 1)
    found = next(after, None)
    return fault.model_copy(update={"recovered_at": None if found is None else found.at})


# --- anything that a record could say ---------------------------------------------------------------------------------

HOSTILE: Final = "<script>alert(1)</script>\"'><img src=//x onerror=alert(1)>&amp;|`*{{ seed }}\x1b[31m\u202e\x00\n%"
"""What breaks out of markup, templates, tables, terminals and the direction of the text."""

_words = some.text(max_size=40) | some.just(HOSTILE)
_times = some.floats(0, 1e7)
_counts = some.integers(0, 10**12)
_faults_of_any_kind = some.builds(
    Fault,
    kind=some.sampled_from(("kill", "store-wipe")) | _words,
    target=_words,
    at=_times,
    until=_times,
    recovered_at=some.none() | _times,
    detail=_words,
)
records: Final = some.builds(
    Record,
    scenario=_words,
    seed=some.integers(0, 2**64),
    reproduce=_words,
    began=some.datetimes(timezones=some.just(UTC)),
    duration=_times,
    settled_after=some.none() | _times,
    database=some.sampled_from(("postgresql", "sqlite")) | _words,
    brokers=some.integers(0, 9),
    processes=some.dictionaries(_words, some.integers(0, 99), max_size=4),
    samples=some.lists(
        some.builds(Sample, at=_times, started=_counts, completed=_counts, compensated=_counts, stuck=_counts),
        max_size=8,
    ),
    faults=some.lists(_faults_of_any_kind, max_size=8),
    sagas=some.dictionaries(some.sampled_from(("completed", "compensated", "stuck")) | _words, _counts, max_size=5),
    invariants=some.lists(some.builds(Invariant, name=_words, sentence=_words, checked=_counts), max_size=4),
    violations=some.lists(
        some.builds(
            Violation,
            invariant=_words,
            message=_words,
            saga_id=some.none() | _words,
            rows=some.lists(_words, max_size=3),
        ),
        max_size=4,
    ),
)
"""Records of any run, however odd."""
