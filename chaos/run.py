"""One run, from empty databases to its record.

servers -> tables, shelves, accounts -> processes -> orders and faults -> no more of either -> all have ended -> proof
"""

import asyncio
import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from nats.errors import Error as NatsError

from chaos import orders
from chaos.errors import ChaosFailed
from chaos.faults.world import World
from chaos.fleet import Fleet, start_all
from chaos.guard import guarded
from chaos.injector import Injector
from chaos.load import Load
from chaos.names import REPLICAS
from chaos.options import PATIENCE, Options
from chaos.plan import plan
from chaos.proof import Proof, prove
from chaos.record import Invariant, Record, Violation
from chaos.recovery import recovered
from chaos.scenarios import CLOCK, SCENARIOS, Scenario
from chaos.settle import settle
from chaos.site import Site, new_folder, open_site
from chaos.watch import Watch
from orchestrator.cli.schema import upgrade_all
from orchestrator.composition import (
    Client,
    inlet_of,
    open_client,
    seed_accounts,
    seed_stock,
)
from orchestrator.embedded.forked import ForkServer
from orchestrator.settings import ROLES
from outbox.errors import BrokerOutOfReach
from outbox.topology import Inlet, is_fetching

MADE: Final = "faults-are-made"
MADE_SENTENCE: Final = "every fault was made, and taken back, as it should be: this run can be trusted"
READY_WITHIN: Final = 60.0

Advance = Callable[[float, str], None]
"""Is told how much is done of the stage, and what to show with it."""

