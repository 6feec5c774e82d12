"""`saga dlq`: messages that could not be handled: see why, send them once more, or drop them."""

import asyncio
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import orjson
import typer

from orchestrator.cli import console
from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.options import DataDir, Json, age, settings_of
from orchestrator.cli.ordering import By
from orchestrator.cli.selection import with_options
from orchestrator.cli.values import person, reason_of
from orchestrator.composition import open_letters
from orchestrator.letters import Letters
from orchestrator.settings import ROLES, Settings
from outbox.dead_letters import Act, Buried, Order, Outcome, Wanted
from outbox.reasons import first_line

PANEL: Final = "Which dead letters"
LetterId = Annotated[str, typer.Argument(metavar="ID", help="As `saga dlq ls` shows it: order/12.")]
Reason = Annotated[str, typer.Option(help="Why; goes into the log of the dead letters.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    family = typer.Typer(no_args_is_help=True, help="Dead letters: messages that could not be handled.")
    for name, command in (("ls", ls), ("show", show), ("redrive", redrive), ("drop", drop)):
        family.command(name)(command)
    app.add_typer(family, name="dlq")


@dataclass(frozen=True, kw_only=True)
class Filter:
    """The options that say which dead letters."""

    role: Annotated[
        list[str] | None, typer.Option(help="Only of this role; may be repeated.", rich_help_panel=PANEL)
    ] = None
    because: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Only with this in their reason; # is any number, … any quotation.",
            rich_help_panel=PANEL,
        ),
    ] = None
    saga: Annotated[
        str | None, typer.Option(metavar="ID", help="Only what speaks of this saga.", rich_help_panel=PANEL)
    ] = None
    older: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="As in 90s, 2h, 1d.", rich_help_panel=PANEL)
    ] = None
    newer: Annotated[
        str | None, typer.Option("--newer-than", metavar="AGE", help="Likewise.", rich_help_panel=PANEL)
    ] = None

    @property
    def is_given(self) -> bool:
        """Whether any of these options was used."""
        return any((self.role, self.because, self.saga, self.older, self.newer))

    @property
    def roles(self) -> tuple[str, ...]:
        """Those that are looked at. Raises Failure."""
        unknown = [role for role in self.role or () if role not in ROLES]
        if unknown:
            raise Failure(f"{unknown[0]!r} is no role: there is {', '.join(ROLES)}", Exit.USAGE)
        return tuple(self.role or ROLES)

    def to_wanted(self, now: datetime) -> Wanted:
        """What the options mean. Raises Failure."""
        return Wanted(
            because=self.because,
            saga=self.saga,
            before=now - age(self.older) if self.older else None,
            since=now - age(self.newer) if self.newer else None,
        )


@dataclass(frozen=True, kw_only=True)
class Choice(Filter):
    """One, those that a filter lets pass, or all: one of these has to be said."""

    letter: Annotated[str | None, typer.Argument(metavar="ID", help="As in order/12. Or use a filter.")] = None
    everything: Annotated[bool, typer.Option("--all", help="All that there are.", rich_help_panel=PANEL)] = False

    def chosen(self, now: datetime) -> tuple[tuple[str, ...], Wanted]:
        """The roles, and which of their letters. Raises Failure."""
        given = (self.letter is not None, self.is_given, self.everything)
        if sum(given) != 1:
            raise Failure(
                "which dead letters? Give one of these, and not two: an ID, a filter (--role, --because, …), or --all",
                Exit.USAGE,
            )
        if self.letter is None:
            return self.roles, self.to_wanted(now)
        role, number = read_id(self.letter)
        return (role,), Wanted(numbers=[number])


def read_id(text: str) -> tuple[str, int]:
    """`order/12`. Raises Failure."""
    role, slash, number = text.partition("/")
    if role not in ROLES or not slash or not number.isdecimal() or int(number) >= 2**63:
        raise Failure(f"{text!r} is no dead letter: their ids are like order/12 (`saga dlq ls`)", Exit.USAGE)
    return role, int(number)


# --- looking -------------------------------------------------------------------------------------------------------


@with_options(Filter)
def ls(
    filter: Filter,
    by_reason: Annotated[bool, typer.Option("--by-reason", help="Count them by role and reason.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most, the newest first.")] = 50,
    data_dir: DataDir = None,
    json: Json = False,
) -> int:
    """List dead letters, the newest first."""
    return asyncio.run(_ls(settings_of(data_dir), filter, by_reason, limit, json))


async def _ls(settings: Settings, filter: Filter, by_reason: bool, limit: int, json: bool) -> int:
    wanted = filter.to_wanted(datetime.now(UTC))
    async with open_letters(settings, filter.roles) as letters:
        if by_reason:
            await _print_groups(letters, wanted, json)
        else:
            await _print_letters(letters, wanted, limit, json)
    for problem in letters.hidden.values():
        console.say(f"not looked at: {problem}")
    return Exit.OUT_OF_REACH if letters.hidden else Exit.OK


async def _print_letters(letters: Letters, wanted: Wanted, limit: int, json: bool) -> None:
    found = await letters.find(wanted, limit)
    if json:
        console.print_json([to_json(letter) for letter in found])
        return
    columns = ("id", "buried", "message", "deliveries", "reason")
    rows = (
        (one.id, console.day(one.at), one.message_id or "?", f"{one.deliveries}", first_line(one.reason))
        for one in found
    )
    if found:
        console.out().print(
            console.table(columns, rows, right=("deliveries",), spare=("deliveries", "buried", "message"))
        )
    counts = await letters.counted(wanted)
    told = ", ".join(f"{count:,} of {role}" for role, count in counts.items() if count)
    console.say(f"in all: {told}" if told else _none(letters))


