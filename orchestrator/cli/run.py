"""`saga dev` and `saga run`: the processes that do the work."""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Final

import structlog
import typer

from orchestrator.cli import console
from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.options import DataDir, settings_of
from orchestrator.cli.schema import upgrade_all
from orchestrator.composition import build_service
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.health import serving_health
from orchestrator.logs import configure_logging
from orchestrator.settings import ROLES, Settings, remove_dev_file, running_dev, write_dev_file
from outbox.loops import forever
from outbox.service import Service

log = structlog.get_logger()

LOOK_AFTER_NATS_EVERY: Final = 1.0


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command("dev")(dev)
    app.command("run")(run)


def dev(data_dir: DataDir = None) -> None:
    """Run everything in the foreground until Ctrl-C: NATS, databases, orchestrator and the three services.

    Other commands in the same folder, or with the same --data-dir, find it by themselves.
    """
    settings = settings_of(data_dir)
    configure_logging(settings.log_level, settings.log_format)
    _make_folder(settings.data_dir)
    if (pid := running_dev(settings.data_dir)) is not None:
        raise Failure(f"saga dev is already running in {settings.data_dir} (process {pid}): use it, or stop it first")
    with EmbeddedNats(settings.data_dir / "nats") as nats:
        settings = settings.model_copy(update={"nats_url": nats.url, "stream_replicas": 1})
        write_dev_file(settings.data_dir, nats.url)
        try:
            asyncio.run(_dev(settings, nats))
        finally:
            remove_dev_file(settings.data_dir)
    console.say("stopped; nothing is left running")


async def _dev(settings: Settings, nats: EmbeddedNats) -> None:
    await upgrade_all(settings)
    looking = asyncio.create_task(_look_after(nats))
    try:
        services = [build_service(settings, role) for role in ROLES]
        async with serving_health(settings.health_address, services):
            await run_services(services, lambda: _say_ready(settings))
    finally:
        looking.cancel()


async def _look_after(nats: EmbeddedNats) -> None:
    """Start the embedded broker again when it has died."""

    async def look() -> float:
        if not nats.running:
            log.warning("the embedded nats-server has died; starting it again")
            nats.start()  # from this thread: the server dies with the thread that started it
        return LOOK_AFTER_NATS_EVERY

    await forever("look after NATS", look)


def _say_ready(settings: Settings) -> None:
    where = "" if settings.data_dir == Path(".amends") else f" --data-dir {settings.data_dir}"
    saga = console.command()
    console.say(f"ready: NATS at {settings.nats_url}, data in {settings.data_dir}/. Ctrl-C stops everything.")
    console.say(f"try, in another terminal:  {saga} ls{where}  ·  {saga} log -f{where}")


def run(
    roles: Annotated[list[str], typer.Argument(metavar="ROLE...", help=f"One or more of {', '.join(ROLES)}.")],
    data_dir: DataDir = None,
) -> None:
    """Run one role, or several in one process, against the configured URLs (see `saga config show`)."""
    unknown = [role for role in roles if role not in ROLES]
    if unknown:
        raise Failure(f"{unknown[0]!r} is no role: there is {', '.join(ROLES)}", Exit.USAGE)
    settings = settings_of(data_dir)
    configure_logging(settings.log_level, settings.log_format)
    asyncio.run(_run(settings, tuple(dict.fromkeys(roles))))


async def _run(settings: Settings, roles: Sequence[str]) -> None:
    services = [build_service(settings, role) for role in roles]
    async with serving_health(settings.health_address, services):
        await run_services(services)


async def run_services(services: Sequence[Service], on_ready: Callable[[], None] = lambda: None) -> None:
    """Until SIGINT or SIGTERM, and then to the end of the batch in hand. A second signal leaves at once."""
    loop = asyncio.get_running_loop()
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if stopping:
            os._exit(Exit.INTERRUPTED)
        stopping = True
        log.info("stopping: finishing what is in hand; once more leaves at once")
        for service in services:
            service.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    running = [asyncio.create_task(service.run()) for service in services]
    announcing = asyncio.create_task(_announce(services, on_ready))
    try:
        await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
        for service in services:
            service.stop()
        await asyncio.gather(*running)
    finally:
        announcing.cancel()


async def _announce(services: Sequence[Service], on_ready: Callable[[], None]) -> None:
    for service in services:
        await service.ready.wait()
    on_ready()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Failure(f"the data folder {folder} cannot be made, or not be written to: {error.strerror}") from error
