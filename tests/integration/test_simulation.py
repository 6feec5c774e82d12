"""The simulation: whatever a seed says, no promise is broken; the same seed is the same schedule; bugs are found."""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import structlog

from orchestrator.cli.exits import Exit
from orchestrator.cli.simulate import simulate
from simulation.fate import STEADY, SUDDEN
from simulation.runner import CHUNK, Player, command_of, run
from simulation.schedule import Outcome
from simulation.violation import Violation
from tests.mutants.outside import BUGS, Bug, dug_in
from tests.mutants.page import PAGE, Find, drawn, kept
from tests.support.cli import REPOSITORY, Saga, processes_of

FINDS: Final = kept()
HUNT: Final = 'if the order of statements has changed, hunt it anew: make mutants ARGS="outside --keep"'

FRESH: Final = 2500
"""Schedules with a fresh seed: about a minute on two free cores."""

pytestmark = pytest.mark.timeout(900)  # virtual time is cheap, and not for nothing


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    """Plays schedules in this process."""
    before = structlog.get_config()
    yield Player()
    structlog.configure(**before)


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """The command has the logs to itself; these tests do not."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


# --- no promise is broken


def test_no_promise_is_broken_whatever_goes_wrong() -> None:
    seed = secrets.randbits(40)
    report = run(seed, FRESH, jobs=2)
    assert report.violations == [], f"`{command_of(report.violations[0][0])}` plays it again"
    assert report.schedules == FRESH
    assert report.nothing_shown is None
    assert report.ends.keys() == {"completed", "compensated"}, f"of seed {seed}"
    assert report.faults.keys() >= {*STEADY, *SUDDEN}, f"from seed {seed} some kinds of faults never fired"


# --- the same seed is the same schedule


def test_the_same_seed_is_the_same_schedule_in_every_process() -> None:
    traces = set()
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "orchestrator.cli", "simulate", "--seed", "17", "--schedules", "1", "--trace"]
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True
        )
        traces.add(done.stdout)
    [trace] = traces
    assert "ready" in trace
    assert "-- calm" in trace


def test_a_schedule_is_the_same_after_others(player: Player) -> None:
    alone = player.play(42, tracing=True)
    for seed in range(5):
        player.play(seed)
    again = player.play(42, tracing=True)
    assert alone.trace
    assert again.trace == alone.trace
    assert (again.ends, again.faults, again.seconds) == (alone.ends, alone.faults, alone.seconds)


def test_two_seeds_are_two_schedules(player: Player) -> None:
    assert player.play(1, tracing=True).trace != player.play(2, tracing=True).trace


# --- bugs are found


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: Bug, player: Player) -> None:
    assert bug.name in FINDS, HUNT
    find = FINDS[bug.name]
    with dug_in(bug):
        found = player.play(find.seed).violations
    assert found, f"it survives; {HUNT}"
    assert found[0].check == find.check, HUNT
    assert player.play(find.seed).violations == [], "it is the bug that was found"


def test_the_table_has_a_row_for_each_planted_bug_and_no_other() -> None:
    assert list(FINDS) == [bug.name for bug in BUGS]
    assert f"{len(BUGS)} mistakes are planted" in PAGE.read_text(encoding="utf-8")


def test_the_table_is_written_as_it_is_read() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert drawn(page, FINDS) == page
    [name, *_] = FINDS
    assert f"| {name} | 8 | log-replays-to-state |\n" in drawn(page, FINDS | {name: Find(7, "log-replays-to-state")})


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug.plain], ids=lambda bug: bug.name)
def test_a_plain_bug_is_found_with_any_seed(bug: Bug, player: Player) -> None:
    seed = secrets.randbits(40)
    with dug_in(bug):
        found = any(player.play(seed + number).violations for number in range(60))
    assert found, f"not in 60 schedules from seed {seed}"


# --- the command


def until_all_are_gone(folder: Path) -> None:
    deadline = time.monotonic() + 30
    while left := processes_of(folder):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after", [0.0, 2.0])
def test_a_run_that_is_stopped_takes_its_players_along(tmp_path: Path, number: signal.Signals, after: float) -> None:
    """Also when they have only begun to start."""
    saga = Saga(tmp_path)
    with saga.background("simulate", "--schedules", "100000", "--jobs", "2") as run:
        run.until_says("simulating")
        time.sleep(after)
        for process in processes_of(tmp_path):
            if number is signal.SIGINT or process.pid == run.pid:  # Ctrl-C goes to all that a terminal has started
                process.send_signal(number)
        ended = run.wait()
    assert ended.code == Exit.INTERRUPTED, ended.err
    assert re.search(r"interrupted after [\d,]+ of 100,000 schedules\n$", ended.err)
    until_all_are_gone(tmp_path)


def test_the_players_of_a_run_that_is_killed_die_with_it(tmp_path: Path) -> None:
    saga = Saga(tmp_path)
    with saga.background("simulate", "--schedules", "100000", "--jobs", "2") as run:
        run.until_says("simulating")
        time.sleep(2)
        assert len(processes_of(tmp_path)) > 2
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    until_all_are_gone(tmp_path)


@pytest.mark.usefixtures("logging_as_before")
def test_a_run_reports_what_went_wrong_and_what_went_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(schedules=40, seed=1, jobs=2, trace=False, json=True) == Exit.OK
    report = json.loads(capsys.readouterr().out)
    assert (report["schedules"], report["seed"], report["violations"]) == (40, 1, [])
    assert report["sagas"] == sum(report["ends"].values()) > 40
    assert set(report["ends"]) == {"completed", "compensated"}
    assert all(count > 0 for count in report["faults"].values())
    assert report["schedules_per_minute"] > 0


@pytest.mark.usefixtures("logging_as_before")
def test_as_many_processes_as_one_wants_find_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    reports = []
    for jobs in (1, 2):
        simulate(schedules=45, seed=300, jobs=jobs, trace=False, json=True)
        reports.append(json.loads(capsys.readouterr().out))
    for report in reports:
        del report["seconds"], report["schedules_per_minute"]
    assert reports[0] == reports[1]


@pytest.mark.usefixtures("logging_as_before")
def test_a_violation_is_told_with_the_command_that_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    bug = next(bug for bug in BUGS if bug.plain)
    seed = FINDS[bug.name].seed
    with dug_in(bug):
        assert simulate(schedules=seed + 1, seed=0, jobs=1, trace=False, json=False) == Exit.VIOLATION
    said = capsys.readouterr().err
    assert "violation: " in said
    assert command_of(seed) in said


@pytest.mark.usefixtures("logging_as_before")
def test_a_run_that_is_stopped_tells_what_it_has_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[int] = []

    def play(player: Player, seed: int, *, tracing: bool = False) -> Outcome:
        if len(played) == CHUNK:  # one report was made
            raise KeyboardInterrupt
        played.append(seed)
        return Outcome(seed, violations=[Violation("log-replays-to-state", "saga 7: it does not")] if seed == 4 else [])

    monkeypatch.setattr(Player, "play", play)
    with pytest.raises(KeyboardInterrupt):
        simulate(schedules=100, seed=0, jobs=1, trace=False, json=False)
    said = capsys.readouterr().err
    assert "violation: log-replays-to-state: saga 7: it does not\n" in said
    assert command_of(4) in said
    assert said.endswith(f"interrupted after {CHUNK} of 100 schedules\n")


@pytest.mark.usefixtures("logging_as_before")
def test_a_trace_tells_what_happened_in_one_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(schedules=1, seed=3, jobs=1, trace=True, json=False) == Exit.OK
    said = capsys.readouterr()
    assert "ready" in said.out
    assert "no violations" in said.err
