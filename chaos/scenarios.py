"""What is tried: the kinds of faults, and the scenarios that are made of them. No I/O."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chaos.names import POSTGRES, PROCESSES, brokers, wires
from outbox.topology import COMMANDS, EVENTS, REPLIES

Targets = Callable[[int], Sequence[str]]
"""Whom a fault may hit, when there are so many servers of NATS."""

PARTICIPANTS: Final = tuple(name for name in PROCESSES if not name.startswith("orchestrator"))
CONSUMERS: Final = (
    f"{REPLIES}/orchestrator",
    *(f"{COMMANDS}/{name}" for name in ("order", "inventory", "payment", "orchestrator")),
)


@dataclass(frozen=True)
class Kind:
    """One kind of fault."""

    name: str
    what: str
    targets: Targets
    lasts: tuple[float, float] = (0.0, 0.0)
    """Seconds, at least and at most."""

    told_as: tuple[str, ...] = ()
    """Its names in a report, when it has others there than its own."""


def _processes(_count: int) -> Sequence[str]:
    return PROCESSES


def _servers_of_nats(count: int) -> Sequence[str]:
    return brokers(count)


def _database(_count: int) -> Sequence[str]:
    return (POSTGRES,)


def _store(_count: int) -> Sequence[str]:
    return ("nats",)


def _between_servers(count: int) -> Sequence[str]:
    return [name for name in wires(count) if name.startswith("nats-")]


def _of_processes(count: int) -> Sequence[str]:
    return [name for name in wires(count) if not name.startswith("nats-")]


KILL = Kind("kill", "SIGKILL to a process of ours", _processes)
KILL_BROKER = Kind("kill-broker", "SIGKILL to a nats-server", _servers_of_nats)
KILL_DATABASE = Kind("kill-database", "SIGKILL to all processes of PostgreSQL", _database)
PAUSE = Kind("pause", "SIGSTOP to a process of ours", _processes, (1.0, 15.0))
PAUSE_BROKER = Kind("pause-broker", "SIGSTOP to a nats-server", _servers_of_nats, (1.0, 15.0))
PAUSE_DATABASE = Kind("pause-database", "SIGSTOP to all processes of PostgreSQL", _database, (0.5, 6.0))
DATABASE_RESTART = Kind(
    "database-restart", "PostgreSQL is stopped in immediate mode and started again", _database, (0.0, 3.0)
)
STORE_WIPE = Kind("store-wipe", "nats-server is killed and its whole JetStream store deleted", _store)
STORE_DELETE = Kind("store-delete", "the whole JetStream store is deleted under the running server", _store, (2.0, 8.0))
STORE_ABANDON = Kind(
    "store-abandon", "the JetStream store is deleted under the running server, and nobody starts it again", _store
)
STORE_ROLLBACK = Kind("store-rollback", "the JetStream store is rolled back to an older copy", _store, (2.0, 30.0))
STREAM_DELETE = Kind("stream-delete", "a stream is deleted", lambda _: (COMMANDS, REPLIES, EVENTS))
CONSUMER_DELETE = Kind("consumer-delete", "a durable consumer is deleted", lambda _: CONSUMERS)
CUT = Kind("cut", "a network is cut", _of_processes, (1.0, 25.0))
CUT_ONE_WAY = Kind("cut-one-way", "a network is cut in one direction", _of_processes, (1.0, 25.0))
DELAY = Kind("delay", "a network is slow", _of_processes, (5.0, 15.0))
LOSS = Kind("loss", "a network loses segments, which TCP sends again", _of_processes, (5.0, 15.0))
RESET = Kind("reset", "connections are reset", _of_processes)
PARTITION = Kind("cut", "the network between two servers of NATS is cut", _between_servers, (2.0, 25.0))
BROKER_DISK = Kind("disk-full", "the broker's disk is full", _servers_of_nats, (3.0, 10.0))
DATABASE_DISK = Kind("disk-full", "the database's disk is full", _database, (3.0, 10.0))
CLOCK = Kind("clock-skew", "the clock of a process jumps by hours", _processes, (10.0, 20.0))
ROGUE = Kind(
    "rogue",
    "a participant answers twice, late, never, or with garbage",
    lambda _: PARTICIPANTS,
    (10.0, 20.0),
    told_as=("answer-garbage", "answer-late", "answer-never", "answer-twice"),
)


@dataclass(frozen=True)
class Scenario:
    """One thing that is tried."""

    name: str
    what: str
    kinds: Mapping[Kind, float]
    """And how often each comes, against the others."""

    every: float = 5.0
    """Seconds between two faults, on average."""

    brokers: int = 1
    small_disks: tuple[str, ...] = ()
    """Servers that have a disk of their own, which can be filled. It takes the right to mount."""

    calm: float = 5.0
    """Seconds before the first fault, in which one sees how it goes without."""

    @property
    def faults(self) -> list[str]:
        """The names of all faults that a report may tell of."""
        return sorted({name for kind in self.kinds for name in kind.told_as or (kind.name,)})


def _scenario(name: str, what: str, *kinds: Kind, every: float = 5.0, brokers: int = 1) -> Scenario:
    disks = [*(["nats-1"] if BROKER_DISK in kinds else []), *([POSTGRES] if DATABASE_DISK in kinds else [])]
    return Scenario(name, what, dict.fromkeys(kinds, 1.0), every, brokers, tuple(disks))


MIX: Final = {
    KILL: 40.0,
    KILL_BROKER: 4.0,
    KILL_DATABASE: 3.0,
    PAUSE: 5.0,
    PAUSE_BROKER: 2.0,
    PAUSE_DATABASE: 2.0,
    DATABASE_RESTART: 8.0,
    STORE_WIPE: 4.0,
    STORE_DELETE: 2.0,
    STORE_ABANDON: 1.0,
    STORE_ROLLBACK: 5.0,
    STREAM_DELETE: 3.0,
    CONSUMER_DELETE: 4.0,
    CUT: 4.0,
    CUT_ONE_WAY: 4.0,
    DELAY: 3.0,
    LOSS: 3.0,
    RESET: 4.0,
    CLOCK: 2.0,
    ROGUE: 3.0,
}

IN_A_CLUSTER: Final = {kind: weight for kind, weight in MIX.items() if kind != STORE_ABANDON} | {PARTITION: 4.0}
"""Servers that lose their files while two others have them: that is Raft's to mend, or not."""

