"""The real parts of a run: NATS, four databases, and a process for every role; all of them end with the run.

The databases write through to the disk, as they would in production. So the data are put into a folder of the current
directory: the system's folder for temporary files may be in memory, where a write costs nothing.
"""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.errors import RunFailed
from benchmarks.options import Options
from orchestrator.cli.processes import RoleProcesses
from orchestrator.composition import Client, open_client
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.embedded.postgres import EmbeddedPostgres
from orchestrator.settings import ROLES, Settings, load_settings

STEPS: Final = "SAGA_BENCH_STEPS"
DEFINITIONS: Final = "orchestrator.sagas.place_order,benchmarks.sagas"


@dataclass(slots=True)
class Servers:
    """The broker and the databases of a run."""

    settings: Settings
    nats: EmbeddedNats
    postgres: EmbeddedPostgres | None
    keep: bool = False
    """Whether the folder stays for its logs when the run is over."""

    def empty_databases(self, prefix: str) -> dict[str, str]:
        """Another, empty PostgreSQL database for every role: role -> URL for asyncpg."""
        assert self.postgres is not None
        names = {role: f"{prefix}_{role}" for role in ROLES}
        self.postgres.create_database(*names.values())
        return {role: self.postgres.dsn(name) for role, name in names.items()}


@contextmanager
def open_servers(options: Options) -> Iterator[Servers]:
    """Start what a run needs, in a folder of its own; it stays after a failure, for the logs of the services."""
    os.environ[STEPS] = str(options.steps or 3)  # read by benchmarks.sagas, here and in every role's process
    folder = _new_folder(options.data_dir)
    keep = True
    try:
        with ExitStack() as stack:
            servers = _start(options, folder, stack)
            yield servers
        keep = servers.keep
    except KeyboardInterrupt:
        keep = False
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _new_folder(parent: Path) -> Path:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="run-", dir=parent.resolve()))
    except OSError as error:
        raise RunFailed(f"the data folder {parent} cannot be used: {error.strerror}") from error


def _start(options: Options, folder: Path, stack: ExitStack) -> Servers:
    nats = stack.enter_context(EmbeddedNats(folder / "nats", sync_always=options.sync_always))
    postgres = None
    if options.database == "postgresql":
        postgres = stack.enter_context(EmbeddedPostgres(durable=True, parent=folder.parent))
        postgres.create_database(*ROLES)
    urls = {f"{role}_database_url": _url(role, folder, postgres) for role in ROLES}
    settings = load_settings(data_dir=folder, nats_url=nats.url, stream_replicas=1, definitions=DEFINITIONS, **urls)
    return Servers(settings, nats, postgres)


def _url(role: str, folder: Path, postgres: EmbeddedPostgres | None) -> str:
    return f"sqlite:///{folder}/{role}.db" if postgres is None else postgres.url(role)


@asynccontextmanager
async def open_parts(servers: Servers, replicas: int) -> AsyncIterator[tuple[Client, RoleProcesses]]:
    """Every role at work, and a client that starts sagas."""
    settings = servers.settings
    async with open_client(settings) as client:
        await client.connect()
        processes = RoleProcesses(settings)
        names = [*ROLES, *(f"orchestrator-{number}" for number in range(2, replicas + 1))]
        try:
            for name in names:
                await processes.start(name, **_environment(settings))
            await processes.wait_until_ready(client.broker.jetstream, *names)
            yield client, processes
        finally:
            await processes.stop_all()


def _environment(settings: Settings) -> dict[str, str]:
    urls = {f"SAGA_{role.upper()}_DATABASE_URL": settings.database_url(role) for role in ROLES}
    return urls | {"SAGA_DEFINITIONS": settings.definitions, "SAGA_STREAM_REPLICAS": "1", "SAGA_LOG_LEVEL": "warning"}
