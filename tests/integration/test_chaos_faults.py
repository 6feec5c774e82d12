"""Faults against real servers and processes: each has really happened when it says so, and says so only then."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from nats.errors import Error
from nats.js.errors import NotFoundError

from chaos.disks import Disk
from chaos.errors import ChaosFailed, Missed
from chaos.faults import STRIKES
from chaos.faults.world import World
from chaos.fleet import Fleet
from chaos.guard import living_in
from chaos.plan import Planned
from chaos.record import Fault
from chaos.scenarios import SCENARIOS
from chaos.site import cut_short, new_folder, open_site
from orchestrator.cli.schema import upgrade_all
from orchestrator.composition import Client, inlet_of, open_client
from orchestrator.embedded.forked import ForkServer
from orchestrator.embedded.postgres import EmbeddedPostgres
from outbox.errors import BrokerOutOfReach
from outbox.topology import COMMANDS, EVENTS, REPLIES, is_fetching
from tests.support.waiting import eventually

ORDER = "order-1"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL can reach: a test's own is closed to all but us."""
    with tempfile.TemporaryDirectory(prefix="amends-chaos-") as name:
        Path(name).chmod(0o711)
        yield new_folder(Path(name))


@asynccontextmanager
async def opened(folder: Path, brokers: int = 1) -> AsyncIterator[World]:
    """Servers with tables and streams, and no process of ours."""
    async with open_site(folder, brokers, 1, ()) as site:
        await upgrade_all(site.settings)
        with ForkServer() as server:
            async with open_client(site.settings) as client:
                await eventually(lambda: _connects(client), "the servers of NATS agree")
                fleet = Fleet(site, server)
                try:
                    yield World(site, fleet, client, asyncio.get_running_loop().time())
                finally:
                    await fleet.stop_all()


async def _connects(client: Client) -> bool:
    try:
        await client.connect()
    except BrokerOutOfReach:
        return False
    return True


async def strike(world: World, kind: str, target: str, lasts: float = 0.0) -> list[Fault]:
    """Let it happen now."""
    return await STRIKES[kind](world, Planned(0.0, kind, target, lasts, "1/0"))


async def at_work(world: World, *names: str) -> None:
    """Start these, and wait until they fetch."""
    for name in names:
        if name not in world.fleet.running:
            world.fleet.start(name)
    for role in {name.partition("-")[0] for name in names}:
        inlet = inlet_of(world.site.settings, role)

        async def fetches() -> bool:
            return await is_fetching(world.client.broker.jetstream, inlet)  # noqa: B023 (awaited in this round)

        await eventually(fetches, f"{role} is at work")


async def test_processes_are_killed_frozen_and_replaced_and_whoever_ends_unasked_is_told_of(folder: Path) -> None:
    async with opened(folder) as world:
        await at_work(world, ORDER)
        before = world.fleet.pid(ORDER)
        [fault] = await strike(world, "kill", ORDER)
        assert (fault.kind, fault.target) == ("kill", ORDER)
        assert not psutil.pid_exists(before)
        assert world.fleet.pid(ORDER) != before

        freezing = asyncio.create_task(strike(world, "pause", ORDER, 1.0))
        pid = world.fleet.pid(ORDER)
        await eventually(lambda: _is(pid, psutil.STATUS_STOPPED), "it stands still")
        [fault] = await freezing
        assert fault.until - fault.at >= 1.0
        assert not await _is(pid, psutil.STATUS_STOPPED)

        await at_work(world, ORDER)
        [fault] = await strike(world, "reset", "order-1>postgres")
        assert fault.detail.endswith("connections")
        assert world.fleet.surprises == []
        os.kill(world.fleet.pid(ORDER), signal.SIGTERM)  # not by the fleet
        await eventually(lambda: _surprised(world), "the fleet is surprised")
        assert world.fleet.surprises[0].startswith("order-1 has ended by itself with 0")
        with pytest.raises(Missed, match="order-2 does not run"):
            await strike(world, "kill", "order-2")


async def test_a_process_that_had_died_by_itself_when_it_was_to_be_killed_is_told_of_and_runs_again(
    folder: Path,
) -> None:
    async with opened(folder) as world:
        await at_work(world, ORDER)
        pid = world.fleet.pid(ORDER)
        os.kill(pid, signal.SIGTERM)
        psutil.Process(pid).wait(30)  # the loop stands still: the fleet does not know yet
        with pytest.raises(Missed, match="order-1 had ended with 0 before it was killed"):
            await world.fleet.kill(ORDER)
        assert world.fleet.surprises == ["order-1 has ended by itself with 0: see order-1.log"]
        assert world.fleet.pid(ORDER) != pid


async def test_a_process_that_is_slow_to_die_is_told_of_and_runs_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(folder) as world:
        world.fleet.start(ORDER)
        pid = world.fleet.pid(ORDER)
        monkeypatch.setattr("chaos.fleet.DEATH_SECONDS", 0.0)
        with pytest.raises(ChaosFailed, match="order-1 was not dead 0 s after SIGKILL"):
            await strike(world, "kill", ORDER)
        await eventually(lambda: _surprised(world), "its end is told")
        assert world.fleet.pid(ORDER) != pid