async def _print_groups(letters: Letters, wanted: Wanted, json: bool) -> None:
    groups = await letters.groups(wanted)
    if json:
        console.print_json([asdict(group) for group in groups])
        return
    columns = ("letters", "of", "first", "last", "example", "reason")
    rows = (
        (
            f"{one.letters:,}",
            one.role,
            console.day(one.first_at),
            console.day(one.last_at),
            one.example,
            first_line(one.reason),
        )
        for one in groups
    )
    if groups:
        console.out().print(console.table(columns, rows, right=("letters",), spare=("first", "last", "example")))
    else:
        console.say(_none(letters))


def _none(letters: Letters) -> str:
    return "no dead letters where they could be looked at" if letters.hidden else "no dead letters"


def show(letter: LetterId, data_dir: DataDir = None, json: Json = False) -> None:
    """One dead letter: why it is one, where it came from, and what it says."""
    asyncio.run(_show(settings_of(data_dir), *read_id(letter), json))


async def _show(settings: Settings, role: str, number: int, json: bool) -> None:
    async with open_letters(settings, [role]) as letters:
        found = await letters.one(role, number)
    if json:
        console.print_json(to_json(found) | {"body": found.body})
        return
    facts = (
        ("id", found.id),
        ("reason", found.reason),
        ("buried", f"{console.day(found.at)}, at delivery {found.deliveries:,}"),
        ("subject", found.subject),
        ("message", found.message_id or "it has no id that could be read"),
        ("redrive", found.impossible or found.useless or "may help when the cause is gone"),
    )
    console.out().print(console.table(("dead letter", ""), facts))
    console.out().print()
    console.out().print(_pretty(found.body), markup=False, soft_wrap=True)


def to_json(letter: Buried) -> dict[str, Any]:
    """For scripts: all but the body."""
    fields = {name: value for name, value in asdict(letter).items() if name not in ("body", "number")}
    return {"id": letter.id} | fields | {"cannot_be_redriven": letter.impossible or letter.useless}


def _pretty(body: str) -> str:
    try:
        return orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONDecodeError:
        return body


# --- doing something about them ------------------------------------------------------------------------------------


@with_options(Choice)
def redrive(
    choice: Choice,
    reason: Reason,
    force: Annotated[bool, typer.Option("--force", help="Also what is better not sent.")] = False,
    by: By = None,
    dry_run: DryRun = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> int:
    """Send dead letters once more, to the role that has buried them, when the cause is gone.

    They go out of that role's outbox as soon as it runs. What was applied
    before is not applied again, what still cannot be handled is buried
    again, and what was resolved or skipped by hand is not sent.
    """
    order = Order("redriven", person(by), reason_of(reason), force, dry_run)
    return asyncio.run(_carry_out(settings_of(data_dir), choice, order, json))


@with_options(Choice)
def drop(
    choice: Choice,
    reason: Reason,
    by: By = None,
    dry_run: DryRun = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> int:
    """Delete dead letters that nobody needs. Who did it, and why, is written down in the role's database."""
    order = Order("dropped", person(by), reason_of(reason), dry_run=dry_run)
    return asyncio.run(_carry_out(settings_of(data_dir), choice, order, json))


async def _carry_out(settings: Settings, choice: Choice, order: Order, json: bool) -> int:
    roles, wanted = choice.chosen(datetime.now(UTC))
    tally: Counter[bool] = Counter()
    async with open_letters(settings, roles) as letters:
        for problem in letters.hidden.values():
            raise Failure(problem, Exit.OUT_OF_REACH)
        count = await letters.count(wanted)
        if not count:
            raise Failure(
                f"no such dead letter{'' if choice.letter else 's'}: `saga dlq ls` lists them", Exit.NOT_FOUND
            )
        bar, task = console.progress(order.act, count)
        with bar:
            async for outcomes in letters.carry_out(order, wanted):
                for outcome in outcomes:
                    tally[outcome.why_not is None] += 1
                    _tell(outcome, order, json)
                bar.advance(task, len(outcomes))
    console.say(_summary(order.act, tally, order.dry_run))
    return Exit.CONFLICT if tally[False] else Exit.OK


def _tell(outcome: Outcome, order: Order, json: bool) -> None:
    if json:
        done = outcome.act if outcome.why_not is None else "refused"
        told = {"outcome": done, "why": outcome.why_not, "dry_run": order.dry_run}
        console.print_json(to_json(outcome.letter) | told)
    elif outcome.why_not is None:
        console.out().print(outcome.letter.id)
    if outcome.why_not is not None:
        hint = "" if outcome.letter.impossible else "; --force sends it all the same"
        console.say(f"{outcome.letter.id} is not {outcome.act}: {outcome.why_not}{hint}")


def _summary(act: Act, tally: Counter[bool], dry_run: bool) -> str:
    would = "would be " if dry_run else ""
    refused = f", {tally[False]:,} not" if tally[False] else ""
    return f"{tally[True]:,} {would}{act}{refused}"
