"""`saga prune` as a person or a cron job meets it: a process of its own, on databases that real sagas have filled."""

import gzip
import json
import os
import pty
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.cli import COMMAND, Saga
from tests.support.world import an_order

LONG_AGO: Final = "2025-01-01 00:00:00.000000"
SERVICES: Final = ("order", "inventory", "payment")
COMPLETED: Final = 4


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which four sagas have completed and one was undone. Nothing runs there any more."""
    saga = Saga(tmp_path_factory.mktemp("filled"))
    with saga.dev() as dev:
        (saga.folder / "stock.csv").write_text("sku,quantity\nlamp,1000\n")
        (saga.folder / "accounts.csv").write_text("customer_id,balance\nada,1000\nbob,5\n")
        assert saga("seed", "--stock", "stock.csv", "--accounts", "accounts.csv").code == 0
        for number in range(COMPLETED):
            started = saga.start(an_order(), options=("--wait", "--key", f"k-{number}"))
            assert started.code == 0, started.err
        assert saga.start(an_order(customer="bob"), options=("--wait",)).code == 5
        dev.terminate()
    return saga.data_dir


@pytest.fixture
def saga(filled: Path, tmp_path: Path) -> Saga:
    """A copy of that folder, in which everything has happened long ago."""
    saga = Saga(tmp_path)
    shutil.copytree(filled, saga.data_dir, ignore=shutil.ignore_patterns("nats*", "*.json"))
    execute(saga, "orchestrator", "UPDATE sagas SET started_at = ?, ended_at = ?", LONG_AGO, LONG_AGO)
    for service in SERVICES:
        execute(saga, service, "UPDATE inbox SET received_at = ?", LONG_AGO)
    return saga


def execute(saga: Saga, role: str, statement: str, *values: Any) -> list[Any]:
    """Look into a database, or change it, behind everybody's back."""
    with closing(sqlite3.connect(saga.data_dir / f"{role}.db")) as connection, connection:
        return connection.execute(statement, values).fetchall()


def ids(saga: Saga) -> set[str]:
    """The sagas that are there."""
    return {row[0] for row in execute(saga, "orchestrator", "SELECT id FROM sagas")}


def lines(folder: Path) -> list[Any]:
    """Every line of every archive of sagas."""
    found = []
    for path in sorted(folder.glob("sagas-*.ndjson.gz")):
        with gzip.open(path) as file:
            found += [json.loads(line) for line in file]
    return found


def test_what_is_old_goes_into_the_archive_and_verify_is_clean(saga: Saga) -> None:
    before = ids(saga)
    foreseen = saga("prune", "--older-than", "30d", "--dry-run", "--json").json()
    assert (ids(saga), foreseen["dry_run"]) == (before, True)

    done = saga("prune", "--older-than", "30d", "--archive", "kept", "--json")
    summary = done.json()
    assert (done.code, done.err) == (0, "")
    assert summary["sagas"] == foreseen["sagas"] == {"pruned": COMPLETED + 1, "kept": 0}
    assert summary["inbox"] == foreseen["inbox"]
    assert all(summary["inbox"][service]["pruned"] > COMPLETED for service in SERVICES)
    assert [Path(path).parent.name for path in summary["archives"]] == ["kept"]

    assert (ids(saga), {one["saga"]["id"] for one in lines(saga.folder / "kept")}) == (set(), before)
    assert execute(saga, "orchestrator", "SELECT count(*) FROM saga_log") == [(0,)]
    assert saga("verify", "--json").json() == {"sagas": 0, "violations": []}
    assert saga("get", before.pop()).code == 3


def test_without_json_it_prints_a_table_and_says_where_the_archive_is(saga: Saga) -> None:
    done = saga("prune", "--older-than", "30d", "--archive", "kept", "--status", "completed")
    rows = {" ".join(words[:-2]): words[-2:] for line in done.out.splitlines() if (words := line.split())}
    assert (rows["sagas"], rows["dead letters of order"]) == ([str(COMPLETED), "0"], ["0", "0"])
    assert done.err.startswith(f"archived in kept{os.sep}sagas-")
    assert execute(saga, "orchestrator", "SELECT status FROM sagas") == [("compensated",)]


def test_a_key_whose_saga_was_pruned_starts_a_new_one(saga: Saga) -> None:
    order = an_order()
    nobody = {"SAGA_NATS_URL": "nats://127.0.0.1:1"}
    assert "conflict" in saga.start(order, options=("--key", "k-0", "--json"), **nobody).out
    assert saga("prune", "--older-than", "30d", "--no-archive").code == 0
    assert saga.start(order, options=("--key", "k-0", "--json"), **nobody).json()["outcome"] == "started"


@pytest.mark.parametrize(("point", "left"), [("before-commit:2", 3), ("committed:2", 1)])
def test_killed_between_archive_and_delete_it_loses_nothing(saga: Saga, point: str, left: int) -> None:
    """The inboxes have been pruned before, so that the points that are passed are those of the sagas."""
    before = ids(saga)
    for service in SERVICES:
        execute(saga, service, "DELETE FROM inbox")
    arguments = ("prune", "--older-than", "30d", "--archive", "kept", "--batch", "2")
    killed = saga(*arguments, SAGA_CRASH_AT=f"prune.{point}")
    assert killed.code == -signal.SIGKILL
    assert len(ids(saga)) == left
    assert ids(saga) | {one["saga"]["id"] for one in lines(saga.folder / "kept")} == before
    assert saga("verify").code == 0

    assert saga(*arguments).code == 0
    archived = [one["saga"]["id"] for one in lines(saga.folder / "kept")]
    assert (ids(saga), set(archived), len(archived)) == (set(), before, 4 + left)


MISUSES: Final = {
    "--older-than 30d": (2, "say where the archives go with --archive DIR, or that none are wanted: --no-archive"),
    "--older-than 30d --archive a --no-archive": (2, "contradict each other"),
    "--older-than 3d --archive a": (2, "nothing younger than 4 days is pruned: until then the broker may deliver"),
    "--older-than 99999999999d --archive a": (2, "longer than 36,500 days"),
    "--older-than soon --archive a": (2, "'soon' is no age"),
    "--older-than 30d --archive a --status stuck": (2, "sagas end completed or compensated: 'stuck' ones"),
    "--older-than 30d --archive a --batch 0": (2, "--batch"),
    "--archive a": (2, "--older-than"),
    "--older-than 30d --archive file": (2, "is a file: name a folder"),
}


@pytest.mark.parametrize("arguments", MISUSES)
def test_what_makes_no_sense_is_refused_and_nothing_goes(saga: Saga, arguments: str) -> None:
    code, sentence = MISUSES[arguments]
    (saga.folder / "file").touch()
    refused = saga("prune", *arguments.split())
    assert (refused.code, refused.out) == (code, "")
    assert sentence in refused.err
    assert len(ids(saga)) == COMPLETED + 1


def test_on_a_terminal_there_is_a_bar(saga: Saga) -> None:
    """On stderr, and gone in the end; stdout stays data."""
    outer, inner = pty.openpty()
    done = subprocess.Popen(
        [*COMMAND, "prune", "--older-than", "30d", "--no-archive", "--json"],
        cwd=saga.folder,
        env=saga.environment(TERM="xterm"),
        stdout=subprocess.PIPE,
        stderr=inner,
    )
    os.close(inner)
    out, _ = done.communicate(timeout=60)
    with closing(os.fdopen(outer, "rb", buffering=0)) as terminal:
        shown = terminal.read(100_000).decode()
    assert json.loads(out)["sagas"]["pruned"] == COMPLETED + 1
    assert "pruning" in shown
