"""One schedule: trouble for a while, then calm; and then the proof."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from simulation import virtual
from simulation.adversary import Adversary
from simulation.judge import Judge
from simulation.people import Customers, Operator, orders_of
from simulation.rack import Rack
from simulation.violation import Violation
from simulation.world import World

TROUBLE: Final = 60.0
"""Seconds at most, of virtual time."""

LONGEST: Final = 600.0
"""Seconds of calm after which a saga that has not ended never will."""


@dataclass(slots=True)
class Outcome:
    """What came of one schedule."""

    seed: int
    sagas: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    seconds: float = 0.0
    """Of virtual time."""

    trace: list[str] | None = None


def play(rack: Rack, seed: int, *, tracing: bool = False) -> Outcome:
    """Play the schedule of a seed. The same seed is the same schedule."""
    try:
        return virtual.run(_play(rack, seed, tracing))
    except (virtual.Idle, virtual.Spinning) as error:
        return Outcome(seed, violations=[Violation("time-goes-by", str(error))])


async def _play(rack: Rack, seed: int, tracing: bool) -> Outcome:
    world = World(rack, seed, tracing=tracing)
    judge = Judge(world)
    customers, operator = Customers(world, orders_of(world.fate)), Operator(world)
    adversary = Adversary(world, TROUBLE * 0.6)
    outcome = Outcome(seed)
    try:
        world.start_all()
        customers.begin()
        operator.begin(world.fate.random.choice((0.0, 0.02, 0.1, 0.3)) or 1e-9)
        adversary.begin()
        await _until_ended(world, customers, TROUBLE)
        world.fate.note("-- calm")
        adversary.heal()
        operator.restock(100)
        if not await _until_ended(world, customers, LONGEST, operator):
            outcome.violations += judge.unended()
        else:
            outcome.violations += await judge.findings(customers.orders, adversary.garbage)
    finally:
        world.close()
    outcome.violations += [Violation("nothing-fails-unforeseen", one) for one in world.surprises]
    outcome.seconds = world.loop.time()
    outcome.ends = judge.ends()
    outcome.sagas = sum(outcome.ends.values())
    outcome.faults = dict(world.fate.fired)
    outcome.trace = world.fate.lines
    return outcome


async def _until_ended(world: World, customers: Customers, within: float, operator: Operator | None = None) -> bool:
    """Wait until every saga has ended and every outbox is empty. Returns whether they are."""
    until, pause = world.loop.time() + within, 1.0
    while world.loop.time() < until:
        await asyncio.sleep(pause)
        if customers.all_are_told and _all_is_done(world):
            return True
        if operator is not None:
            pause = min(20.0, pause * 1.5)
            for saga_id, saga, status in _in_flight(world):
                operator.help(saga_id, saga, status)
    return False


def _all_is_done(world: World) -> bool:
    servers = world.rack.servers.values()
    if any(server.is_writing or server.ask("SELECT 1 FROM outbox LIMIT 1") for server in servers):
        return False
    return not _in_flight(world)


def _in_flight(world: World) -> list[tuple[str, str, str]]:
    server = world.rack.servers["orchestrator"]
    if server.is_writing:
        return []
    query = "SELECT id, definition, status FROM sagas WHERE ended_at IS NULL ORDER BY id"
    return [(saga_id, saga, status) for saga_id, saga, status in server.ask(query)]
