"""Orders, to one saga or to all that a filter lets pass: at a rate, and no further when too many fail.

An order is an event like any other: the machine decides what it means to each saga, and the log says who gave it and
why. Sagas are taken a page at a time, and few of them in a transaction, so that neither memory nor locks grow with
their number. A saga is looked at again when it is locked: one that has moved on since it was found (it has ended, or is
stuck for another reason) is passed over, for it is not the one that was meant.

How it dies: what was committed is done, the rest is untouched. Given again, the order finds those that are left.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from orchestrator.door import BadInput
from orchestrator.engine import Engine, NotLoaded, UnknownSaga
from orchestrator.events import Event
from orchestrator.machine import Decision
from orchestrator.model import Saga
from orchestrator.queries import Filter, Queries
from orchestrator.store import LostRace, Stored, incident_of
from outbox.errors import MessageTooLarge, OutOfReach, SchemaMissing

PAGE: Final = 500
MOST_AT_ONCE: Final = 100
"""Sagas in one transaction."""

LOOKS_A_SECOND: Final = 10
"""Transactions in a second, where the rate allows more sagas than that."""

RACES: Final = 5
"""How often one may be lost before it is called a failure."""

ANY: Final = Filter()

Kind = Literal["done", "refused", "moved-on"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to happen to sagas. `unless` says of a saga, as it is now, why that is not what was meant."""

    event: Event
    unless: Callable[[Saga], str | None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a wish, or would come of it, for one saga. `why` nothing happened, unless it is `done`."""

    saga_id: str
    kind: Kind
    decision: Decision | None = None
    why: str | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How fast, in sagas a second, and after how many that were refused to stop. None: no such limit."""

    rate: float | None = 50.0
    max_failures: int | None = None

    @property
    def at_once(self) -> int:
        """How many sagas share a transaction."""
        return MOST_AT_ONCE if self.rate is None else max(1, min(MOST_AT_ONCE, int(self.rate / LOOKS_A_SECOND)))


async def carry_out(
    engine: Engine, saga_ids: Sequence[str], wish: Wish, *, among: Filter = ANY, max_failures: int | None = None
) -> list[Outcome]:
    """Let it happen to these sagas, in one transaction; those after the last failure that is allowed are untouched.

    A race that is lost is run again. One saga that cannot be handled holds nobody back (rule 9).
    """
    try:
        return await _carry_out_together(engine, saga_ids, wish, among, max_failures)
    except (OutOfReach, SchemaMissing):
        raise
    except Exception as error:
        if len(saga_ids) == 1:
            return [Outcome(saga_ids[0], "refused", why=_in_words(error), error=error)]
    outcomes: list[Outcome] = []
    for saga_id in saga_ids:
        if max_failures is not None and _failures(outcomes) >= max_failures:
            break
        outcomes += await carry_out(engine, [saga_id], wish, among=among)
    return outcomes


async def foresee(engine: Engine, saga_ids: Sequence[str], wish: Wish, *, among: Filter = ANY) -> list[Outcome]:
    """What `carry_out` would do, without doing it."""
    async with engine.outbox.database.reading() as connection:
        stored = await engine.store.read(connection, saga_ids)
    return list(_considered(engine, stored, saga_ids, wish, among, engine.outbox.clock.now()))


class Bulk:
    """One wish for all the sagas that a filter lets pass."""

    def __init__(self, engine: Engine, queries: Queries, wish: Wish, among: Filter, limits: Limits) -> None:
        self.tally: Counter[Kind] = Counter()
        self._engine = engine
        self._queries = queries
        self._wish = wish
        self._among = among
        self._limits = limits
        self._pace = _Pace(limits.rate)

    @property
    def was_stopped(self) -> bool:
        """Whether as many have failed as may."""
        most = self._limits.max_failures
        return most is not None and self.tally["refused"] >= most

    async def carry_out(self) -> AsyncGenerator[list[Outcome], None]:
        """Let it happen. What came of it, as soon as it is committed."""
        async for batch in self._batches(self._limits.at_once):
            await self._pace.take(len(batch))
            most = self._limits.max_failures
            left = None if most is None else most - self.tally["refused"]
            outcomes = await carry_out(self._engine, batch, self._wish, among=self._among, max_failures=left)
            self.tally.update(one.kind for one in outcomes)
            yield outcomes
            if self.was_stopped:
                return

    async def foresee(self) -> AsyncGenerator[list[Outcome], None]:
        """What would come of it. There is no need to go slowly, or to stop."""
        async for batch in self._batches(PAGE):
            outcomes = await foresee(self._engine, batch, self._wish, among=self._among)
            self.tally.update(one.kind for one in outcomes)
            yield outcomes

    async def _batches(self, size: int) -> AsyncGenerator[list[str], None]:
        after = ""
        while page := await self._queries.ids(self._among, after=after, limit=PAGE):
            for start in range(0, len(page), size):
                yield page[start : start + size]
            after = page[-1]


class _Pace:
    """Lets so many a second pass, evenly."""

    def __init__(self, rate: float | None) -> None:
        self._spacing = 0.0 if rate is None else 1 / rate
        self._next = 0.0

    async def take(self, count: int) -> None:
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, self._next - now))
        self._next = max(now, self._next) + count * self._spacing