async def _is(pid: int, status: str) -> bool:
    return bool(psutil.Process(pid).status() == status)


async def _surprised(world: World) -> bool:
    return bool(world.fleet.surprises)


async def test_the_broker_forgets_what_it_is_made_to_forget_and_an_empty_one_has_nothing_to_forget(
    folder: Path,
) -> None:
    async with opened(folder) as world:
        stream = world.client.broker.jetstream
        with pytest.raises(Missed, match="the store is empty"):
            await strike(world, "store-wipe", "nats")
        for number in range(3):
            await stream.publish("saga.cmd.order.x", b"%d" % number)

        with pytest.raises(Missed, match="nothing came since the copy"):
            await strike(world, "store-rollback", "nats", 0.1)
        rolling = asyncio.create_task(strike(world, "store-rollback", "nats", 1.0))
        await eventually(lambda: _copied(world), "the copy is made")
        await asyncio.sleep(0.3)
        await stream.publish("saga.cmd.order.x", b"forgotten")
        [fault] = await rolling
        assert fault.detail.endswith("with SAGA_COMMANDS up to 3; it was at 4")
        await eventually(lambda: _holds(world, 3), "the last message is forgotten")

        [fault] = await strike(world, "store-wipe", "nats")
        assert fault.detail == "3 messages were in it"
        await eventually(lambda: _has_no_stream(world), "the store is empty")


@pytest.mark.parametrize("kind", ["store-wipe", "store-delete", "store-rollback"])
async def test_where_there_is_no_store_no_server_is_killed(folder: Path, kind: str) -> None:
    async with opened(folder) as world:
        server = world.site.nats["nats-1"]
        await world.client.broker.jetstream.publish("saga.cmd.order.x", b"1")
        shutil.rmtree(server.store)
        pid = server.pid
        with pytest.raises(Missed, match="there is no store at"):
            await strike(world, kind, "nats")
        assert (server.running, server.pid) == (True, pid)


async def test_a_store_that_cannot_be_replaced_leaves_no_server_killed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: Path) -> None:
        raise PermissionError("not yours")

    async with opened(folder) as world:
        server = world.site.nats["nats-1"]
        await world.client.broker.jetstream.publish("saga.cmd.order.x", b"1")
        pid = server.pid
        monkeypatch.setattr("chaos.faults.store.shutil.rmtree", fail)
        with pytest.raises(PermissionError):
            await strike(world, "store-wipe", "nats")
        monkeypatch.undo()
        assert server.running
        assert server.pid != pid