Stage = Callable[[str, float | None], AbstractContextManager[Advance]]
"""Opens one stage of the run: what it is, and how much of it there is, if that is known."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    record: Record
    missed: dict[str, int]
    """Why faults that were planned did not fire, and how many."""

    kept: Path | None
    """Where the logs are, if they were kept."""


def run(options: Options, stage: Stage, *, keep: bool = False) -> Outcome:
    """Start everything, break it, prove it, and leave nothing running. Raises ChaosFailed."""
    scenario = SCENARIOS[options.scenario]
    if CLOCK in scenario.kinds and find_spec("time_machine") is None:
        raise ChaosFailed("clocks are moved by time-machine, which is not installed: pip install 'amends[chaos]'")
    folder = new_folder(options.data_dir)
    with guarded(folder) as guard:
        outcome = asyncio.run(_run(options, scenario, folder, stage))
        if keep or outcome.record.violations:
            guard.keep()
            return outcome
    return Outcome(outcome.record, outcome.missed, None)


async def _run(options: Options, scenario: Scenario, folder: Path, stage: Stage) -> Outcome:
    async with AsyncExitStack() as servers:
        with stage("starting servers", None):
            opening = open_site(folder, scenario.brokers, options.seed, scenario.small_disks)
            site = await servers.enter_async_context(opening)
        with stage("making four databases", None):
            await upgrade_all(site.settings)
            await seed_stock(site.settings, orders.stock())
            await seed_accounts(site.settings, orders.accounts(), orders.CURRENCY)
        return await _break(options, scenario, site, stage)


async def _break(options: Options, scenario: Scenario, site: Site, stage: Stage) -> Outcome:
    with ForkServer() as server:
        fleet = Fleet(site, server)
        async with _client(site) as client:
            with stage("starting processes", None):
                start_all(fleet)
                await _until_ready(client, site)
            loop, began = asyncio.get_running_loop(), datetime.now(UTC)
            world = World(site, fleet, client, loop.time())
            load, watch = Load(client, options.seed, options.rate, options.orders), Watch(client.database, world.now)
            injector = Injector(world)
            watching = asyncio.create_task(watch.run())
            try:
                with stage(f"breaking it: {scenario.what}", options.duration) as advance:
                    await _storm(options, scenario, injector, load, watch, advance)
                over = world.now()
                with stage("waiting for every saga to end", None) as advance:
                    left = await settle(site.settings, options.patience, partial(advance, 0.0))
                settled_after = world.now() - over if left.has_settled else None
            finally:
                watching.cancel()
            await watch.look()
        await fleet.stop_all()
    with stage("verifying", len(load.started)) as advance:
        proof = await prove(site.settings, load, fleet.surprises, left, lambda more: advance(more, ""))
    record = _record(options, scenario, began, over, settled_after, watch, injector, proof)
    return Outcome(record, injector.missed, site.folder)


@asynccontextmanager
async def _client(site: Site) -> AsyncIterator[Client]:
    """Writes like a replica, and publishes what it wrote, over no wire."""
    async with open_client(site.settings) as client:
        deadline = asyncio.get_running_loop().time() + READY_WITHIN
        while True:
            try:
                await client.connect()
                break
            except BrokerOutOfReach as error:  # a cluster takes a while to agree
                if asyncio.get_running_loop().time() > deadline:
                    raise ChaosFailed(str(error)) from error
                await asyncio.sleep(0.2)
        relaying = asyncio.create_task(client.relay.run())
        try:
            yield client
        finally:
            relaying.cancel()
            with suppress(asyncio.CancelledError):
                await relaying


async def _until_ready(client: Client, site: Site) -> None:
    deadline = asyncio.get_running_loop().time() + READY_WITHIN
    for role in ROLES:
        while not await _fetches(client, inlet_of(site.settings, role)):
            if asyncio.get_running_loop().time() > deadline:
                raise ChaosFailed(f"{role} was not at work after {READY_WITHIN:g} s: see {site.folder}/{role}-1.log")
            await asyncio.sleep(0.1)


async def _fetches(client: Client, inlet: Inlet) -> bool:
    """Whether both replicas do. A cluster that has just begun may not know."""
    try:
        return await is_fetching(client.broker.jetstream, inlet, REPLICAS)
    except (NatsError, TimeoutError):
        return False


async def _storm(
    options: Options, scenario: Scenario, injector: Injector, load: Load, watch: Watch, advance: Advance
) -> None:
    """Orders and faults, until the time is over and the last fault with it."""
    planned = list(plan(scenario, options.seed, options.duration, options.every))
    loading, striking = asyncio.create_task(load.run()), asyncio.create_task(injector.run(planned))
    shown = 0.0
    try:
        while injector.world.now() < options.duration:
            await asyncio.sleep(min(0.5, max(0.01, options.duration - injector.world.now())))
            for task in (loading, striking):
                if task.done():
                    task.result()
            now, last = injector.world.now(), watch.samples[-1] if watch.samples else None
            told = "" if last is None else f"{last.started:,} started, {last.in_flight:,} in flight"
            advance(now - shown, f"{told}, {len(injector.faults)} faults")
            shown = now
        load.stop()
        await striking
        await loading
    finally:
        striking.cancel()
        loading.cancel()
        await asyncio.gather(striking, loading, return_exceptions=True)


def _record(
    options: Options,
    scenario: Scenario,
    began: datetime,
    over: float,
    settled_after: float | None,
    watch: Watch,
    injector: Injector,
    proof: Proof,
) -> Record:
    faults = sorted(injector.faults, key=lambda fault: fault.at)
    return Record(
        scenario=scenario.name,
        seed=options.seed,
        reproduce=reproduce(options),
        began=began,
        duration=over,
        settled_after=settled_after,
        database="postgresql",
        brokers=scenario.brokers,
        processes=dict.fromkeys(ROLES, REPLICAS),
        samples=tuple(watch.samples),
        faults=recovered(faults, watch.samples, over),
        sagas=proof.statuses,
        invariants=(*proof.invariants, Invariant(name=MADE, sentence=MADE_SENTENCE, checked=len(faults))),
        violations=(*proof.violations, *(Violation(invariant=MADE, message=message) for message in injector.wrong)),
    )


def reproduce(options: Options) -> str:
    """The command that makes this run again: the same plan, on other processes."""
    command = ["saga", "chaos", "run", options.scenario, "--seed", str(options.seed)]
    command += ["--duration", f"{options.duration:g}", "--rate", f"{options.rate:g}"]
    command += ["--orders", str(options.orders)] if options.orders is not None else []
    command += ["--every", f"{options.every:g}"] if options.every is not None else []
    command += ["--patience", f"{options.patience:g}"] if options.patience != PATIENCE else []
    return shlex.join(command)
