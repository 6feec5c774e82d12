"""`saga simulate`: the real parts in one process, under a clock, a broker and databases that are as bad as a seed says.

The simulation stands above this package, so it is loaded when it is needed and by nobody else.
"""

import os
import secrets
import signal
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import console
from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.options import Json
from outbox.numbers import counted

if TYPE_CHECKING:
    from simulation.runner import Report
    from simulation.schedule import Outcome

MOST_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command("simulate")(simulate)


def simulate(
    schedules: Annotated[int, typer.Option(metavar="N", min=1, help="How many schedules are played.")] = 1000,
    seed: Annotated[
        int | None,
        typer.Option(metavar="S", min=0, help="The first schedule's; the next has S + 1.", show_default="a fresh one"),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(metavar="J", min=1, help="Processes that play.", show_default="one a core")
    ] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Print what happens in the schedule; it must be one.")] = False,
    json: Json = False,
) -> int:
    """Play sagas against crashes, pauses, lost and doubled messages, outages and wipes, in virtual time; prove each.

    The same seed plays the same schedule. A broken promise is printed with the one command that plays it again. Exit 8
    when a promise was broken; 1 when in several schedules nothing went wrong or no saga completed: that proves nothing.
    """
    first = secrets.randbits(40) if seed is None else seed
    if not trace:
        report = _run(first, schedules, jobs or os.cpu_count() or 1)
    elif schedules == 1:
        report = _trace(first, json)
    else:
        raise Failure("--trace tells of one schedule: give it --schedules 1, and --seed", Exit.USAGE)
    if json:
        console.print_json(report.to_json())
    else:
        _show(report)
    return _judge(report, is_traced=trace)


def _run(seed: int, schedules: int, jobs: int) -> "Report":
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.raise_signal(signal.SIGINT))  # take the players along
    bar, task = console.progress("simulating", schedules)
    so_far: Report | None = None

    def watch(report: "Report") -> None:
        nonlocal so_far
        so_far = report
        bar.update(task, completed=report.schedules, count=f"{report.schedules:,} of {schedules:,}")

    try:
        from simulation.runner import run

        if bar.disable:
            console.say(f"… simulating {counted(schedules, 'schedule')}, from seed {seed}")
        with bar:
            return run(seed, schedules, jobs, watch)
    except KeyboardInterrupt:
        if so_far is not None:  # what was found is not lost
            _judge(so_far, is_traced=False)
        played = 0 if so_far is None else so_far.schedules
        console.say(f"interrupted after {played:,} of {schedules:,} schedules")
        raise
    except BrokenProcessPool as error:
        raise Failure(
            "a process that played schedules was killed; try again, with fewer --jobs if memory is short"
        ) from error


def _trace(seed: int, json: bool) -> "Report":
    from simulation.runner import Player, Report

    outcome: Outcome = Player().play(seed, tracing=True)
    for line in outcome.trace or ():
        (console.err() if json else console.out()).print(line, markup=False, soft_wrap=True)
    report = Report(seed)
    report.add(outcome)
    return report


def _show(report: "Report") -> None:
    faults = sorted(report.faults.items(), key=lambda one: (-one[1], one[0]))
    console.out().print(console.table(("fault", "fired"), [(k, f"{n:,}") for k, n in faults], right=("fired",)))
    ends = ", ".join(f"{count:,} {end}" for end, count in sorted(report.ends.items())) or "none"
    console.say(
        f"\n{counted(report.schedules, 'schedule')} from seed {report.seed}; {counted(report.sagas, 'saga')}: {ends}"
    )
    if report.seconds:
        hours = report.virtual_seconds / 3600
        console.say(f"{report.per_minute:,.0f} schedules a minute; {hours:,.1f} hours of virtual time")


def _judge(report: "Report", *, is_traced: bool) -> int:
    """Say what was found. Returns the exit code."""
    from simulation.runner import command_of

    for seed, check, message in report.violations[:MOST_SHOWN]:
        console.say(f"violation: {check}: {message}")
        if not is_traced:
            console.say_command(command_of(seed))
    if report.violations:
        console.say(counted(len(report.violations), "violation"))
        return Exit.VIOLATION
    if report.nothing_shown is not None and report.schedules > 1:
        console.say(f"this run proves nothing: {report.nothing_shown}")
        return Exit.ERROR
    console.say("no violations")
    return Exit.OK
