"""`/healthz` and `/readyz` over HTTP, for whoever restarts processes and whoever sends them work.

- `/healthz`: 200 while the event loop turns and every pump and loop lives. Anything else is a reason to restart.
- `/readyz`: 200 while each role in this process does its work, 503 with what it lacks, in sentences. A database or a
  broker that is away is no reason to restart: the role waits for it.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from typing import Any, Final

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from outbox.service import Service

log = structlog.get_logger()

OK: Final = 200
UNAVAILABLE: Final = 503


class BadAddress(Exception):
    """Nothing can listen there."""


class _Server(uvicorn.Server):
    """Leaves the signals of the process alone: they are for the services."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


def app_of(services: Sequence[Service]) -> Starlette:
    """The application. A web interface of the same process would stand beside these routes."""

    async def healthz(_request: Request) -> JSONResponse:
        problems = [f"{one.role}: {problem}" for one in services for problem in one.ailments]
        return JSONResponse({"alive": not problems, "problems": problems}, UNAVAILABLE if problems else OK)

    async def readyz(_request: Request) -> JSONResponse:
        found = await asyncio.gather(*(one.readiness() for one in services))
        is_ready = all(one.is_ready for one in found)
        roles = [asdict(one) | {"ready": one.is_ready} for one in found]
        return JSONResponse({"ready": is_ready, "roles": roles}, OK if is_ready else UNAVAILABLE)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz)])


@asynccontextmanager
async def serving_health(address: str, services: Sequence[Service]) -> AsyncIterator[str | None]:
    """Answer at this address while the block runs; nowhere when it is empty. Gives the URL. Raises BadAddress."""
    if not address:
        yield None
        return
    listening = _listen(address)
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    options: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False}
    config = uvicorn.Config(app_of(services), http="h11", ws="none", lifespan="off", **options)
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    log.info("health is told", healthz=f"{url}/healthz", readyz=f"{url}/readyz")
    try:
        yield url
    finally:
        server.should_exit = True
        await serving
        listening.close()


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        wanted = (host.strip("[]") or "127.0.0.1", int(port))
        kind = socket.AF_INET6 if ":" in wanted[0] else socket.AF_INET
        return socket.create_server(wanted, family=kind)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadAddress(f"SAGA_HEALTH_ADDRESS={address!r}: nobody can listen there: {reason}") from error
