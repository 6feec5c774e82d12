"""The world of one schedule: processes, databases, the broker, the time, and who is told when something is due."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from orchestrator.settings import ROLES
from simulation.broker import SimulatedBroker
from simulation.courier import Habits
from simulation.fate import Fate
from simulation.process import Process, Surroundings
from simulation.rack import Rack
from simulation.sagas import DEFINITIONS
from simulation.witness import Witness

DAWN: Final = datetime(2026, 1, 1, tzinfo=UTC)

LOOK: Final = 0.2
"""Seconds between two looks of a replica at what is due."""

DUE: Final = {
    "orchestrator": (
        "SELECT (SELECT min(due_at) FROM sagas),"
        " (SELECT min(begins_at) FROM sagas WHERE status = 'waiting'), (SELECT min(due_at) FROM outbox)"
    ),
    "participant": "SELECT NULL, NULL, min(due_at) FROM outbox",
}
"""When the next timer fires, when the next saga may begin, when the first row of the outbox is overdue."""


class World:
    """Everything that there is in one schedule."""

    def __init__(self, rack: Rack, seed: int, *, tracing: bool = False) -> None:
        self.loop = asyncio.get_running_loop()
        self.fate = Fate(seed, self.loop.time, tracing=tracing)
        self.rack = rack
        self.clock_offset = 0.0
        self.skewed = 0.0
        """Seconds by which the clocks of processes that start from now on may be wrong."""

        self.surprises: list[str] = []
        self._numbers = itertools.count(1)
        self._processes: dict[tuple[str, int], Process] = {}
        self._visitors: list[Process] = []
        self._kept_down: set[str] = set()
        self._to_look: set[str] = set()
        self._alarms: dict[str, asyncio.TimerHandle] = {}
        self._last_seen: dict[str, tuple[int, list[float | None]]] = {}
        """What was due when a database was last asked, and how many commits it had seen by then."""

        chance = self.fate.random
        self.holds_locks = chance.random() < 0.7
        self.witness = Witness(rack.servers, holds_locks=self.holds_locks)
        self.broker = SimulatedBroker(self.fate, self.witness, on_loss=self._tell_of_loss, on_turn=self._tell_of_turn)
        ack_wait = timedelta(seconds=chance.choice((4, 10, 30)))
        grace = timedelta(seconds=chance.choice((1, 3)))
        habits = Habits(*chance.choice(((2, 1), (4, 2), (64, 16), (64, 16))), expires=chance.choice((2.0, 10.0, 30.0)))
        max_in_flight = chance.choice((0, 0, 1, 2))
        self.around: dict[str, Surroundings] = {}
        for role in ROLES:
            server = rack.servers[role]
            server.restore(locks=self.holds_locks or role != "orchestrator")
            server.on_commit = partial(self._look_soon, role)
            self.around[role] = Surroundings(
                role,
                fate=self.fate,
                broker=self.broker,
                server=server,
                database=rack.databases[role],
                now=self.now,
                definitions=DEFINITIONS,
                ids=self._new_id,
                ack_wait=ack_wait,
                grace=grace,
                habits=habits,
                max_in_flight=max_in_flight,
            )
        self.replicas = {role: chance.choice((1, 2, 2) if role == "orchestrator" else (1, 2)) for role in ROLES}

    def now(self) -> datetime:
        """What the clocks of the databases say."""
        return DAWN + timedelta(seconds=self.loop.time() + self.clock_offset)

    # --- processes

    def start_all(self) -> None:
        """Start every replica of every role that is not there."""
        for role, count in self.replicas.items():
            for number in range(count):
                self.start(role, number)

    def start(self, role: str, number: int) -> None:
        """Start a replica that is not there."""
        if (role, number) not in self._processes and role not in self._kept_down:
            process = self._new_process(f"{role}-{number}", role)
            self._processes[role, number] = process
            process.boot()

    def visitor(self, name: str, role: str = "orchestrator") -> Process:
        """A process that comes and goes: a command of the CLI, which writes like a replica of the orchestrator."""
        process = self._new_process(name, role)
        self._visitors.append(process)
        return process

    def close(self) -> None:
        """The end of the world."""
        self._kept_down.update(ROLES)
        for process in (*self.processes(), *self._visitors):
            process.die("the world ends")

    def processes(self, role: str | None = None) -> list[Process]:
        """Those that live."""
        return [process for (of, _), process in self._processes.items() if role is None or of == role]

    def keep_down(self, role: str) -> None:
        """Kill all replicas of a role, and let none start."""
        self._kept_down.add(role)
        for process in self.processes(role):
            process.die("its role is away")

    def let_start(self, role: str) -> None:
        """It may start again, and does."""
        self._kept_down.discard(role)
        for number in range(self.replicas[role]):
            self.start(role, number)

    def _new_process(self, name: str, role: str) -> Process:
        skew = self.fate.random.uniform(-self.skewed, self.skewed) if self.skewed else 0.0
        return Process(name, self.around[role], skew=skew, on_death=self._bury)

    def _bury(self, process: Process) -> None:
        self.surprises.extend(process.surprises)
        for place, one in list(self._processes.items()):
            if one is process:
                del self._processes[place]
                pause = self.fate.random.choice((0.2, 1.0, 5.0, 20.0)) if self.fate.is_active else 0.2
                self.loop.call_later(pause, self.start, *place)

    def _new_id(self) -> str:
        return f"01SAGA{next(self._numbers):04d}"

    # --- what is due

    def _look_soon(self, role: str) -> None:
        """Something was committed: look when the dust has settled."""
        if role == "orchestrator":
            self.witness.committed()
        if role not in self._to_look:
            self._to_look.add(role)
            self.loop.call_later(LOOK / 2, self.look, role)

    def look(self, role: str) -> None:
        """See when something is due next in a role's database, and let a replica see it then, or a little later."""
        self._to_look.discard(role)
        earliest = min((when for when in self._due(role) if when is not None), default=None)
        if earliest is not None:
            self._set_alarm(role, max(earliest, self.loop.time()) + self.fate.random.random() * LOOK)

    def look_everywhere(self) -> None:
        """Something may have become due, as when the clocks have jumped."""
        for role in ROLES:
            self.look(role)

    def _set_alarm(self, role: str, at: float) -> None:
        alarm = self._alarms.get(role)
        if alarm is not None:
            if alarm.when() <= at:
                return
            alarm.cancel()
        self._alarms[role] = self.loop.call_at(at, self._ring, role)

    def _ring(self, role: str) -> None:
        del self._alarms[role]
        due, now = self._due(role), self.loop.time()
        awake = [one for one in self.processes(role) if one.is_ready and not one.is_frozen]
        if awake:
            chance = self.fate.random
            for process in chance.sample(awake, min(len(awake), 2 if chance.random() < 0.35 else 1)):
                for when, tell in zip(
                    due, (process.look_after_timers, process.look_for_waiting, process.look_for_overdue), strict=True
                ):
                    if when is not None and when <= now:
                        tell()
        later = [when for when in due if when is not None]
        if later:
            self._set_alarm(role, max(min(later), now + LOOK))

    def _due(self, role: str) -> tuple[float | None, ...]:
        """In the time of the loop."""
        server = self.rack.servers[role]
        if server.is_writing:
            return (self.loop.time(),) * 3
        commits, due = self._last_seen.get(role, (None, []))
        if commits != server.commits:
            [row] = server.ask(DUE.get(role, DUE["participant"]))
            due = [None if text is None else _seconds_from_dawn(text) for text in row]
            self._last_seen[role] = server.commits, due
        return tuple(None if when is None else when - self.clock_offset for when in due)

    def _tell_of_turn(self) -> None:
        """Connections are lost, or back, and whoever has one notices."""
        for process in self.processes():
            process.notice_connection()

    def _tell_of_loss(self) -> None:
        """Every replica looks after its topology every other second."""
        for process in self.processes():
            self.loop.call_later(self.fate.random.random() * 2.5, process.look_after_topology)


def _seconds_from_dawn(text: str) -> float:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - DAWN).total_seconds()
