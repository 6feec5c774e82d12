"""The processes of a run: two of each role, each in a process of its own, that can be killed and are started again.

They are forked from one that has imported everything, so that a second after a kill the next one is at work. Whoever
ends without having been killed by us is a finding: a role does not end by itself.
"""

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chaos.errors import ChaosFailed, Missed
from chaos.names import PROCESSES
from chaos.site import Site, cut_short
from orchestrator.cli.processes import role_of
from orchestrator.embedded.forked import SAGA, Forked, ForkServer
from outbox.within import within

STOP_SECONDS: Final = 60.0
DEATH_SECONDS: Final = 60.0


@dataclass(slots=True)
class Running:
    """A process that was started."""

    command: Forked
    ended: asyncio.Future[int]
    is_expected_to_end: bool = False


@dataclass(slots=True)
class Fleet:
    """All of them, by name."""

    site: Site
    server: ForkServer
    running: dict[str, Running] = field(default_factory=dict)
    surprises: list[str] = field(default_factory=list)
    """Processes that have ended by themselves, and how."""

    def start(
        self,
        name: str,
        *,
        function: str = SAGA,
        arguments: tuple[str, ...] = (),
        extra: Mapping[str, str] | None = None,
    ) -> None:
        """Start one; it will be at work in a moment."""
        log = self.log_of(name)
        cut_short(log)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SAGA_")}
        environment |= self.site.environment(name) | dict(extra or {})
        with ExitStack() as files:
            nothing, said = files.enter_context(Path(os.devnull).open("rb")), files.enter_context(log.open("ab"))
            command = self.server.start(
                arguments or ("run", role_of(name)),
                self.site.folder,
                environment,
                (nothing, said, said),
                function=function,
            )
        loop = asyncio.get_running_loop()
        running = Running(command, loop.create_future())
        loop.add_reader(command.fileno(), self._ended, name, running)
        self.running[name] = running

    def log_of(self, name: str) -> Path:
        """Where a process writes what it has to say."""
        return self.site.folder / f"{name}.log"

    def pid(self, name: str) -> int:
        """Of the process that runs. Raises Missed when it does not."""
        running = self.running.get(name)
        if running is None or running.ended.done():
            raise Missed(f"{name} does not run")
        return running.command.pid

    async def kill(self, name: str) -> None:
        """SIGKILL, and wait for its death. Raises Missed when it was not ours that it died of: it runs again then.

        Raises ChaosFailed when it does not die; whenever it does, it is started again.
        """
        pid = self.pid(name)
        running = self.running[name]
        running.is_expected_to_end = True
        with suppress(ProcessLookupError):  # it has just died, and how is about to be told
            os.kill(pid, signal.SIGKILL)
        try:
            async with within(DEATH_SECONDS):
                code = await asyncio.shield(running.ended)
        except TimeoutError:
            running.is_expected_to_end = False
            raise ChaosFailed(f"{name} was not dead {DEATH_SECONDS:g} s after SIGKILL") from None
        if code != -signal.SIGKILL:
            self._surprised(name, code)
            raise Missed(f"{name} had ended with {code} before it was killed")

    async def stop_all(self) -> None:
        """SIGTERM to all; who has not finished in time is killed, and that is a finding."""
        for running in self.running.values():
            running.is_expected_to_end = True
            if not running.ended.done():
                with suppress(ProcessLookupError):
                    os.kill(running.command.pid, signal.SIGTERM)
        for name, running in self.running.items():
            try:
                async with within(STOP_SECONDS):
                    await asyncio.shield(running.ended)
            except TimeoutError:
                self.surprises.append(f"{name} had not left {STOP_SECONDS:g} s after SIGTERM, and was killed")
                with suppress(ProcessLookupError):
                    running.command.kill()

    def _ended(self, name: str, running: Running) -> None:
        asyncio.get_running_loop().remove_reader(running.command.fileno())
        try:
            code = running.command.wait(None)
        except ConnectionError:
            code = -signal.SIGKILL
        running.command.close()
        running.ended.set_result(code)
        if not running.is_expected_to_end:
            self._surprised(name, code)

    def _surprised(self, name: str, code: int) -> None:
        self.surprises.append(f"{name} has ended by itself with {code}: see {self.log_of(name).name}")
        self.start(name)


def start_all(fleet: Fleet) -> None:
    """Two of each role."""
    for name in PROCESSES:
        fleet.start(name)
