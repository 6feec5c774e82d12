"""The adversary: what goes wrong at a moment, to somebody, and comes right again after a while."""

from collections.abc import Callable
from typing import Final

from outbox.envelope import Packet
from simulation.fate import SUDDEN
from simulation.world import World

MOST_KINDS: Final = 5
MOST_BLOWS: Final = 6

GARBAGE: Final = (
    "{",
    "[]",
    '{"specversion": "1.0"}',
    "\x00",
    '[{"specversion": "0.3", "id": "x"}, 7]',
)


class Adversary:
    """Strikes a few times in a schedule, with the few kinds of blows that it has."""

    def __init__(self, world: World, until: float) -> None:
        self._world = world
        self._until = until
        self._chance = world.fate.random
        self._copy = world.broker.copy()
        self.garbage = 0
        """How many messages were sent that nobody can read."""

        self._blows: dict[str, Callable[[], None]] = {
            "broker-away": self._take_broker_away,
            "broker-wiped": self._wipe_broker,
            "broker-rolled-back": self._roll_broker_back,
            "stream-lost": self._lose_stream,
            "consumer-lost": self._lose_consumer,
            "database-away": self._take_database_away,
            "clock-jumped": self._let_clock_jump,
            "clock-skewed": self._skew_clocks,
            "role-away": self._take_role_away,
            "role-flapping": self._let_role_flap,
            "role-slow": self._slow_role_down,
            "process-killed": self._kill,
            "process-frozen": self._freeze,
            "process-stopped": self._stop,
            "garbage-sent": self._send_garbage,
        }

    def begin(self) -> None:
        """Choose what, and when."""
        kinds = self._world.fate.some(SUDDEN, MOST_KINDS)
        if not kinds:
            return
        for _ in range(self._chance.randint(1, MOST_BLOWS)):
            kind = self._chance.choice(kinds)
            self._world.loop.call_at(self._chance.random() * self._until, self._strike, kind)
        if "broker-rolled-back" in kinds:
            for _ in range(3):
                self._world.loop.call_at(self._chance.random() * self._until, self._copy_broker)

    def heal(self) -> None:
        """From now on nothing goes wrong, and what was taken away is there."""
        world = self._world
        world.fate.is_active = False
        world.skewed = 0.0
        world.broker.come_back()
        for role, around in world.around.items():
            around.slowness = 0.0
            around.server.is_up = True
            world.let_start(role)
        for process in world.processes():
            if process.is_frozen:
                process.die("somebody wakes it up, the hard way")
            process.look_after_topology()
        world.look_everywhere()

    def _strike(self, kind: str) -> None:
        if self._world.fate.is_active:
            self._world.fate.count(kind)
            self._blows[kind]()

    def _later(self, low: float, high: float, what: Callable[[], None]) -> None:
        self._world.loop.call_later(self._chance.uniform(low, high), what)

    # --- the broker

    def _take_broker_away(self) -> None:
        self._world.broker.go_away()
        self._later(0.5, 30.0, self._world.broker.come_back)

    def _wipe_broker(self) -> None:
        self._world.broker.lose(list(self._world.broker.streams))

    def _copy_broker(self) -> None:
        self._copy = self._world.broker.copy()

    def _roll_broker_back(self) -> None:
        self._world.broker.roll_back(self._copy)
        self._copy = self._world.broker.copy()

    def _lose_stream(self) -> None:
        self._world.broker.lose([self._chance.choice(("SAGA_COMMANDS", "SAGA_REPLIES", "SAGA_EVENTS"))])

    def _lose_consumer(self) -> None:
        self._world.broker.lose_consumer(self._chance.choice(list(self._world.around)))

    def _send_garbage(self) -> None:
        self.garbage += 1
        subject = self._chance.choice(("saga.cmd.order.open-order", "saga.cmd.orchestrator.x", "saga.reply.payment"))
        self._world.broker.store(Packet(f"garbage-{self.garbage}", subject, self._chance.choice(GARBAGE)))

    # --- databases and clocks

    def _take_database_away(self) -> None:
        server = self._world.around[self._role()].server
        server.is_up = False
        server.close_all()

        def come_back() -> None:
            server.is_up = True
            self._world.look_everywhere()

        self._later(0.2, 20.0, come_back)

    def _let_clock_jump(self) -> None:
        self._world.clock_offset += self._chance.choice((-60.0, -5.0, -0.5, 0.5, 5.0, 60.0, 600.0))
        self._world.look_everywhere()

    def _skew_clocks(self) -> None:
        self._world.skewed = self._chance.choice((0.3, 3.0, 30.0))
        self._kill()

    # --- processes

    def _role(self) -> str:
        return self._chance.choice(("orchestrator", "orchestrator", "order", "inventory", "payment"))

    def _take_role_away(self) -> None:
        role = self._role()
        self._world.keep_down(role)
        self._later(1.0, 30.0, lambda: self._world.let_start(role))

    def _let_role_flap(self) -> None:
        role = self._role()
        for _ in range(4):
            self._later(0.0, 15.0, lambda: self._kill_one_of(role))

    def _slow_role_down(self) -> None:
        around = self._world.around[self._role()]
        around.slowness = self._chance.choice((0.5, 3.0))

        def speed_up() -> None:
            around.slowness = 0.0

        self._later(3.0, 30.0, speed_up)

    def _kill(self) -> None:
        self._kill_one_of(self._role())

    def _kill_one_of(self, role: str) -> None:
        living = self._world.processes(role)
        if living:
            self._chance.choice(living).die("SIGKILL")

    def _freeze(self) -> None:
        living = self._world.processes(self._role())
        if living:
            self._chance.choice(living).freeze(self._chance.choice((1.0, 8.0, 20.0, 60.0)))

    def _stop(self) -> None:
        living = self._world.processes(self._role())
        if living:
            process = self._chance.choice(living)
            process.spawn("stop", process.stop)
