"""What `saga start` does with its inputs: one after the other, in bounded memory, and never faster than sagas end.

Whatever stops it, a person is told how far it came: what was accepted goes on by itself, the rest was not touched.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import IO, Any, Final

from orchestrator.cli.console import day, out, print_json, progress, say
from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.follow import follow_sagas, wait_for
from orchestrator.cli.intake import Input, Reader
from orchestrator.cli.pace import Pace, why_nothing_ends
from orchestrator.composition import Client
from orchestrator.definition import Saga
from orchestrator.door import BadInput, IfTaken, StartRequest, StartResult
from orchestrator.durations import in_words
from orchestrator.window import Window

IN_FLIGHT: Final = 2000
"""Sagas of a file that are at work at a time: enough for the machine to be busy, few enough to be answered in time."""

AT_ONCE: Final = 500
IN_HAND: Final = 20 * AT_ONCE
"""Sagas that `--wait` waits for at a time: intake pauses until some of them have ended, so memory is bounded."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to start, and what to do then."""

    definition: str
    key: str | None
    key_field: str | None
    wait: bool
    follow: bool
    patience: float
    json: bool
    if_taken: IfTaken = "return"
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int | None = None
    at: datetime | timedelta | None = None
    in_flight: int = IN_FLIGHT


@dataclass(slots=True)
class Tally:
    """What became of the inputs so far. `line` is where the last of them stood."""

    outcomes: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    first: StartResult | None = None
    line: int = 0
    timed_out: bool = False

    @property
    def inputs(self) -> int:
        """How many inputs there were."""
        return self.outcomes.total()

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {name}" for name, count in sorted((self.outcomes | self.statuses).items()))

    def exit(self) -> Exit:
        """The worst of what happened."""
        if self.outcomes["bad"]:
            return Exit.ERROR
        if self.outcomes["conflict"]:
            return Exit.CONFLICT
        if self.timed_out:
            return Exit.TIMED_OUT
        if self.statuses["stuck"]:
            return Exit.STUCK
        return Exit.COMPENSATED if self.statuses["compensated"] else Exit.OK


