"""The figures of the benchmark: percentiles are values that were measured, and history is planned to the saga."""

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as some

from benchmarks.history import AFTER_COPIES, ENDED, WAITING, Plan
from benchmarks.machine import machine
from benchmarks.measure import percentile, read_cpu, read_memory
from orchestrator.engine import new_saga_id

BUSY = "sum(range(20_000_000)); print('done', flush=True); input()"


@given(some.lists(some.floats(0, 1000), min_size=1), some.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[float], percent: int) -> None:
    ordered = sorted(values)
    found = percentile(ordered, percent)
    assert found in ordered
    assert sum(value <= found for value in ordered) * 100 >= percent * len(ordered)
    assert sum(value < found for value in ordered) * 100 < percent * len(ordered)


def test_percentiles_of_a_hundred_values() -> None:
    ordered = [float(number) for number in range(1, 101)]
    assert [percentile(ordered, percent) for percent in (1, 50, 95, 99, 100)] == [1, 50, 95, 99, 100]


@given(some.integers(0, 2_000_000))
def test_a_plan_makes_what_is_wanted_and_less_than_one_more_copy_of_each(wanted: int) -> None:
    plan = Plan.of(wanted)
    assert wanted <= plan.sagas < wanted + max(1, plan.originals)
    copied = [number for first, last in plan.chunks() for number in range(first, last + 1)]
    assert copied == list(range(1, plan.copies + 1))


def test_the_ids_of_copies_come_before_those_of_real_sagas() -> None:
    for prefix in (ENDED, WAITING):
        assert f"{prefix}{'9' * 16}" < AFTER_COPIES < new_saga_id()
        assert set(prefix) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a child that has worked, and lives on."""
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        yield process
        process.communicate(b"\n")


def test_the_work_of_children_counts_while_they_live_and_when_they_have_ended(busy: subprocess.Popen[bytes]) -> None:
    [child] = psutil.Process(busy.pid).children()
    used = child.cpu_times().user
    assert read_cpu({"role": [busy.pid]})["role"] >= used > 0
    assert read_memory({"role": [busy.pid]})["role"] > child.memory_info().rss - child.memory_info().shared
    assert busy.stdin is not None
    busy.stdin.write(b"\n")
    busy.stdin.flush()
    psutil.wait_procs([child], timeout=10)
    assert read_cpu({"role": [busy.pid]})["role"] >= used


def test_of_ourselves_our_children_are_left_out(busy: subprocess.Popen[bytes]) -> None:
    ours = psutil.Process().cpu_times()
    assert read_cpu({"client": [os.getpid()]})["client"] - (ours.user + ours.system) < 1.0


def test_a_process_that_has_ended_is_passed_over() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert read_cpu({"role": [process.pid]}) == {"role": 0.0}
    assert read_memory({"role": [process.pid]}) == {"role": 0}


def test_the_machine_is_named() -> None:
    told = machine()
    assert told["cpus"] >= 1
    assert told["cpu"]
    assert told["packages"]["nats-py"]
