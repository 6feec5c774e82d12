"""Waiting for sagas, and following the event log live."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

from rich.text import Text

from orchestrator.cli.console import STYLES, out, print_json, time_of_day
from orchestrator.entries import ENTRIES
from orchestrator.queries import OVERLAP, LogLine, Queries

EVERY: Final = 0.05
FIRST_ROWS: Final = 20
ENDED: Final = frozenset({"completed", "compensated", "stuck"})
"""What a wait ends with: the saga has ended, or a person must act."""


async def wait_for(queries: Queries, waiting: set[str], deadline: float, until: int) -> tuple[dict[str, str], bool]:
    """Wait until at most `until` of the sagas are under way, and take the others out of `waiting`.

    Returns the statuses of those that have ended, and whether `deadline` (loop time) has passed.
    """
    ended: dict[str, str] = {}
    pause = EVERY
    while len(waiting) > until:
        for saga_id, status in (await queries.statuses(sorted(waiting))).items():
            if status in ENDED:
                ended[saga_id] = status
                waiting.discard(saga_id)
        if len(waiting) <= until:
            break
        if asyncio.get_running_loop().time() > deadline:
            return ended, True
        await asyncio.sleep(pause)
        pause = min(0.5, pause * 1.2)
    return ended, False


class Tail:
    """The log as it grows.

    A position is given before its row is committed, so a row may become visible after a later one. The last few seconds
    are therefore read again and again, and what was already told is passed over.
    """

    def __init__(self, queries: Queries, saga_id: str | None) -> None:
        self._queries = queries
        self._saga_id = saga_id
        self._settled: int | None = None
        self._told: dict[int, datetime] = {}

    async def more(self) -> list[LogLine]:
        """What has become visible since the last call; at the first call, the last few rows."""
        if self._settled is None:
            self._settled = max(0, await self._queries.last_position() - FIRST_ROWS)
        new: list[LogLine] = []
        after = self._settled
        while lines := await self._queries.log(self._saga_id, after=after):
            new.extend(line for line in lines if line.position not in self._told)
            after = lines[-1].position
        self._told.update((line.position, line.at) for line in new)
        self._settle()
        return new

    def _settle(self) -> None:
        newest = max(self._told.values(), default=None)
        settled = [position for position, at in self._told.items() if newest is not None and at < newest - OVERLAP]
        for position in settled:
            del self._told[position]
        self._settled = max([self._settled or 0, *settled])


async def follow_log(queries: Queries, saga_id: str | None) -> AsyncIterator[LogLine]:
    """The last few rows of the log, and whatever comes, for ever."""
    tail = Tail(queries, saga_id)
    while True:
        for line in await tail.more():
            yield line
        await asyncio.sleep(EVERY * 2)


async def follow_sagas(queries: Queries, saga_id: str, deadline: float, json: bool) -> bool:
    """Print one saga's log until it has ended. Returns False when `deadline` (loop time) passes first."""
    printed = 0
    while True:
        status = (await queries.statuses([saga_id])).get(saga_id, "")
        for line in await queries.log(saga_id, after=printed):
            print_line(line, json)
            printed = line.position
        if status in ENDED:
            return True
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(EVERY)


def print_line(line: LogLine, json: bool) -> None:
    """One entry of the event log."""
    if json:
        print_json(line.to_json())
        return
    body = ENTRIES.dump_python([line.entry], mode="json")[0]
    kind, step = body.pop("kind"), body.pop("step", "")
    text = Text.assemble(
        (time_of_day(line.at), "dim"), "  ", line.saga_id, "  ", (f"{kind:<21}", STYLES.get(kind, "")), f"{step:<20}"
    )
    text.append(_details(kind, body), "dim")
    text.rstrip()
    out().print(text)


def _details(kind: str, body: dict[str, Any]) -> str:
    match kind:
        case "started":
            return _started(body)
        case "asked" | "undo-asked":
            again = f"attempt {body['attempt']}" if body["attempt"] > 1 else ""
            return f"{again} round {body['round']}".strip() if body["round"] > 1 else again
        case "expanded":
            return f"{len(body['instances'])} instances"
        case "signal-received":
            no = f"no: {body['data'].get('reason', 'no reason was given')}"
            return f"{no if body['outcome'] == 'refused' else 'yes'} (by {body['by']})"
        case _ if "reason" in body:
            code = f"{body['code']}: " if body.get("code") else ""
            by = f" (by {body['by']})" if body.get("by") else ""
            return f"{code}{body['reason']}{by}"
        case _:
            return ""


def _started(body: dict[str, Any]) -> str:
    waits = ", waits to begin" if body.get("waits") else ""
    fork = f", fork of {body['fork_of']}" if body.get("fork_of") else ""
    ordered = f" (by {body['by']}: {body['reason']})" if body.get("by") else ""
    return f"{body['definition']} v{body['version']}{waits}{fork}{ordered}"