async def test_a_stream_that_nobody_makes_anew_is_not_said_to_have_been(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaos.faults.store.ANEW_WITHIN", {COMMANDS: 0.5, EVENTS: 0.5})
    async with opened(folder) as world:
        await world.client.broker.jetstream.publish("saga.cmd.order.x", b"1")
        [fault] = await strike(world, "store-abandon", "nats")
        assert fault.detail.startswith("1 commands were in it; ")
        assert fault.detail.endswith(" took no more, and was not made anew within 0.5 s")


async def _copied(world: World) -> bool:
    return bool(list(world.site.nats["nats-1"].data_dir.glob("copy-*/*")))


async def _holds(world: World, messages: int) -> bool:
    try:
        return (await world.client.broker.jetstream.stream_info(COMMANDS)).state.messages == messages
    except (Error, TimeoutError):
        return False


async def _has_no_stream(world: World) -> bool:
    try:
        await world.client.broker.jetstream.stream_info(COMMANDS)
    except NotFoundError:
        return True
    except (Error, TimeoutError):
        pass
    return False


async def test_streams_and_consumers_are_deleted_and_somebody_puts_them_back(folder: Path) -> None:
    async with opened(folder) as world:
        await at_work(world, ORDER)
        stream = world.client.broker.jetstream
        before = (await stream.consumer_info(COMMANDS, "order")).created
        [fault] = await strike(world, "consumer-delete", f"{COMMANDS}/order")
        assert (await stream.consumer_info(COMMANDS, "order")).created != before
        before = (await stream.stream_info(REPLIES)).created
        [fault] = await strike(world, "stream-delete", REPLIES)
        assert fault.detail == "0 messages were in it"
        assert (await stream.stream_info(REPLIES)).created != before


async def test_the_database_is_stopped_killed_and_frozen_and_comes_back_with_all_it_had(folder: Path) -> None:
    async with opened(folder) as world:
        server = world.site.postgres
        for kind in ("database-restart", "kill-database"):
            before = server.pid
            await strike(world, kind, "postgres")
            assert (psutil.pid_exists(before), server.running) == (False, True)
        assert server.log_file.read_text().count("database system was not properly shut down") == 2
        [fault] = await strike(world, "pause-database", "postgres", 0.3)
        assert fault.detail.startswith("SIGSTOP to ")


class RoomyDisk:
    """One that somebody else keeps making room on."""

    free = 2 << 20

    def fill(self) -> int:
        return 0

    def relieve(self) -> None:
        pass


async def test_a_server_runs_again_also_when_the_fault_did_not_happen_or_went_wrong(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die_slowly(server: EmbeddedPostgres) -> None:
        server.kill()
        raise TimeoutError("it takes too long")

    monkeypatch.setattr(EmbeddedPostgres, "stop_at_once", die_slowly)
    roomy: Any = RoomyDisk()
    async with opened(folder) as world:
        nats, postgres = world.site.nats["nats-1"], world.site.postgres
        before = nats.pid, postgres.pid
        world.site.disks["nats-1"] = roomy
        with pytest.raises(Missed, match="2,097,152 bytes were still free on the disk of nats-1"):
            await strike(world, "disk-full", "nats-1")
        with pytest.raises(TimeoutError):
            await strike(world, "database-restart", "postgres")
        assert (nats.running, postgres.running) == (True, True)
        assert not {nats.pid, postgres.pid} & set(before)


async def test_a_cluster_outlives_a_server_and_its_servers_meet_over_wires(folder: Path) -> None:
    async with opened(folder, brokers=3) as world:
        assert (await world.client.broker.jetstream.stream_info(COMMANDS)).config.num_replicas == 3
        assert world.site.wires["nats-1>nats-2"].connections + world.site.wires["nats-2>nats-1"].connections > 0
        await strike(world, "kill-broker", "nats-2")
        assert all(server.running for server in world.site.nats.values())

        async def is_stored() -> bool:
            with suppress(Error, TimeoutError):  # the leader of the stream may have been the one
                await world.client.broker.jetstream.publish("saga.cmd.order.x", b"while one is dead", timeout=1.0)
                return True
            return False

        await asyncio.to_thread(world.site.nats["nats-2"].kill)
        await eventually(is_stored, "the two that are left store a message")
        await world.site.start("nats-2")


async def test_two_faults_do_not_hit_one_victim_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.faults.world.PATIENCE", 0.05)
    nobody: Any = None
    world = World(nobody, nobody, nobody, 0.0)
    async with world.hold("order-1", "nats-1"):
        with pytest.raises(Missed, match="nats-1 is being hit by another fault"):
            async with world.hold("nats-1"):
                pass
    async with world.hold("nats-1"):
        pass


def test_a_disk_is_full_and_has_room_again_or_says_that_nobody_may_mount_here(tmp_path: Path) -> None:
    """Where nobody may mount, a scenario with such a disk fails with a sentence; it never passes in silence."""
    disk = Disk(tmp_path / "disk", 32 << 20)
    if not may_mount(tmp_path):
        with pytest.raises(ChaosFailed, match="a disk that fills needs"):
            disk.__enter__()
        return
    with disk:
        (disk.folder / "before").write_bytes(b"x" * 100_000)
        assert disk.fill() > 1 << 20
        with pytest.raises(OSError, match="No space left"):
            (disk.folder / "after").write_bytes(b"x" * 100_000)
        disk.relieve()
        (disk.folder / "after").write_bytes(b"x" * 100_000)
    assert not (tmp_path / "disk.img").exists()


def may_mount(tmp_path: Path) -> bool:
    (tmp_path / "trial").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(tmp_path / "trial")]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        return False
    subprocess.run(["umount", str(tmp_path / "trial")], check=True)
    return True


def test_a_log_that_has_grown_too_long_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.site.LARGEST_LOG", 10)
    log = tmp_path / "x.log"
    cut_short(log)
    log.write_text("short")
    cut_short(log)
    assert log.read_text() == "short"
    log.write_text("a long log")
    log.write_text("a longer log")
    cut_short(log)
    assert (log.read_text(), (tmp_path / "x.log.old").read_text()) == ("", "a longer log")


def test_whoever_is_killed_leaves_nothing_behind_not_even_what_stands_still(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    script = (
        "import os, subprocess, sys, time, signal; from pathlib import Path; from chaos.guard import guarded\n"
        "with guarded(Path(sys.argv[1])):\n"
        "    child = subprocess.Popen(['sleep', '1000'], cwd=sys.argv[1], start_new_session=True)\n"
        "    child.send_signal(signal.SIGSTOP)\n"
        "    print('ready', flush=True); time.sleep(1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        [child] = living_in(folder)
        assert child.status() == psutil.STATUS_STOPPED
        process.kill()
    assert psutil.wait_procs([child], 10)[1] == []
    deadline = time.monotonic() + 10
    while folder.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_only_scenarios_that_fill_a_disk_ask_for_one() -> None:
    needy = {name for name, one in SCENARIOS.items() if one.small_disks}
    assert needy == {"broker-disk-full", "database-disk-full"}
