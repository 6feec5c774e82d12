"""One process of the roof: `python -m benchmarks.roof.worker ROLE STEPS STYLE`.

It says when it is ready, and obeys its stdin.

The URLs come in the environment, not as arguments that everybody on the machine can read.
"""

import asyncio
import os
import sys
import time
from contextlib import suppress

import asyncpg
import orjson

from benchmarks.roof.orchestrator import Orchestrator
from benchmarks.roof.participant import Participant
from benchmarks.roof.schema import CONNECTION_SETTINGS
from benchmarks.roof.styles import STYLES, Style
from benchmarks.roof.wire import DATABASE_VARIABLE, NATS_VARIABLE, connect


async def _main(role: str, steps: int, style: Style) -> None:
    connection = await asyncpg.connect(os.environ[DATABASE_VARIABLE], server_settings=CONNECTION_SETTINGS)
    client = await connect(os.environ[NATS_VARIABLE])
    try:
        if role == "orchestrator":
            await _orchestrate(Orchestrator(steps, connection, client.jetstream(), style))
        else:
            await _take_part(Participant(role, connection, client.jetstream(), style))
    finally:
        await client.close()
        await connection.close()


async def _orchestrate(orchestrator: Orchestrator) -> None:
    """A line asks for a run; the answer is a line with the seconds that the run and each of its sagas took."""
    await orchestrator.start()
    _say("ready")
    while line := await _line():
        began = time.perf_counter()
        durations = await orchestrator.run(**orjson.loads(line))
        _say({"seconds": time.perf_counter() - began, "durations": durations})
    await orchestrator.stop()


async def _take_part(participant: Participant) -> None:
    """Work until stdin is closed."""
    await participant.start()
    _say("ready")
    work = asyncio.create_task(participant.run())
    end = asyncio.create_task(_line())
    await asyncio.wait([work, end], return_when=asyncio.FIRST_COMPLETED)
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work
    await participant.stop()


async def _line() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


def _say(answer: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), STYLES[sys.argv[3]]()))
