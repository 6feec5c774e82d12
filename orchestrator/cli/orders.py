"""`saga retry`, `cancel`, `pause`, `resume`, `skip`, `resolve`, `compensate`: what a person orders sagas to do.

Each is an event through the machine, and stands in the log with who gave it and why.
"""

import asyncio
from collections.abc import Callable
from typing import Annotated, Final, Literal

import typer

from orchestrator.bulk import Wish
from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.ordering import Ordering, Verb, order
from orchestrator.cli.selection import with_options
from orchestrator.cli.values import json_object
from orchestrator.events import Cancelled, PauseOrdered, Resolved, ResumeOrdered, Retried
from orchestrator.model import Phase, Saga

RETRY: Final = Verb("retry", "retried", ("stuck",))
CANCEL: Final = Verb("cancel", "cancelled", ("waiting", "running", "stuck", "paused"))
PAUSE: Final = Verb("pause", "paused", ("waiting", "running", "compensating", "stuck"))
RESUME: Final = Verb("resume", "resumed", ("paused",))
RESOLVE: Final = Verb(
    "resolve", "resolved", ("stuck",), "say what was answered: `saga skip ID STEP --reply JSON --reason …`"
)
SKIP: Final = Verb("skip", "skipped", ("stuck",), "give it with --reply JSON")
COMPENSATE: Final = Verb("compensate", "turned back", ("stuck",))

Side = Literal["done", "undone"]
Step = Annotated[str | None, typer.Argument(metavar="STEP", help="The step, as `saga get` names it.")]
StepOfAll = Annotated[str | None, typer.Option("--step", metavar="STEP", help="The step, where a filter is used.")]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    for command in (retry, cancel, pause, resume, skip, resolve, compensate):
        app.command(command.__name__)(command)


@with_options(Ordering)
def retry(ordering: Ordering) -> int:
    """Try again what is stuck. Without --status, a filter takes what is stuck."""
    return asyncio.run(order(ordering, RETRY, Wish(Retried(ordering.who, ordering.why))))


@with_options(Ordering)
def cancel(ordering: Ordering) -> int:
    """Turn back: undo what was done. Not past the pivot, nor when the pivot was asked and may have happened."""
    return asyncio.run(order(ordering, CANCEL, Wish(Cancelled(ordering.who, ordering.why))))


@with_options(Ordering)
def pause(ordering: Ordering) -> int:
    """Send no more commands, until `saga resume`. Answers that come meanwhile are taken note of."""
    return asyncio.run(order(ordering, PAUSE, Wish(PauseOrdered(ordering.who, ordering.why))))


@with_options(Ordering)
def resume(ordering: Ordering) -> int:
    """Let go on what is paused. Without --status, a filter takes what is paused."""
    return asyncio.run(order(ordering, RESUME, Wish(ResumeOrdered(ordering.who, ordering.why))))


@with_options(Ordering)
def skip(
    ordering: Ordering,
    step: Step = None,
    step_of_all: StepOfAll = None,
    reply: Annotated[
        str, typer.Option(metavar="JSON|@FILE|-", help="What the participant is taken to have answered.")
    ] = "{}",
) -> int:
    """Take a step for done, with the reply that you give, and go on behind it.

    The step is not asked again, and what it has done or not done is up to you: look at the participant first.

    On the way back there is nothing to skip: see `saga resolve`.
    """
    name = _step_of(step, step_of_all)
    if name is None:
        raise Failure("skip which step? `saga get` lists them", Exit.USAGE)
    event = Resolved(ordering.who, ordering.why, name, json_object("--reply", reply))
    return asyncio.run(order(ordering, SKIP, Wish(event, unless=_only_as("done")), step=name))


@with_options(Ordering)
def resolve(
    ordering: Ordering,
    step: Step = None,
    step_of_all: StepOfAll = None,
    side: Annotated[
        Side | None, typer.Option("--as", help="Only if it is this that you answer for: that it is done, or undone.")
    ] = None,
) -> int:
    """Answer for a step by hand: it is done, or on the way back, undone. Without STEP: for all that is stuck.

    Look at the participant first: the saga goes on as if it had said so itself.
    """
    event = Resolved(ordering.who, ordering.why, _step_of(step, step_of_all))
    wish = Wish(event, unless=_only_as(side)) if side else Wish(event)
    return asyncio.run(order(ordering, RESOLVE, wish, step=event.step))


@with_options(Ordering)
def compensate(
    ordering: Ordering,
    pivot_did_not_happen: Annotated[
        bool,
        typer.Option(
            "--pivot-did-not-happen",
            help="Your word for it, after you have looked at the participant's own records: the pivot was not carried "
            "out, and a command that may still be on its way can no longer carry it out.",
        ),
    ] = False,
) -> int:
    """Turn a saga back whose pivot was asked and is stuck, because the pivot did not happen.

    Everything before the pivot is undone. If the pivot did happen all the same, its effect stays, and nobody knows.
    """
    if not (pivot_did_not_happen or ordering.dry_run):
        raise Failure(
            "look at the participant whether the pivot happened. If it did not, and will not: --pivot-did-not-happen. "
            "If it did: `saga resolve ID STEP --as done`. A saga that has not asked its pivot: `saga cancel`",
            Exit.USAGE,
        )
    event = Cancelled(ordering.who, ordering.why, pivot_did_not_happen=True)
    return asyncio.run(order(ordering, COMPENSATE, Wish(event)))


def _step_of(step: str | None, step_of_all: str | None) -> str | None:
    if step is not None and step_of_all is not None:
        raise Failure("give STEP or --step, not both", Exit.USAGE)
    return step or step_of_all


def _only_as(side: Side) -> Callable[[Saga], str | None]:
    """Why a saga is not one of which a person can say this: it goes the other way."""

    def why(saga: Saga) -> str | None:
        going_back = saga.phase is Phase.COMPENSATING
        if going_back == (side == "undone"):
            return None
        way = "turns back, so that a step can only be resolved as undone" if going_back else "does not turn back"
        return f"it {way}: look at it again with `saga get {saga.id}`"

    return why
