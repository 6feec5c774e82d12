"""One run of the benchmark, from empty databases to a report.

    servers -> tables, shelves, accounts -> what was there before -> warm-up -> measurement -> verify -> roof

Nothing but what is measured runs during the measurement; the roof is measured on the same servers, when the services
have left them.
"""

import asyncio
import os
from dataclasses import replace
from typing import Final

from benchmarks import history, orders, roof
from benchmarks.errors import RunFailed
from benchmarks.load import Sample, open_load
from benchmarks.measure import Counters, Peaks, Processes, read_after, read_before, watching
from benchmarks.options import Options
from benchmarks.parts import Servers, open_parts, open_servers
from benchmarks.proof import prove, settle
from benchmarks.report import Report
from benchmarks.stages import Advance, Stage
from orchestrator.cli.processes import RoleProcesses, role_of
from orchestrator.cli.schema import upgrade_all
from orchestrator.composition import Client
from orchestrator.sagas.place_order import place_order

MOST_BY_HAND: Final = 50_000
"""Sagas of the roof: enough for any figure."""

STEPS_OF_PLACE_ORDER: Final = len(place_order.steps)


def run(options: Options, stage: Stage) -> Report:
    """Start everything, measure, verify, and leave nothing running. Raises RunFailed."""
    with open_servers(options) as servers:
        report = asyncio.run(_run(options, servers, stage))
        servers.keep = bool(report.proof.violations)
        return replace(report, kept=servers.settings.data_dir) if servers.keep else report


async def _run(options: Options, servers: Servers, stage: Stage) -> Report:
    with stage("making four databases", None):
        await upgrade_all(servers.settings)
        await orders.seed(servers.settings)
    before = await _lay_down(options, servers, stage)
    sample, counters, peaks = await _measure(options, servers, stage)
    proof = await prove(options, servers.settings, sample, stage)
    by_hand = await _measure_roof(options, servers, stage) if options.wants_roof else None
    return Report(options, before, sample, counters, peaks, proof, by_hand)


async def _lay_down(options: Options, servers: Servers, stage: Stage) -> history.Before:
    """What is there before the measurement."""
    before = history.Before.of(options)
    if before.is_empty:
        return before
    with stage("making history", before.copies) as advance:
        async with open_parts(servers, 1) as (client, processes):
            ended = await processes.attend(history.run_ended(options, servers, client, before.ended.originals))
            waiting = await processes.attend(history.start_waiting(servers, client, before.waiting.originals))
            await settle(servers.settings)
        await history.bring_up_books(servers, before.ended)
        await history.copy(servers, history.ENDED, before.ended, ended, advance)
        await history.copy(servers, history.WAITING, before.waiting, waiting, advance)
    with stage("analysing the databases", None):
        await history.analyse(servers)
    return before


async def _measure(options: Options, servers: Servers, stage: Stage) -> tuple[Sample, Counters, Peaks]:
    async with open_parts(servers, options.replicas) as (client, processes):
        measured = _processes_of(servers, processes)
        with stage("warming up", options.warm_up) as advance:
            await processes.attend(_load(options, servers, client, advance, "warm-up", options.warm_up))
            await settle(servers.settings)
        before = await read_before(servers, client, measured)
        with stage(f"measuring {options.definition}", options.orders) as advance:
            async with watching(client, measured) as peaks:
                sample = await processes.attend(_load(options, servers, client, advance, "order", options.orders))
                await settle(servers.settings)
        after = await read_after(servers, client, measured)
        return sample, after.since(before), peaks


async def _load(
    options: Options, servers: Servers, client: Client, advance: Advance, prefix: str, count: int
) -> Sample:
    inputs = orders.inputs(options, prefix, count)
    async with open_load(client, servers.settings.nats_url, options.definition, advance) as load:
        if options.rate is not None and prefix == "order":
            return await load.open(inputs, options.rate)
        return await load.closed(inputs, options.in_flight)


async def _measure_roof(options: Options, servers: Servers, stage: Stage) -> roof.Roof:
    """The same work by hand, with databases and streams of its own."""
    with stage("measuring the roof", None):
        try:
            return await roof.measure(
                urls=servers.empty_databases("roof"),
                nats_url=servers.settings.nats_url,
                steps=options.steps or STEPS_OF_PLACE_ORDER,
                sagas=min(options.orders, MOST_BY_HAND),
                in_flight=options.in_flight,
            )
        except roof.RoofFailed as error:
            raise RunFailed(f"the roof could not be measured: {error}") from error


def _processes_of(servers: Servers, processes: RoleProcesses) -> Processes:
    found: dict[str, list[int]] = {}
    for name, pid in processes.pids.items():
        found.setdefault(role_of(name), []).append(pid)
    found["client"] = [os.getpid()]
    found["nats-server"] = [servers.nats.pid]
    if servers.postgres is not None:
        found["postgres"] = [servers.postgres.pid]
    return found
