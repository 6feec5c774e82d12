"""A study from its runs to the page: small, on SQLite, as a process of its own."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Final

import psutil
import pytest

from benchmarks.studies.__main__ import DOCS
from benchmarks.studies.page import rendered
from benchmarks.studies.store import FOLDER, PAGE, load
from orchestrator.settings import ROLES
from tests.support.waiting import eventually

STUDY: Final = "refusals"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """The page, and no results."""
    (tmp_path / "docs").mkdir()
    shutil.copy(DOCS / PAGE, tmp_path / "docs" / PAGE)
    return tmp_path / "docs"


def command(docs: Path, data: Path) -> list[str]:
    words = [STUDY, "--quick", "--database", "sqlite", "--docs", str(docs), "--data-dir", str(data)]
    return [sys.executable, "-m", "benchmarks.studies", *words]


async def services_of(pid: int) -> list[psutil.Process]:
    """Everything that runs for a study, once the services do."""
    found = psutil.Process(pid).children(recursive=True)
    return found if len(found) > len(("bench", "nats-server", *ROLES)) - 1 else []


def test_a_study_is_run_kept_drawn_and_shown(docs: Path, tmp_path: Path) -> None:
    ended = subprocess.run(command(docs, tmp_path / "data"), capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")
    results = load(docs, STUDY)
    assert results is not None
    assert [row["refused"] for row in results.rows] == [0, 30]
    assert all(row["sagas_per_second"] > 0 and row["sagas"] == 40 for row in results.rows)
    assert set(results.rows[0]) == {"refused", "sagas", "sagas_per_second", "p50_ms", "p99_ms", "cpu_ms"}
    assert (docs / FOLDER / f"{STUDY}.svg").read_text().startswith("<?xml")
    page = (docs / PAGE).read_text()
    assert "| 30 % | 40 |" in page
    assert rendered(page, docs) == page
    assert [line.partition(" … ")[0] for line in ended.stdout.splitlines()][:2] == [
        f"{STUDY} 1/2: refused 0",
        f"{STUDY} 2/2: refused 30",
    ]
    assert list((tmp_path / "data").iterdir()) == []


def test_a_run_that_fails_is_shown_as_failed(docs: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, where a folder should be")
    ended = subprocess.run(command(docs, tmp_path / "data"), capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert ended.stdout.count("FAILED") == 2
    lines = (docs / FOLDER / f"{STUDY}.json").read_text().splitlines()
    assert ["error" in json.loads(line) for line in lines] == [False, True, True]
    page = (docs / PAGE).read_text()
    assert "| 30 % | **failed** |" in page
    assert str(tmp_path) not in page


async def test_a_study_that_is_stopped_ends_its_run_and_leaves_what_was_there(docs: Path, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(*command(docs, tmp_path / "data"), stdout=PIPE, stderr=PIPE)
    family = await eventually(lambda: services_of(process.pid), "the run has started its services")

    process.send_signal(signal.SIGINT)
    _, complaints = await process.communicate()

    assert process.returncode == 130
    assert b"Stopped." in complaints
    assert b"Traceback" not in complaints
    assert psutil.wait_procs(family, timeout=20)[1] == []
    assert not (docs / FOLDER).exists()
    assert list((tmp_path / "data").iterdir()) == []
