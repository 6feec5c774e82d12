"""`saga chaos` as a person or a script meets it: faults that really fired, every saga accounted for, nothing left."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos.record import Record
from tests.support.cli import Saga, processes_of

QUICK = ("--rate", "12", "--duration", "10")


@pytest.fixture
def saga() -> Iterator[Saga]:
    """An empty folder that PostgreSQL can reach: a test's own is closed to all but us."""
    with tempfile.TemporaryDirectory(prefix="amends-chaos-") as name:
        Path(name).chmod(0o711)
        saga = Saga(Path(name))
        saga.patience = 200
        yield saga


def left_in(saga: Saga) -> list[Path]:
    """What a run has left."""
    return list((saga.folder / ".chaos").iterdir())


@pytest.mark.timeout(240)  # it waits for messages that the broker has lost
def test_a_mix_of_everything_loses_nothing_and_says_what_it_did(saga: Saga) -> None:
    files = ("--json", "records/mix.json", "--html", "mix.html")
    done = saga("chaos", "run", "mix", "--seed", "267", *QUICK, "--every", "1", *files)
    assert done.code == 0, done.err
    assert "seed 267\n" in done.err
    assert "No violations" in done.out
    record = Record.model_validate_json((saga.folder / "records" / "mix.json").read_text())
    assert record.reproduce == "saga chaos run mix --seed 267 --duration 10 --rate 12 --every 1"
    assert (record.verdict, record.brokers, record.database) == ("no violations", 1, "postgresql")
    assert len(record.fired) >= 4
    assert all(kind in (saga.folder / "mix.html").read_text() for kind in record.fired)
    assert record.sagas.keys() <= {"completed", "compensated"}
    assert sum(record.sagas.values()) == {one.name: one.checked for one in record.invariants}["one-saga-an-order"] > 10
    assert record.settled_after is not None
    assert [sample.at for sample in record.samples] == sorted(sample.at for sample in record.samples)
    assert record.samples[-1].in_flight == 0
    assert left_in(saga) == []
    assert processes_of(saga.folder) == []


def test_a_run_that_is_killed_leaves_nothing_running_and_nothing_on_the_disk(saga: Saga) -> None:
    with saga.background("chaos", "run", "pause-roles", "--seed", "1", "--duration", "600") as run:
        run.until_says("… breaking it")
        assert len(processes_of(saga.folder)) > 8
        os.kill(run.pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while (left := processes_of(saga.folder)) or left_in(saga):
            assert time.monotonic() < deadline, f"still there: {left} {left_in(saga)}"
            time.sleep(0.05)


def test_a_run_that_is_stopped_says_that_it_shows_nothing_and_leaves_nothing(saga: Saga) -> None:
    with saga.background("chaos", "run", "pause-roles", "--seed", "1", "--duration", "600") as run:
        run.until_says("… breaking it")
        stopped = run.terminate()
    assert (stopped.code, stopped.out) == (130, "")
    assert stopped.err.endswith("a run that was not proved to its end shows nothing, and nothing of it is kept\n")
    assert (left_in(saga), processes_of(saga.folder)) == ([], [])


def test_what_there_is_to_try(saga: Saga) -> None:
    rows: list[dict[str, Any]] = saga("chaos", "ls", "--json").json()
    assert len(rows) > 12
    assert {"mix", "store-rolled-back", "rogue-participants"} <= {row["scenario"] for row in rows}
    shown = saga("chaos", "ls")
    assert (shown.code, shown.err) == (0, "")
    assert all(row["scenario"] in shown.out and row["what"] in shown.out for row in rows)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("earthquake",), "there is no scenario 'earthquake': there is kill-roles, pause-roles"),
        (("mix", "--duration", "1"), "--duration: from 5"),
        (("mix", "--rate", "0"), "--rate: orders a second"),
    ],
)
def test_nonsense_is_refused_before_anything_starts(saga: Saga, arguments: tuple[str, ...], sentence: str) -> None:
    done = saga("chaos", "run", *arguments)
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert list(saga.folder.iterdir()) == []


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_record_that_cannot_be_written_is_told_before_the_run(saga: Saga, option: str) -> None:
    done = saga("chaos", "run", "mix", option, "/proc/record")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("saga: /proc/record cannot be written: ")
    assert list(saga.folder.iterdir()) == []


def test_other_commands_do_not_load_chaos() -> None:
    look = "import sys, orchestrator.cli.main; print(json.dumps([name for name in sys.modules if name == 'chaos']))"
    done = subprocess.run(
        [sys.executable, "-c", f"import json; {look}"], capture_output=True, text=True, env=os.environ, check=True
    )
    assert json.loads(done.stdout) == []
