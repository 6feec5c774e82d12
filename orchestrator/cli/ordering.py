"""Carrying out an order: for one saga, or for all that a filter lets pass, after having shown how many those are."""

import sys
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from orchestrator import bulk
from orchestrator.bulk import Bulk, Limits, Outcome, Wish
from orchestrator.cli import console, outcome
from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.options import DataDir, Json, settings_of
from orchestrator.cli.publish import publish, publishing
from orchestrator.cli.selection import Selection, check_incident, check_types, in_words
from orchestrator.cli.values import person, reason_of
from orchestrator.composition import Client, open_client
from orchestrator.door import BadInput
from orchestrator.queries import Filter
from outbox.numbers import counted

MANY: Final = "Many at once"
SAFE: Final = "What was ordered is in the database and goes on when NATS is back."
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show which commands would be sent, and do nothing.")]
By = Annotated[str | None, typer.Option(help="Who orders it; the login name when left out.")]


@dataclass(frozen=True, kw_only=True)
class Ordering(Selection):
    """The options that all orders share."""

    saga: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="A saga's id, the beginning or end of it, or its key. Or use a filter."),
    ] = None
    reason: Annotated[str, typer.Option(help="Why; goes into the log.")]
    by: By = None
    dry_run: DryRun = False
    rate: Annotated[
        float, typer.Option(min=0.1, max=10_000, help="At most so many sagas a second.", rich_help_panel=MANY)
    ] = 50.0
    max_failures: Annotated[
        int, typer.Option(min=1, help="Stop when so many could not be carried out.", rich_help_panel=MANY)
    ] = 20
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask, however many they are.", rich_help_panel=MANY)
    ] = False
    data_dir: DataDir = None
    json: Json = False

    @property
    def who(self) -> str:
        """Who orders it. Raises Failure."""
        return person(self.by)

    @property
    def why(self) -> str:
        """Why it is ordered. Raises Failure."""
        return reason_of(self.reason)


@dataclass(frozen=True, slots=True)
class Verb:
    """How an order is spoken of, which sagas it is for unless statuses are given, and what helps when data is bad."""

    name: str
    done: str
    statuses: tuple[str, ...]
    hint: str = ""


async def order(ordering: Ordering, verb: Verb, wish: Wish, *, step: str | None = None) -> int:
    """Carry out an order, or show what would come of it. `step` must be there when it is for one saga."""
    if ordering.saga is not None and ordering.is_given:
        raise Failure("give an ID or a filter, not both (with a filter, a step is given by --step)", Exit.USAGE)
    if ordering.saga is None and not ordering.is_given:
        raise Failure(f"{verb.name} which saga? Give an ID, or a filter: --status, --type, --incident, …", Exit.USAGE)
    async with open_client(settings_of(ordering.data_dir)) as client:
        if ordering.saga is None:
            return await _order_many(client, ordering, verb, wish)
        saga_id = await client.queries.find(ordering.saga)
        if step is not None:
            await _check_step(client, saga_id, step)
        return await order_one(client, saga_id, verb, wish, dry_run=ordering.dry_run, json=ordering.json)


# --- one -----------------------------------------------------------------------------------------------------------


async def order_one(client: Client, saga_id: str, verb: Verb, wish: Wish, *, dry_run: bool, json: bool) -> int:
    """Carry out an order for one saga. Raises Failure, or what the engine raises, when it cannot be."""
    act = bulk.foresee if dry_run else bulk.carry_out
    [result] = await act(client.engine, [saga_id], wish)
    if isinstance(result.error, BadInput) and verb.hint:
        raise BadInput(f"{result.error}; {verb.hint}") from result.error
    if result.error is not None:
        raise result.error
    if json:
        console.print_json(outcome.to_json(result, dry_run=dry_run))
    elif dry_run and result.decision is not None:
        outcome.print_foreseen(result)
    if result.decision is None:
        raise Failure(f"saga {saga_id} is not {verb.done}: {result.why}", Exit.CONFLICT)
    if not dry_run:
        await publish(client, SAFE)
        console.say(f"saga {saga_id} is {verb.done}; its status is {result.decision.saga.status}")
    return Exit.OK


async def _check_step(client: Client, saga_id: str, step: str) -> None:
    state = await client.queries.state(saga_id)
    if step not in state.steps:
        raise Failure(f"saga {saga_id} has no step {step!r}: it has {', '.join(state.steps)}", Exit.NOT_FOUND)


# --- many ----------------------------------------------------------------------------------------------------------


async def _order_many(client: Client, ordering: Ordering, verb: Verb, wish: Wish) -> int:
    wanted = ordering.to_filter(client.engine.outbox.clock.now(), statuses=verb.statuses)
    count = await _count(client, wanted)
    limits = Limits(ordering.rate, ordering.max_failures)
    work = Bulk(client.engine, client.queries, wish, wanted, limits)
    if ordering.dry_run:
        await _foresee(work, ordering.json)
        console.say(_summary(work, f"be {verb.done}", "would ", "would not "))
        return Exit.CONFLICT if work.tally["refused"] else Exit.OK
    _ask(
        f"{verb.name} {counted(count, 'saga')} ({in_words(wanted)}), at most {ordering.rate:g} a second?", ordering.yes
    )
    async with publishing(client, SAFE):
        try:
            await _carry_out(work, verb, count, ordering.json)
        finally:
            console.say(_summary(work, verb.done))
    if work.was_stopped:
        most = f"{ordering.max_failures:,} could not be {verb.done}"
        console.say(f"stopped: {most}, and that is as many as may (--max-failures); the rest is untouched")
    return Exit.CONFLICT if work.tally["refused"] else Exit.OK


async def _count(client: Client, wanted: Filter) -> int:
    await check_types(wanted, client.definitions, client.queries)
    await check_incident(wanted, client.queries)
    count = await client.queries.count(wanted)
    if not count:
        raise Failure(f"no saga is there with {in_words(wanted)}: `saga ls` lists them", Exit.NOT_FOUND)
    return count


async def _foresee(work: Bulk, json: bool) -> None:
    async with aclosing(work.foresee()) as batches:
        async for results in batches:
            for one in results:
                if json:
                    console.print_json(outcome.to_json(one, dry_run=True))
                else:
                    outcome.print_foreseen(one)


async def _carry_out(work: Bulk, verb: Verb, count: int, json: bool) -> None:
    bar, task = console.progress(verb.name, count)
    with bar:
        async with aclosing(work.carry_out()) as batches:
            async for results in batches:
                for one in results:
                    _tell(one, verb, json)
                bar.update(task, advance=len(results), count=f"{work.tally.total():,} of {count:,}")


def _tell(result: Outcome, verb: Verb, json: bool) -> None:
    if json:
        console.print_json(outcome.to_json(result))
    elif result.kind == "done" and not sys.stdout.isatty():  # a million ids are for a pipe
        console.out().print(result.saga_id)
    if result.kind == "refused":
        console.say(f"saga {result.saga_id} is not {verb.done}: {result.why}")


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure(f"{question} There is nobody to ask here: say --yes", Exit.USAGE)
    if not typer.confirm(question, err=True):
        raise Failure("nothing was done", Exit.INTERRUPTED)


def _summary(work: Bulk, done: str, yes: str = "", no: str = "not ") -> str:
    tally = work.tally
    parts = ((tally["done"], yes + done), (tally["refused"], no + done), (tally["moved-on"], "moved on"))
    return ", ".join(f"{count:,} {name}" for count, name in parts if count or name == yes + done)
