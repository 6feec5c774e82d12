"""Waiting for sagas, and following the event log live."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

from rich.text import Text

from orchestrator.cli.console import STYLES, moment, out, print_json
from orchestrator.model import ENTRIES
from orchestrator.queries import OVERLAP, LogLine, Queries

EVERY: Final = 0.05
ENDED: Final = frozenset({"completed", "compensated", "stuck"})
"""What a wait ends with: the saga has ended, or a person must act."""


async def wait_for(queries: Queries, waiting: set[str], deadline: float, until: int) -> tuple[Counter[str], bool]:
    """Wait until at most `until` of the sagas are under way, and take the others out of `waiting`.

    Returns how they ended, and whether `deadline` (loop time) has passed.
    """
    ended: Counter[str] = Counter()
    pause = EVERY
    while len(waiting) > until:
        for saga_id, status in (await queries.statuses(sorted(waiting))).items():
            if status in ENDED:
                ended[status] += 1
                waiting.discard(saga_id)
        if len(waiting) <= until:
            break
        if asyncio.get_running_loop().time() > deadline:
            return ended, True
        await asyncio.sleep(pause)
        pause = min(0.5, pause * 1.2)
    return ended, False


async def new_lines(queries: Queries, saga_id: str | None, seen: dict[int, datetime]) -> list[LogLine]:
    """What has become visible since the last call. `seen` holds the positions of the last few seconds.

    Looks again at the last seconds, because a position is given before it is committed.
    """
    since = max(seen.values(), default=datetime.now(UTC)) - OVERLAP
    lines = [line for line in await queries.log_since(since, saga_id) if line.position not in seen]
    seen.update((line.position, line.at) for line in lines)
    for position in [position for position, at in seen.items() if at < since]:
        del seen[position]
    return lines


async def follow_log(queries: Queries, saga_id: str | None) -> AsyncIterator[LogLine]:
    """The log from now on (with the last few seconds), for ever."""
    seen: dict[int, datetime] = {}
    while True:
        for line in await new_lines(queries, saga_id, seen):
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
        (moment(line.at), "dim"), "  ", line.saga_id, "  ", (f"{kind:<21}", STYLES.get(kind, "")), f"{step:<20}"
    )
    text.append(_details(kind, body), "dim")
    text.rstrip()
    out().print(text)


def _details(kind: str, body: dict[str, Any]) -> str:
    if kind == "started":
        return f"{body['definition']} v{body['version']}"
    if kind in ("asked", "undo-asked"):
        again = f"attempt {body['attempt']}" if body["attempt"] > 1 else ""
        return f"{again} round {body['round']}".strip() if body["round"] > 1 else again
    if "reason" in body:
        code = f"{body['code']}: " if body.get("code") else ""
        by = f" (by {body['by']})" if body.get("by") else ""
        return f"{code}{body['reason']}{by}"
    return ""
