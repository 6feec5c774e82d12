"""Which sagas a command is for: one by its ID, or all that a filter lets pass. Also how commands share options."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import datetime
from functools import wraps
from typing import Annotated, Any, Final, Protocol, TypeVar, get_type_hints

import typer
from typer.models import ArgumentInfo

from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.options import age
from orchestrator.cli.values import labels_of
from orchestrator.queries import Filter, Queries
from orchestrator.registry import Definitions

STATUSES: Final = ("waiting", "running", "compensating", "completed", "compensated", "stuck", "paused")
PANEL: Final = "Which sagas"

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The options that say which sagas, one by one as on the command line."""

    status: Annotated[
        list[str] | None,
        typer.Option("--status", "-s", help="Only with this status; may be repeated.", rich_help_panel=PANEL),
    ] = None
    definition: Annotated[
        list[str] | None,
        typer.Option("--type", "-t", help="Only these sagas, as in place-order.", rich_help_panel=PANEL),
    ] = None
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Only with this label; may be repeated.", rich_help_panel=PANEL),
    ] = None
    incident: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only what is stuck for this: see `saga incidents`.", rich_help_panel=PANEL),
    ] = None
    older: Annotated[
        str | None,
        typer.Option("--older-than", metavar="AGE", help="Since the start, as in 90s, 2h, 1d.", rich_help_panel=PANEL),
    ] = None
    newer: Annotated[
        str | None, typer.Option("--newer-than", metavar="AGE", help="Likewise.", rich_help_panel=PANEL)
    ] = None

    @property
    def is_given(self) -> bool:
        """Whether any of these options was used."""
        return any((self.status, self.definition, self.label, self.incident, self.older, self.newer))

    def to_filter(self, now: datetime, *, statuses: Sequence[str] = (), limit: int = 50) -> Filter:
        """What the options mean; `statuses` are for when none is given. Raises Failure."""
        unknown = sorted(set(self.status or ()) - set(STATUSES))
        if unknown:
            raise Failure(f"{unknown[0]!r} is no status: there is {', '.join(STATUSES)}", Exit.USAGE)
        return Filter(
            statuses=tuple(self.status or statuses),
            definitions=tuple(self.definition or ()),
            labels=labels_of(self.label or ()),
            incident=self.incident,
            started_before=now - age(self.older) if self.older else None,
            started_after=now - age(self.newer) if self.newer else None,
            limit=limit,
        )


async def check_types(wanted: Filter, definitions: Definitions, queries: Queries) -> None:
    """That each saga asked for is one that is loaded, or was once. Raises Failure."""
    for name in wanted.definitions:
        if name not in definitions and not await queries.ids(Filter(definitions=[name]), limit=1):
            raise Failure(f"there is no saga {name!r}: there is {', '.join(definitions)}", Exit.NOT_FOUND)


async def check_incident(wanted: Filter, queries: Queries) -> None:
    """That somebody is stuck for what is asked for. Raises Failure."""
    known = [one.name for one in await queries.incidents()] if wanted.incident is not None else []
    if wanted.incident is not None and wanted.incident not in known:
        raise Failure(f"there is no incident {wanted.incident!r}: `saga incidents` lists them", Exit.NOT_FOUND)


def in_words(wanted: Filter) -> str:
    """A filter, for a person."""
    parts = [
        f"status {' or '.join(wanted.statuses)}" if wanted.statuses else "",
        f"type {' or '.join(wanted.definitions)}" if wanted.definitions else "",
        *(f"label {name}={value}" for name, value in wanted.labels.items()),
        f"incident {wanted.incident!r}" if wanted.incident is not None else "",
        f"started before {wanted.started_before:%Y-%m-%d %H:%M:%S} UTC" if wanted.started_before else "",
        f"started since {wanted.started_after:%Y-%m-%d %H:%M:%S} UTC" if wanted.started_after else "",
    ]
    return ", ".join(part for part in parts if part)


# --- options that are shared -------------------------------------------------------------------------------------


class Decorator(Protocol):
    """Makes a command of a function."""

    def __call__(self, command: Callable[..., R]) -> Callable[..., R]: ...


def with_options(kind: type[Any]) -> Decorator:
    """A command whose first parameter is a `kind`: each of its fields is an option of its own on the command line."""
    shared = [_parameter(kind, name) for name in (one.name for one in fields(kind))]

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        first, *own = inspect.signature(command, eval_str=True).parameters.values()

        @wraps(command)
        def run(**given: Any) -> R:
            taken = kind(**{one.name: given.pop(one.name) for one in shared})
            return command(**{first.name: taken}, **given)

        parameters = [*shared, *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own)]
        ordered = sorted(parameters, key=lambda one: (not _is_argument(one), (one in shared) != _is_argument(one)))
        vars(run)["__signature__"] = inspect.Signature(ordered)
        return run

    return decorate


def _parameter(kind: type[Any], name: str) -> inspect.Parameter:
    default = next(one.default for one in fields(kind) if one.name == name)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is MISSING else default,
        annotation=get_type_hints(kind, include_extras=True)[name],
    )


def _is_argument(parameter: inspect.Parameter) -> bool:
    return any(isinstance(one, ArgumentInfo) for one in getattr(parameter.annotation, "__metadata__", ()))
