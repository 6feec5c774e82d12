"""Sagas on Restate: its server, one process that serves the saga to it, and this one, which calls it over HTTP.

How it was tuned is in README.md in this folder. These variables of the environment try something else:

PEER_ASGI        granian (as delivered) or hypercorn, which Restate's documentation uses
PEER_LOG         local (as delivered) or replicated: how the server keeps its log of commands
PEER_PARTITIONS  1 (as delivered); the server's own default is 24
PEER_SERVICES    processes that serve the saga: 1 (as delivered)
"""

import dataclasses
import importlib.metadata
import json
import os
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import uvloop
from server import Restate, asgi_server, register, restate_server, version

from benchmarks.peers import load

ASGI: Final = os.environ.get("PEER_ASGI", "granian")
LOG: Final = os.environ.get("PEER_LOG", "local")
PARTITIONS: Final = int(os.environ.get("PEER_PARTITIONS", "1"))
SERVICES: Final = int(os.environ.get("PEER_SERVICES", "1"))


def main() -> None:
    """Start everything, run the load, report, and end everything."""
    options = load.Options.parse()
    folder = load.folder() / "restate"
    steps_on = {"PEER_STEPS_ON": json.dumps(None if options.empty else dict(load.urls()))}
    with (
        asgi_server(folder, ASGI, SERVICES, steps_on) as (service, processes),  # ended last: its streams must be closed
        restate_server(folder, partitions=PARTITIONS, log=LOG) as restate,
    ):
        register(restate, service)
        figures = uvloop.run(_measure(options, restate, [restate.pid, *processes]))
    load.report(
        options,
        [figures],
        system="restate",
        version=f"server {version()}, SDK {importlib.metadata.version('restate-sdk')}",
        settings=_settings(),
        warm_up=load.warm_up_of(options),
    )


async def _measure(options: load.Options, restate: Restate, helpers: Sequence[int]) -> load.Figures:
    connections = aiohttp.TCPConnector(limit=0)
    patience = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connections, timeout=patience) as http:

        async def run(name: str) -> None:
            order = {"saga_id": name, "steps": options.steps}
            once = {"idempotency-key": name}
            async with http.post(f"{restate.ingress}/Saga/run", json=order, headers=once) as response:
                response.raise_for_status()
                await response.read()

        warming = dataclasses.replace(options, sagas=load.warm_up_of(options), rate=None)
        await load.Share.of(warming, 0, 1).measure(lambda number: run(f"warm-up-{number}"))
        load.say("warm")
        return await load.Share.of(options, 0, 1).measure(lambda number: run(f"saga-{number}"), helpers=helpers)


def _settings() -> dict[str, Any]:
    return {
        "ASGI server": f"{ASGI} {importlib.metadata.version(ASGI)}",
        "processes that serve the saga": SERVICES,
        "partitions": PARTITIONS,
        "log": LOG,
        "started with": "an idempotency key, over HTTP/1.1",
    }


if __name__ == "__main__":
    main()