async def _carry_out_together(
    engine: Engine, saga_ids: Sequence[str], wish: Wish, among: Filter, max_failures: int | None
) -> list[Outcome]:
    for _ in range(RACES):
        with suppress(LostRace):
            return await _carry_out_once(engine, saga_ids, wish, among, max_failures)
    return await _carry_out_once(engine, saga_ids, wish, among, max_failures)


async def _carry_out_once(
    engine: Engine, saga_ids: Sequence[str], wish: Wish, among: Filter, max_failures: int | None
) -> list[Outcome]:
    async with engine.outbox.unit_of_work() as unit:
        stored = await engine.store.lock(unit.connection, saga_ids)
        considered = _considered(engine, stored, saga_ids, wish, among, unit.now)
        outcomes = list(_until_too_many_fail(considered, max_failures))
        willing = [one.saga_id for one in outcomes if one.kind == "done"]
        engine.apply(unit, stored, [(saga_id, wish.event, None) for saga_id in willing])
    return outcomes


def _considered(
    engine: Engine, stored: dict[str, Stored], saga_ids: Iterable[str], wish: Wish, among: Filter, now: datetime
) -> Iterator[Outcome]:
    return (_consider(engine, stored.get(saga_id), saga_id, wish, among, now) for saga_id in saga_ids)


def _consider(engine: Engine, one: Stored | None, saga_id: str, wish: Wish, among: Filter, now: datetime) -> Outcome:
    if one is not None and not _is_among(one.saga, among):
        return Outcome(saga_id, "moved-on", why=f"it has moved on: it is {one.saga.status}")
    if one is not None and (why := wish.unless(one.saga)) is not None:
        return Outcome(saga_id, "refused", why=why)
    try:
        decision = engine.consider(one, saga_id, wish.event, now)
    except (UnknownSaga, NotLoaded, BadInput) as error:
        return Outcome(saga_id, "refused", why=str(error), error=error)
    if decision.ignored is not None:
        return Outcome(saga_id, "refused", why=decision.ignored)
    return Outcome(saga_id, "done", decision)


def _is_among(saga: Saga, among: Filter) -> bool:
    """Whether a filter still lets a saga pass: only its status and what it is stuck for can have changed."""
    if among.statuses and saga.status not in among.statuses:
        return False
    return among.incident is None or incident_of(saga) == among.incident


def _until_too_many_fail(outcomes: Iterator[Outcome], most: int | None) -> Iterator[Outcome]:
    failed = 0
    for one in outcomes:
        yield one
        failed += one.kind == "refused"
        if failed == most:
            return


def _failures(outcomes: Iterable[Outcome]) -> int:
    return sum(one.kind == "refused" for one in outcomes)


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, MessageTooLarge | LostRace) else f"{type(error).__name__}: {error}"
