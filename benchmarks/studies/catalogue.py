"""The studies, by name: what is compared with what.

Unless it says otherwise a run is a closed loop of three-step sagas, a thousand of them under way, on PostgreSQL. How
many sagas a run has is chosen so that it takes five to fifteen seconds on two cores.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from benchmarks.options import PLACE_ORDER
from benchmarks.studies import numbers
from benchmarks.studies.runs import Row, Run, falls_behind
from benchmarks.studies.scale import OURS, PEERS, Scale
from benchmarks.studies.study import Bars, Column, Lines, Panel, Rows, Study, figure, good, label

SPEED: Final = figure("sagas_per_second", "sagas/s", numbers.rate)
P50, P99 = figure("p50_ms", "p50, ms", numbers.rate), figure("p99_ms", "p99, ms", numbers.rate)
COST: Final = figure("cpu_ms", "CPU, ms a saga", numbers.rate)
SAGAS_RUN: Final = figure("sagas", "sagas", numbers.count)
SPEED_PANEL: Final = Panel("sagas_per_second", "sagas per second")
P99_PANEL: Final = Panel("p99_ms", "p99 latency, ms")
ROOF: Final = "roof_per_second"

THREE, FIVE = "three steps", "five steps"
STEPS_OF: Final = {THREE: 3, FIVE: 5, PLACE_ORDER: None}
DATABASES: Final = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
STYLES: Final = {"bare": "by hand, the least", "amends": "by hand, our tables and messages"}
RATES: Final = (10, 50, 200)
RATE_SECONDS: Final = 12
PEER_SAGAS: Final = {"dbos": 2000, "natsaga": 800, "restate": 5000, "temporal": 600}
"""Of three steps; of five it is so many fewer."""


def _of_first(row: Row, rows: Rows) -> str:
    first = next(iter(good(rows)))
    return "" if row is first else numbers.ratio(row["sagas_per_second"] / first["sagas_per_second"])


def _of_roof(row: Row, _: Rows) -> str:
    return f"{row['sagas_per_second'] / row[ROOF]:.0%}" if row.get(ROOF) else ""


OF_FIRST: Final = Column("of the first", _of_first, ("sagas_per_second",))
OF_ROOF: Final = Column("of the roof", _of_roof, ("sagas_per_second", ROOF))


# --- how fast -------------------------------------------------------------------------------------------------------


def _throughput(scale: Scale) -> list[Run]:
    sizes = {"postgresql": 20_000, "sqlite": 10_000}
    runs = [
        scale.ours(
            {"saga": saga, "how": f"{DATABASES[database]}, {in_flight:,} in flight"},
            sagas=sizes[database],
            steps=steps,
            database=database,
            in_flight=in_flight,
            roof=True,
        )
        for saga, steps in STEPS_OF.items()
        for database in ("postgresql", "sqlite")
        for in_flight in (1000, 3000)
    ]
    by_hand = [
        scale.by_hand({"saga": THREE, "how": how}, style=style, steps=3, sagas=100_000) for style, how in STYLES.items()
    ]
    return [*runs, *by_hand]


THROUGHPUT: Final = Study(
    "throughput",
    "Sagas per second, as many as go",
    _throughput,
    (
        label("saga", "saga"),
        label("how", "on"),
        SPEED,
        P50,
        P99,
        COST,
        figure(ROOF, "roof, sagas/s", numbers.rate),
        OF_ROOF,
    ),
    Bars(
        (Panel("sagas_per_second", "sagas per second", ROOF),), "saga", "", "how", marked="roof, measured in that run"
    ),
)


# --- next to others -------------------------------------------------------------------------------------------------


def _peers(scale: Scale) -> list[Run]:
    ours = [scale.ours({"steps": steps, "system": OURS}, sagas=45_000 // steps, steps=steps) for steps in (3, 5)]
    theirs = [
        scale.peer(name, {"steps": steps, "system": system}, steps=steps, sagas=PEER_SAGAS[name] * 3 // steps)
        for steps in (3, 5)
        for name, system in PEERS.items()
    ]
    return sorted([*ours, *theirs], key=lambda run: int(run.labels["steps"]))


def _ours_to(row: Row, rows: Rows) -> str:
    ours = _ours(row["steps"], rows)
    if ours is None or ours is row:
        return ""
    return numbers.ratio(ours["sagas_per_second"] / row["sagas_per_second"])


def _ours(steps: int, rows: Rows) -> Row | None:
    return next((row for row in good(rows) if row["system"] == OURS and row["steps"] == steps), None)


def _to_the_best(rows: Rows) -> list[str]:
    sentences = []
    for steps in sorted({row["steps"] for row in rows}):
        theirs = [row for row in rows if row["steps"] == steps and row["system"] != OURS]
        best, ours = max(theirs, key=_speed, default=None), _ours(steps, rows)
        if best is not None and ours is not None:
            times = numbers.ratio(_speed(ours) / _speed(best))
            sentences.append(f"{steps} steps: {OURS} does {times} times what the best of them, {best['system']}, does.")
    return sentences


def _speed(row: Row) -> float:
    return float(row["sagas_per_second"])


PEERS_STUDY: Final = Study(
    "peers",
    "Sagas per second, next to other systems",
    _peers,
    (
        label("steps", "steps"),
        label("system", "system"),
        figure("version", "version", str),
        figure("in_flight", "in flight", numbers.count),
        SAGAS_RUN,
        SPEED,
        P50,
        P99,
        Column("Amends is faster, times", _ours_to, ("sagas_per_second",)),
    ),
    Bars((SPEED_PANEL,), "steps", "steps of a saga", "system", log=True),
    _to_the_best,
)


# --- how soon -------------------------------------------------------------------------------------------------------


def _latency(scale: Scale) -> list[Run]:
    ours = [
        scale.ours_at({"system": f"{OURS}, {saga}", "rate": rate}, rate=rate, seconds=RATE_SECONDS, steps=steps)
        for saga, steps in STEPS_OF.items()
        if steps != 5
        for rate in RATES
    ]
    theirs = [
        scale.peer_at(name, {"system": f"{system}, {THREE}", "rate": rate}, rate=rate, seconds=RATE_SECONDS)
        for name, system in PEERS.items()
        for rate in RATES
    ]
    return [*ours, *theirs]


def _keeps_up(row: Row, _: Rows) -> str:
    return "no" if falls_behind(row) else "yes"


LATENCY: Final = Study(
    "latency",
    "Latency when sagas come at a fixed rate",
    _latency,
    (
        label("system", "system"),
        label("rate", "sagas come, a second"),
        P50,
        P99,
        SPEED,
        Column("keeps up", _keeps_up, ("sagas_per_second",)),
    ),
    Lines(
        (Panel("p50_ms", "p50 latency, ms"), P99_PANEL),
        "rate",
        "sagas that come per second",
        "system",
    ),
)


# --- how the cost grows ---------------------------------------------------------------------------------------------


def _growth(
    name: str,
    what: str,
    key: str,
    heading: str,
    runs: Callable[[Scale], list[Run]],
    show: Callable[[Any], str] = numbers.count,
) -> Study:
    """A study of runs that differ in one thing."""
    columns = (label(key, heading, show), SAGAS_RUN, SPEED, P50, P99, COST, OF_FIRST)
    return Study(name, what, runs, columns, Bars((SPEED_PANEL, P99_PANEL), key, heading))


def _before(option: str, sizes: Sequence[int]) -> Callable[[Scale], list[Run]]:
    """Runs with so much before them. `option` without its dashes is the label."""

    def runs(scale: Scale) -> list[Run]:
        return [
            scale.ours({option: scale.size(size)}, f"--{option}", str(scale.size(size)), sagas=10_000) for size in sizes
        ]

    return runs


def _payload(scale: Scale) -> list[Run]:
    sizes = {1: 8_000, 16: 3_000, 256: 300}
    return [
        scale.ours({"payload": kib * 1024}, "--payload", str(kib * 1024), sagas=sagas, in_flight=200)
        for kib, sagas in sizes.items()
    ]


def _replicas(scale: Scale) -> list[Run]:
    return [
        scale.ours({"replicas": replicas}, "--replicas", str(replicas), sagas=10_000, database="postgresql")
        for replicas in (1, 2, 4)
    ]


def _steps(scale: Scale) -> list[Run]:
    return [
        scale.ours({"steps": steps}, sagas=sagas, steps=steps)
        for steps, sagas in {3: 10_000, 10: 3_000, 30: 1_000}.items()
    ]


def _sync(scale: Scale) -> list[Run]:
    modes = {"now and then": (), "every write": ("--sync-always",)}
    return [scale.ours({"synced": mode}, *words, sagas=10_000) for mode, words in modes.items()]


def _refusals(scale: Scale) -> list[Run]:
    return [scale.ours({"refused": percent}, "--refused", str(percent), sagas=9_000, steps=None) for percent in (0, 30)]


def _steps_a_second(row: Row, _: Rows) -> str:
    return numbers.rate(row["steps"] * row["sagas_per_second"])


STEPS: Final = Study(
    "steps",
    "Sagas of more steps",
    _steps,
    (
        label("steps", "steps"),
        SAGAS_RUN,
        SPEED,
        Column("steps/s", _steps_a_second, ("steps", "sagas_per_second")),
        P50,
        P99,
        COST,
    ),
    Bars((SPEED_PANEL, P99_PANEL), "steps", "steps of a saga"),
)

ALL: Final = (
    THROUGHPUT,
    PEERS_STUDY,
    LATENCY,
    _growth(
        "history",
        "Sagas that have ended before",
        "history",
        "ended before",
        _before("history", (0, 100_000, 1_000_000)),
    ),
    _growth(
        "waiting",
        "Sagas that wait for a signal meanwhile",
        "waiting",
        "waiting meanwhile",
        _before("waiting", (1, 10_000, 100_000)),
    ),
    _growth("payload", "Larger inputs", "payload", "input", _payload, numbers.size),
    _growth("replicas", "More processes of the orchestrator", "replicas", "orchestrators", _replicas),
    STEPS,
    _growth("sync", "When the broker syncs to disk", "synced", "the broker syncs", _sync, str),
    _growth("refusals", "Orders that are refused and undone", "refused", "refused", _refusals, "{} %".format),
)
STUDIES: Final = {study.name: study for study in ALL}