SCENARIOS: Final = {
    one.name: one
    for one in (
        _scenario("kill-roles", "any process of ours is killed", KILL, every=2.0),
        _scenario("pause-roles", "any process of ours is frozen, and wakes late", PAUSE),
        _scenario("broker-dies", "nats-server is killed, or frozen", KILL_BROKER, PAUSE_BROKER, every=10.0),
        _scenario(
            "database-restarts", "PostgreSQL is stopped at once, killed, or frozen", DATABASE_RESTART, KILL_DATABASE,
            PAUSE_DATABASE, every=8.0,
        ),
        _scenario("store-wiped", "the broker loses its whole store", STORE_WIPE, every=10.0),
        _scenario("store-deleted", "the store is deleted under the running broker", STORE_DELETE, every=15.0),
        _scenario(
            "store-abandoned", "the store is deleted under the broker, which nobody starts again", STORE_ABANDON,
            every=40.0,
        ),
        _scenario("store-rolled-back", "the store is an older one", STORE_ROLLBACK, every=15.0),
        _scenario("topology-deleted", "streams and consumers are deleted", STREAM_DELETE, CONSUMER_DELETE),
        _scenario("network-cut", "networks are cut, in one direction or in both", CUT, CUT_ONE_WAY),
        _scenario("network-bad", "networks are slow, lossy, or reset connections", DELAY, LOSS, RESET),
        _scenario(
            "broker-cluster", "three servers of NATS, of which one is killed or frozen", KILL_BROKER, PAUSE_BROKER,
            every=15.0, brokers=3,
        ),
        _scenario("cluster-partition", "three servers of NATS lose each other", PARTITION, every=6.0, brokers=3),
        _scenario(
            "cluster-forgets", "three servers of NATS lose their whole stores, or go back to older ones", STORE_WIPE,
            STORE_ROLLBACK, every=30.0, brokers=3,
        ),
        _scenario("broker-disk-full", "the broker's disk is full", BROKER_DISK, every=20.0),
        _scenario("database-disk-full", "the database's disk is full", DATABASE_DISK, every=20.0),
        _scenario("clock-skew", "the clocks of processes jump by hours", CLOCK, every=6.0),
        _scenario("rogue-participants", "participants answer twice, late, never, or with garbage", ROGUE, every=6.0),
        Scenario("mix", "all of it at random, with one server of NATS", MIX),
        Scenario("mix-cluster", "all of it at random, with three servers of NATS", IN_A_CLUSTER, brokers=3),
    )
}  # fmt: skip
