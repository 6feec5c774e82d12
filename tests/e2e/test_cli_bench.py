"""`saga bench` as a person or a script meets it: real parts, every saga accounted for, and nothing left behind."""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.cli import Background, Saga, processes_of

ROLES: Final = {"orchestrator", "order", "inventory", "payment", "client", "nats-server"}
QUICK: Final = ("bench", "--json", "--no-roof", "--database", "sqlite", "--in-flight", "10")


@pytest.fixture
def saga(tmp_path: Path) -> Saga:
    """An empty folder, where nothing runs."""
    return Saga(tmp_path)


def left_in(saga: Saga) -> list[Path]:
    """What a run has left."""
    return list((saga.folder / ".bench").iterdir())


def run_folder(bench: Background, saga: Saga) -> Path:
    """The folder of the run that is under way, once sagas have begun in it."""
    bench.until_says("… measuring")
    [folder] = left_in(saga)
    return folder


def check_latencies(report: dict[str, Any]) -> None:
    in_order = [report[name] for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")]
    assert in_order == sorted(in_order)
    assert 0 < in_order[0] <= in_order[-1] <= report["seconds"] * 1000 + 0.5  # it is rounded to milliseconds
    assert report["sagas_per_second"] == pytest.approx(report["orders"] / report["seconds"], rel=0.01)


def test_a_run_on_sqlite_reports_everything_and_leaves_nothing(saga: Saga) -> None:
    done = saga(*QUICK, "--orders", "40", "--refused", "25", "--history", "6", "--waiting", "4")
    assert done.code == 0, done.err
    report = done.json()
    check_latencies(report)
    assert (report["database"], report["saga"], report["orders"], report["load"]) == (
        "sqlite",
        "place-order",
        40,
        "closed",
    )
    assert (report["history"], report["waiting"]) == (6, 4)
    assert report["outcomes"] == {"completed": 30, "compensated": 10}
    assert (report["violations"], report["dead_letters"]) == ([], {})
    assert report["verified"] == 6 + 4 + 40 + 40  # the last of which are the warm-up
    assert report["roof_per_second"] is None
    assert report["transactions_per_saga"] is None
    assert set(report["cpu_seconds_per_saga"]) == ROLES | {"all"}
    assert set(report["peak_memory_mib"]) == ROLES
    assert all(value > 0 for value in report["peak_memory_mib"].values())
    assert all(report["messages_per_saga"][name] > 0 for name in ("commands", "replies", "events"))
    assert report["outbox_lag_seconds"] >= 0
    assert "… measuring place-order\n" in done.err
    assert left_in(saga) == []
    assert processes_of(saga.folder) == []


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that the user whom PostgreSQL runs as can reach: a test's own is closed to all but us."""
    with tempfile.TemporaryDirectory(prefix="amends-bench-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def test_a_run_on_postgresql_counts_transactions_and_measures_the_roof(saga: Saga, open_folder: Path) -> None:
    load, parts = ("--orders", "30", "--steps", "5", "--history", "5"), ("--replicas", "2", "--sync-always")
    done = saga("bench", "--json", *load, *parts, "--data-dir", str(open_folder))
    assert done.code == 0, done.err
    report = done.json()
    check_latencies(report)
    assert (report["database"], report["saga"], report["steps"], report["replicas"]) == ("postgresql", "chain", 5, 2)
    assert (report["outcomes"], report["violations"], report["history"]) == ({"completed": 30}, [], 5)
    assert report["roof_per_second"] > 0
    assert report["of_roof"] == pytest.approx(report["sagas_per_second"] / report["roof_per_second"], rel=0.05)
    transactions = report["transactions_per_saga"]
    assert all(transactions[role] > 0 for role in ("orchestrator", "order", "inventory", "payment"))
    assert report["wal_bytes_per_saga"] > 0
    assert set(report["cpu_seconds_per_saga"]) == ROLES | {"postgres", "all"}
    assert list(open_folder.iterdir()) == []
    assert processes_of(open_folder) == []


def test_an_open_loop_for_people(saga: Saga) -> None:
    done = saga("bench", "--database", "sqlite", "--rate", "50", "--orders", "20", "--payload", "2000")
    assert done.code == 0, done.err
    for line in ("sagas per second", "latency", "messages per saga", "20 completed", "not counted", "nats-server"):
        assert line in done.out
    assert "not measured: it is written for PostgreSQL" in done.out
    assert "40 sagas against 4 databases: no violations" in done.err


def test_a_wrong_run_is_a_failed_run(saga: Saga) -> None:
    """Somebody takes an article off the shelf while the sagas run."""
    arguments = [one for one in QUICK if one not in ("--in-flight", "10")]
    with saga.background(*arguments, "--rate", "20", "--orders", "60") as bench:
        folder = run_folder(bench, saga)
        with closing(sqlite3.connect(folder / "inventory.db", timeout=30)) as connection, connection:
            connection.execute("UPDATE stock SET available = available - 1 WHERE sku = 'article-0999'")
        done = bench.wait()
    assert done.code == 1, done.err
    report = done.json()
    assert [finding["check"] for finding in report["violations"]] == ["stock-is-constant"]
    assert report["outcomes"] == {"completed": 60}
    assert f"its logs are in {folder}" in done.err
    assert (folder / "orchestrator.log").exists()


def test_a_run_in_which_a_service_dies_ends_at_once(saga: Saga) -> None:
    done = saga(*QUICK, "--orders", "30", SAGA_CRASH_AT="payment.committed:2")
    assert done.code == 1
    [folder] = left_in(saga)
    assert f"the payment service has ended: see {folder}/payment.log" in done.err
    assert done.out == ""
    assert processes_of(saga.folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_everything(saga: Saga, number: signal.Signals) -> None:
    with saga.background(*QUICK, "--orders", "100000") as bench:
        run_folder(bench, saga)
        done = bench.end(number)
    assert (done.code, done.out) == (130, "")
    assert left_in(saga) == []
    assert processes_of(saga.folder) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--rate", "10", "--in-flight", "5"), "--rate is an open loop and --in-flight a closed one: give one of them"),
        (("--database", "oracle"), "--database: there is sqlite and postgresql, and no oracle"),
        (("--steps", "0"), "--steps: from 1 to 300"),
        (("--steps", "4", "--refused", "5"), "the last step must be one: --steps 3, 6, 9, …"),
    ],
)
def test_nonsense_is_refused_before_anything_starts(saga: Saga, arguments: tuple[str, ...], sentence: str) -> None:
    done = saga("bench", *arguments)
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert list(saga.folder.iterdir()) == []


def test_other_commands_do_not_load_the_benchmark() -> None:
    look = "import sys, orchestrator.cli.main; print([name for name in sys.modules if name.startswith('benchmarks')])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout == "[]\n"
