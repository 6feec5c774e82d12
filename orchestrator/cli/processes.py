"""A process for every role, started like `saga run ROLE`, for commands that put a whole system on its feet.

Two of them do: the demo, where one role is late and another is killed, and the benchmark, where the work of each role
is measured by itself.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from nats.js import JetStreamContext

from orchestrator.cli.exits import Failure
from orchestrator.composition import inlet_of
from orchestrator.embedded import die_with_parent
from orchestrator.settings import Settings
from outbox.topology import is_fetching
from outbox.within import within

STOP_SECONDS: Final = 10.0

T = TypeVar("T")


class RoleProcesses:
    """Processes of ours, by name. A replica is called after its role, with a number: `orchestrator-2`.

    Each writes a log of its own in the data folder, and ends when we do.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: dict[str, asyncio.subprocess.Process] = {}

    @property
    def pids(self) -> dict[str, int]:
        """Name -> process id, of those that were started and not stopped."""
        return {name: process.pid for name, process in self._running.items()}

    async def start(self, name: str, **environment: str) -> None:
        """Start one. `environment` is added to ours."""
        folder = self._settings.data_dir
        command = (sys.executable, "-m", "orchestrator.cli", "run", role_of(name), "--data-dir", str(folder))
        with (folder / f"{name}.log").open("ab") as log:
            self._running[name] = await asyncio.create_subprocess_exec(
                *die_with_parent(),
                *command,
                env=os.environ | {"SAGA_NATS_URL": self._settings.nats_url} | environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def wait_until_ready(self, stream: JetStreamContext, *names: str) -> None:
        """Wait until the processes fetch messages: the broker knows. Raises Failure when one of them has ended."""
        for role, replicas in Counter(map(role_of, names)).items():
            while not await is_fetching(stream, inlet_of(self._settings, role), replicas):
                self.check(*names)
                await asyncio.sleep(0.05)

    def check(self, *names: str) -> None:
        """Raise Failure when one of these processes, or of all of them, has ended by itself."""
        for name in names or self._running:
            if self._running[name].returncode is not None:
                raise Failure(f"the {name} service has ended: see {self._settings.data_dir}/{name}.log")

    async def attend(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something for which all of them must run. Raises Failure as soon as one of them has ended."""
        working = asyncio.ensure_future(work)
        ending = [asyncio.ensure_future(process.wait()) for process in self._running.values()]
        try:
            await asyncio.wait([working, *ending], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                self.check()
            return await working
        finally:
            for task in (working, *ending):
                task.cancel()
            await asyncio.gather(working, *ending, return_exceptions=True)

    async def stop(self, *names: str) -> None:
        """Ask the processes to finish, and wait for them."""
        processes = [process for name in names if (process := self._running.pop(name, None))]
        for process in processes:
            if process.returncode is None:
                process.terminate()
        for process in processes:
            await _end(process)

    async def stop_all(self) -> None:
        """Leave nothing running."""
        await self.stop(*list(self._running))

    async def killed(self, name: str, patience: float) -> int:
        """Wait for a process to die. Returns how it ended. Raises Failure when it lives on, and kills it."""
        process = self._running.pop(name)
        try:
            async with within(patience):
                return await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise Failure(f"the {name} should have been killed, and it lives") from None


def role_of(name: str) -> str:
    """The role of a process: `orchestrator-2` is an orchestrator."""
    return name.partition("-")[0]


async def _end(process: asyncio.subprocess.Process) -> None:
    try:
        async with within(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
