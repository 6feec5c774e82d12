"""What breaks under running processes, and comes back: they recover by themselves, say so in two lines, and never spin.

A loop that spins is found by the CPU time of its process, as a multiple of what it takes when nothing happens.
"""

import asyncio
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import psutil
import pytest
from nats.aio.client import Client

from orchestrator.embedded.nats_server import EmbeddedNats, find_binary
from orchestrator.embedded.postgres import EmbeddedPostgres
from orchestrator.settings import ROLES
from outbox.topology import COMMANDS, REPLIES
from tests.support.cli import Background, Saga
from tests.support.world import an_order

LOOK: Final = 5.0
"""Seconds of CPU time that are compared."""

MANY_TIMES: Final = 5
LITTLE: Final = 0.06
"""Of a core: below this nothing spins, whatever the process takes when it is idle."""

BEGIN: Final = "{} is out of reach; trying again until it is back"
END: Final = "{} is back"


@dataclass
class System:
    """Two processes with all roles, on a broker and a database that can be taken away."""

    saga: Saga
    nats: EmbeddedNats
    postgres: EmbeddedPostgres
    processes: tuple[Background, ...]
    idle: list[float] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)

    def shares(self) -> list[float]:
        """Which part of a core each process takes, for a while."""
        before = [self._cpu(one) for one in self.processes]
        time.sleep(LOOK)
        return [(self._cpu(one) - then) / LOOK for one, then in zip(self.processes, before, strict=True)]

    def mark(self) -> None:
        """What is told from now on counts."""
        self.marks = [len(one.err.splitlines()) for one in self.processes]

    def told(self) -> dict[str, list[str]]:
        """role -> what it has said since the mark, of outages, or with a warning."""
        found: dict[str, list[str]] = {role: [] for role in ROLES}
        for one, mark in zip(self.processes, self.marks, strict=True):
            for line in map(json.loads, one.err.splitlines()[mark:]):
                if line["level"] != "info" or line["event"].endswith(" is back"):
                    found[line["role"]].append(line["event"])
        return found

    def until_told(self, event: str) -> None:
        """Wait until every role has said this."""
        self.processes[0].until(lambda: all(event in told for told in self.told().values()), event)

    def assert_calm(self) -> None:
        """No process takes much more than when nothing happens."""
        for share, idle in zip(self.shares(), self.idle, strict=True):
            assert share <= max(LITTLE, MANY_TIMES * idle), f"a loop spins: {share:.1%} of a core, idle {idle:.1%}"

    def assert_works(self) -> None:
        """An order goes through."""
        placed = self.saga.start(an_order(), options=["--wait", "--timeout", "60"])
        assert placed.code == 0, placed.err

    @staticmethod
    def _cpu(process: Background) -> float:
        times = psutil.Process(process.pid).cpu_times()
        return float(times.user + times.system)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Measured at rest first."""
    folder = tmp_path_factory.mktemp("recovery")
    with EmbeddedNats(folder / "nats") as nats, EmbeddedPostgres() as postgres:
        postgres.create_database(*ROLES)
        urls = {f"SAGA_{role.upper()}_DATABASE_URL": postgres.url(role).replace("+asyncpg", "") for role in ROLES}
        saga = Saga(folder, SAGA_NATS_URL=nats.url, SAGA_OUTBOX_GRACE="1", **urls)
        assert saga("db", "upgrade").code == 0
        (folder / "stock.csv").write_text("sku,quantity\nlamp,1000\n")
        (folder / "accounts.csv").write_text("customer_id,balance\nada,100000\n")
        assert saga("seed", "--stock", "stock.csv", "--accounts", "accounts.csv").code == 0
        with saga.running("orchestrator") as one, saga.running("order", "inventory", "payment") as other:
            system = System(saga, nats, postgres, (one, other))
            system.assert_works()
            system.idle = system.shares()
            yield system


@pytest.fixture
def system(running: System) -> System:
    running.mark()
    return running


Outage = Callable[[System], AbstractContextManager[None]]


@contextmanager
def without_nats(system: System) -> Iterator[None]:
    system.nats.kill()
    try:
        yield
    finally:
        system.nats.start()


@contextmanager
def without_postgres(system: System) -> Iterator[None]:
    system.postgres.kill()
    try:
        yield
    finally:
        system.postgres.start()


@pytest.mark.parametrize(
    ("outage", "what"), [(without_nats, "NATS"), (without_postgres, "the database")], ids=["nats", "postgresql"]
)
def test_an_outage_is_told_in_two_lines_by_each_role_and_nothing_spins(
    system: System, outage: Outage, what: str
) -> None:
    with outage(system):
        system.until_told(BEGIN.format(what))
        system.assert_calm()
    system.until_told(END.format(what))
    system.assert_works()
    assert system.told() == {role: [BEGIN.format(what), END.format(what)] for role in ROLES}


def test_orders_that_are_placed_while_nats_is_away_end_when_it_is_back(system: System) -> None:
    with without_nats(system):
        system.until_told(BEGIN.format("NATS"))
        placed = system.saga.start(*(an_order() for _ in range(20)))
        assert placed.code == 0
        system.assert_calm()
    system.until_told(END.format("NATS"))

    def have_ended() -> bool:
        listed = system.saga("ls", "--json", "--limit", "20").json()
        return {one["status"] for one in listed} == {"completed"}

    system.processes[0].until(have_ended, "all have ended")
    assert system.told() == {role: [BEGIN.format("NATS"), END.format("NATS")] for role in ROLES}


@contextmanager
def plain_nats(url: str) -> Iterator[None]:
    """A server at the same address that has no JetStream."""
    port = re.sub(r".*:", "", url)
    quiet: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    server = subprocess.Popen([find_binary(), "-a", "127.0.0.1", "-p", port], **quiet)
    try:
        yield
    finally:
        server.kill()
        server.wait()


def test_a_server_without_jetstream_is_no_reason_to_spin(system: System) -> None:
    with without_nats(system), plain_nats(system.nats.url):
        system.processes[0].until(lambda: all(len(told) == 3 for told in system.told().values()), "all have noticed")
        system.assert_calm()
    system.processes[0].until(lambda: all(len(told) == 4 for told in system.told().values()), "all are back")
    system.assert_works()
    assert system.told() == {role: [BEGIN.format("NATS"), END.format("NATS")] * 2 for role in ROLES}


async def vandalise(url: str) -> None:
    client = Client()
    await client.connect(url)
    for stream in (COMMANDS, REPLIES):
        await client.jetstream().delete_stream(stream)
    await client.close()


def test_streams_that_are_deleted_are_put_back_and_nothing_spins(system: System) -> None:
    asyncio.run(vandalise(system.nats.url))
    system.assert_calm()
    system.assert_works()
    lines = [line for told in system.told().values() for line in told]
    assert all(line.endswith(": what was missing, or had changed, is as it should be") for line in lines)
    assert sum(line.count(f"created stream {COMMANDS}") for line in lines) == 1
    assert sum(line.count("created consumer ") for line in lines) == 5


def test_stopping_ends_all_in_order(system: System) -> None:
    for process in system.processes:
        assert process.terminate().code == 0
