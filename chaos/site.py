"""The servers of a run, and a wire from every process to each of them.

The data are in a folder of the current directory, because the system's folder for temporary files may be in memory,
where fsync costs nothing. A server's disk may be one of its own, small enough to be filled (see `disks`).
"""

import asyncio
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy.engine import make_url

from chaos.disks import Disk
from chaos.errors import ChaosFailed
from chaos.names import POSTGRES, brokers, wires
from chaos.wire import Wire
from orchestrator.embedded import EmbeddedServerError
from orchestrator.embedded.nats_server import EmbeddedNats, Member
from orchestrator.embedded.postgres import EmbeddedPostgres, free_port
from orchestrator.settings import ROLES, Settings, load_settings

LARGEST_LOG: Final = 16 * 1024 * 1024
"""Bytes."""


@dataclass(slots=True)
class Site:
    """Servers, wires, and the settings of whoever reaches the servers directly."""

    folder: Path
    settings: Settings
    nats: dict[str, EmbeddedNats]
    postgres: EmbeddedPostgres
    wires: dict[str, Wire]
    disks: dict[str, Disk]

    def server(self, name: str) -> EmbeddedNats | EmbeddedPostgres:
        """One of them by its name."""
        return self.postgres if name == POSTGRES else self.nats[name]

    async def start(self, name: str) -> None:
        """Start a server that was stopped, on the same port and the same data. Raises EmbeddedServerError."""
        server = self.server(name)
        cut_short(server.log_file)
        for pause in (1.0, 3.0):  # an hour of faults should not be lost to a port that is taken for a moment
            try:
                await asyncio.to_thread(server.start)
                return
            except EmbeddedServerError:
                await asyncio.sleep(pause)
        await asyncio.to_thread(server.start)

    def environment(self, process: str) -> dict[str, str]:
        """The settings of a process: it reaches everything over wires of its own."""
        role = process.partition("-")[0]
        nats = ",".join(f"nats://127.0.0.1:{self.wires[f'{process}>{server}'].port}" for server in self.nats)
        database = make_url(self.settings.database_url(role)).set(port=self.wires[f"{process}>{POSTGRES}"].port)
        return {
            "SAGA_NATS_URL": nats,
            f"SAGA_{role.upper()}_DATABASE_URL": database.render_as_string(hide_password=False),
            "SAGA_STREAM_REPLICAS": str(self.settings.stream_replicas),
            "SAGA_DATA_DIR": str(self.folder),
            "SAGA_LOG_LEVEL": "info",
        }


def cut_short(log: Path) -> None:
    """A log that has grown too long becomes the old one, and the old one is no more: hours must not fill the disk."""
    with suppress(FileNotFoundError):
        if log.stat().st_size > LARGEST_LOG:
            shutil.copy2(log, log.with_suffix(".log.old"))
            with log.open("r+b") as open_log:  # the server's own descriptor stays good
                open_log.truncate(0)


def new_folder(parent: Path) -> Path:
    """An empty folder for a run. Raises ChaosFailed."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent.resolve()))
        folder.chmod(0o711)  # PostgreSQL may have to run as somebody else
        return folder
    except OSError as error:
        raise ChaosFailed(f"the data folder {parent} cannot be used: {error.strerror}") from error


@asynccontextmanager
async def open_site(folder: Path, broker_count: int, seed: int, small_disks: Sequence[str]) -> AsyncIterator[Site]:
    """Start servers and wires; they end with the block. `small_disks`: servers that get a disk of their own."""
    async with AsyncExitStack() as stack:
        disks = {name: stack.enter_context(Disk(folder / f"disk-{name}")) for name in small_disks}
        parent = disks[POSTGRES].folder if POSTGRES in disks else folder
        postgres = EmbeddedPostgres(durable=True, parent=parent)
        stack.push_async_callback(asyncio.to_thread, postgres.close)
        await asyncio.to_thread(postgres.start)
        await asyncio.to_thread(postgres.create_database, *ROLES)

        found: dict[str, Wire] = {}
        stack.push_async_callback(_close, found.values())
        nats = await _start_nats(folder, broker_count, seed, disks, found, stack)
        targets = {name: _port(server.url) for name, server in nats.items()} | {POSTGRES: _port(postgres.dsn())}
        for name in wires(broker_count):
            if name not in found:
                found[name] = await _wire(name, targets[name.partition(">")[2]], seed)

        urls = {f"{role}_database_url": postgres.url(role) for role in ROLES}
        url = ",".join(server.url for server in nats.values())
        settings = load_settings(data_dir=folder, nats_url=url, stream_replicas=broker_count, **urls)
        yield Site(folder, settings, nats, postgres, found, disks)


async def _start_nats(
    folder: Path, count: int, seed: int, disks: dict[str, Disk], found: dict[str, Wire], stack: AsyncExitStack
) -> dict[str, EmbeddedNats]:
    names = brokers(count)
    ports = {name: free_port() for name in names} if count > 1 else {}
    for name in wires(count):
        source, _, target = name.partition(">")
        if source in ports:
            found[name] = await _wire(name, ports[target], seed)
    servers = {}
    for name in names:
        routes = tuple(f"127.0.0.1:{found[f'{name}>{other}'].port}" for other in names if other != name)
        member = Member(name, ports[name], routes) if count > 1 else None
        place = disks[name].folder if name in disks else folder / name
        servers[name] = EmbeddedNats(place, port=free_port(), member=member)
        stack.push_async_callback(asyncio.to_thread, servers[name].kill)
        await asyncio.to_thread(servers[name].start)
    return servers


async def _wire(name: str, target: int, seed: int) -> Wire:
    wire = Wire(name, target, random.Random(f"{seed}/{name}"))
    await wire.open()
    return wire


async def _close(found: Iterable[Wire]) -> None:
    for wire in found:
        await wire.close()


def _port(url: str) -> int:
    return int(url.split("/")[2].rpartition(":")[2])