class Starting:
    """One run of `saga start`."""

    def __init__(self, client: Client, options: Options, size: int | None) -> None:
        self.tally = Tally()
        self._client = client
        self._options = options
        self._definition = client.definitions[options.definition]
        self._deadline = asyncio.get_running_loop().time() + options.patience
        self._bar, self._task = progress(f"starting {options.definition}", size)
        self._pace = self._paced()
        self._many = False
        self._at_end = False
        self._waiting: set[str] = set()
        self._explained = ""

    async def run(self, stream: IO[bytes]) -> None:
        """Start what the stream holds, wait if that is wished, and say what came of it."""
        try:
            with ExitStack() as stack:
                await self._take_all(stream, stack)
                await self._wait_for_the_end()
        except BaseException:  # Ctrl-C too, a database that went away, or nobody who reads our output
            self._say_how_far_it_came()
            raise
        await self._conclude()

    # --- the inputs ------------------------------------------------------------------------------------------------

    async def _take_all(self, stream: IO[bytes], stack: ExitStack) -> None:
        reader = Reader(stream)
        stack.callback(reader.close)
        while batch := await asyncio.to_thread(reader.take, 1 if self._many else 2, AT_ONCE):
            if not self._many and len(batch) > 1:
                self._many = True
                stack.enter_context(self._bar)
            if self._many and (self._options.key is not None or self._options.follow):
                raise Failure("--key and --follow are for one input; for many: --key-field, saga log -f", Exit.USAGE)
            if not await self._begin_all(batch):
                self.tally.timed_out = True
                return
        self._at_end = True

    async def _begin_all(self, batch: Sequence[Input]) -> bool:
        """Let a batch begin as there is room for it. False: there was none for too long."""
        while batch:
            places = await self._pace.places(len(batch)) if self._pace and self._many else len(batch)
            if not places:
                return False
            await _to_its_end(self._begin(batch[:places]))
            batch = batch[places:]
            if len(self._waiting) > IN_HAND and not self.tally.timed_out:
                await self._wait(IN_HAND // 2, tell=self._options.json)
        return True

    async def _begin(self, batch: Sequence[Input]) -> None:
        results = await self._start(batch)
        tally = self.tally
        tally.outcomes.update("bad" if isinstance(one, str) else one.outcome for one in results)
        tally.first = tally.first or next((one for one in results if isinstance(one, StartResult)), None)
        tally.line = batch[-1].line
        self._bar.update(self._task, advance=sum(one.size for one in batch), count=f"{tally.inputs:,}")
        if self._options.wait and not tally.timed_out:
            self._waiting |= {r.saga_id for r in results if isinstance(r, StartResult) and r.outcome != "conflict"}
        _report(batch, results, self._options, self._many)

    async def _start(self, batch: Sequence[Input]) -> list[StartResult | str]:
        """A result, or what is wrong with the input, for each of the batch."""
        prepared = [_prepare(self._client, self._options, one) for one in batch]
        requests = [one for one in prepared if isinstance(one, StartRequest)]
        results = iter(await self._client.engine.start(requests) if requests else ())
        return [one if isinstance(one, str) else next(results) for one in prepared]

    # --- waiting -----------------------------------------------------------------------------------------------------

    def _paced(self) -> Pace | None:
        """None when nothing is held back here: those that wait to begin are let begin one by one by others."""
        options, definition = self._options, self._definition
        if not options.in_flight or definition.is_limited or options.at is not None:
            return None
        window = Window(self._client.database, self._client.engine.outbox.clock, definition, options.in_flight)
        return Pace(window, options.patience if options.wait else None, self._explain)

    async def _explain(self) -> None:
        """Say why nothing begins; again only when it is for another reason."""
        reason = await why_nothing_ends(self._client, self._definition)
        at_work = f"{self._options.in_flight:,} of {self._options.definition} are at work"
        why = f"{at_work}, and {reason}" if reason else at_work
        if why != self._explained:
            told = f"{why}: the rest, from line {self.tally.line + 1}, waits until some have ended"
            self._bar.console.print(told, markup=False)
        self._bar.update(self._task, count=f"{self.tally.inputs:,}, waiting: {reason or at_work}")
        self._explained = why

    async def _wait_for_the_end(self) -> None:
        options, tally = self._options, self.tally
        if options.follow and self._waiting:
            saga_id = next(iter(self._waiting))
            ended = await follow_sagas(self._client.queries, saga_id, self._deadline, options.json)
            tally.timed_out |= not ended
        if self._waiting:
            await self._wait(0, tell=options.json and self._many)

    async def _wait(self, until: int, *, tell: bool) -> None:
        ended, timed_out = await wait_for(self._client.queries, self._waiting, self._deadline, until)
        self.tally.statuses.update(ended.values())
        self.tally.timed_out |= timed_out
        if tell:
            for saga_id, status in ended.items():
                print_json({"saga_id": saga_id, "status": status})

    # --- what came of it ---------------------------------------------------------------------------------------------

    def _say_how_far_it_came(self) -> None:
        if self._many and self.tally.inputs:
            where = "while waiting" if self._at_end else f"before line {self.tally.line + 1}"
            say(f"stopped {where}: {self.tally}; what was started goes on")

    async def _conclude(self) -> None:
        options, tally = self._options, self.tally
        if tally.outcomes["started"] and (wait := _why_it_waits(self._definition, options)):
            say(f"{'they begin when they may' if self._many else 'it begins when it may'}: {wait}")
        if self._many:
            say(str(tally))
        elif tally.first is not None:
            await self._show(tally.first)
        if tally.timed_out:
            rest = "" if self._at_end else f"; line {tally.line + 1} and what follows was not started"
            say(f"the wait timed out after {options.patience:g} s; the sagas go on: see `saga ls`{rest}")

    async def _show(self, one: StartResult) -> None:
        view = await self._client.queries.get(one.saga_id, datetime.now(UTC))
        if self._options.json:
            print_json(asdict(one) | {"status": view.summary.status, "reason": view.summary.reason})
        elif self.tally.statuses:
            say(f"{view.summary.status}: {view.summary.reason}" if view.summary.reason else view.summary.status)


async def _to_its_end(work: Any) -> None:
    """Ctrl-C waits until it is known what became of the batch in hand; a second one does not."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


def _prepare(client: Client, options: Options, one: Input) -> StartRequest | str:
    if one.data is None:
        return one.problem or "empty"
    key = options.key
    if options.key_field is not None:
        key = one.data.get(options.key_field)
        if not isinstance(key, str) or not key:
            return f"{options.key_field}: is to be the key, so it must be a text that is not empty"
    try:
        return client.engine.request(
            options.definition,
            one.data,
            key,
            if_taken=options.if_taken,
            labels=options.labels,
            priority=options.priority,
            begins_at=options.at if isinstance(options.at, datetime) else None,
        )
    except BadInput as error:
        return str(error)


def _report(batch: Sequence[Input], results: Sequence[StartResult | str], options: Options, many: bool) -> None:
    for one, result in zip(batch, results, strict=True):
        if isinstance(result, str):
            say(f"line {one.line}: {result}" if many or one.line > 1 else f"the input is refused: {result}")
        elif result.outcome == "conflict":
            where = f"line {one.line}: " if many else ""
            other = "" if options.if_taken == "reject" else ", which has another input"
            say(f"{where}the key is taken by saga {result.saga_id}{other}")
        if options.json and many:
            body = {"problem": result} if isinstance(result, str) else asdict(result)
            print_json({"line": one.line} | body)
    taken = [one.saga_id for one in results if isinstance(one, StartResult) and one.outcome != "conflict"]
    if taken and not options.json and not (many and sys.stdout.isatty()):  # a million ids are for a pipe
        out().print("\n".join(taken), markup=False, soft_wrap=True)


def _why_it_waits(definition: Saga[Any], options: Options) -> str:
    """Why a saga may not begin at once; empty when it does."""
    reasons = []
    if isinstance(options.at, datetime):
        reasons.append(f"not before {day(options.at)}")
    if definition.max_in_flight is not None:
        reasons.append(f"at most {definition.max_in_flight:,} of {definition.name} are in flight")
    if definition.rate is not None:
        rate = f"{definition.rate.count:,} in {in_words(definition.rate.per)}"
        reasons.append(f"at most {rate} of {definition.name} begin")
    return ", and ".join(reasons)
