"""A whole saga with fake participants, in one call. No servers, no waiting, no I/O.

What happens in a rehearsal: every command is answered at once, unless the script says otherwise; a signal comes when
its turn has come; a child saga is rehearsed as a whole saga too. When nothing else happens, time jumps to the next
timer. When there is none, the rehearsal is over: the saga has ended, or it waits for somebody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

from orchestrator.definition import Action, SagaData
from orchestrator.definition import Saga as Definition
from orchestrator.entries import Entry
from orchestrator.events import Order
from orchestrator.model import Saga, StepStatus
from orchestrator.testing.fakes import Script, SignalScript, check
from orchestrator.testing.stage import Actor, Sent, Stage

__tracebackhide__ = True

D = TypeVar("D", bound=SagaData)

MOST_EVENTS: Final = 2_000
"""A rehearsal with more events than this will not end, and says so."""


@dataclass(frozen=True, repr=False)
class Rehearsal(Generic[D]):
    """What became of a saga. `took` is virtual time, and each of `commands` says when it went out."""

    definition: Definition[D]
    saga: Saga
    log: list[Entry]
    commands: list[Sent]
    took: timedelta
    ignored: list[str]
    """Why events, orders and signals among them, changed nothing."""

    children: Mapping[str, "Rehearsal[Any]"]
    """The sagas that its steps have started, by the name of the step."""

    @property
    def status(self) -> str:
        """`completed`, `compensated`, `stuck`, `paused`; `running` when it waits for a signal that does not come."""
        return self.saga.status

    @property
    def data(self) -> D:
        """What the saga knows in the end."""
        return self.definition.data.model_validate(self.saga.data)

    @property
    def failure(self) -> str | None:
        """Why it turned back."""
        return self.saga.failure

    @property
    def stuck(self) -> str | None:
        """Why a person must act."""
        return self.saga.stuck

    @property
    def asked(self) -> list[str]:
        """The steps whose command was sent, in this order, each once however often it was asked."""
        return list(dict.fromkeys(one.step for one in self.commands if not one.undo))

    @property
    def undone(self) -> list[str]:
        """The steps of which nothing is left, in the order in which they were undone. Waits and delays do not count."""
        return [entry.step for entry in self.log if entry.kind in ("undone", "undone-by-hand")]

    @property
    def skipped(self) -> list[str]:
        """The steps that there was no need for."""
        return [name for name, state in self.saga.steps.items() if state.status is StepStatus.SKIPPED]

    @property
    def waits_for(self) -> list[str]:
        """The signals that did not come."""
        steps = self.saga.steps.items()
        asked = [name for name, state in steps if state.status is StepStatus.ASKED]
        return [name for name in asked if self.definition.spec_of(name).action is Action.WAIT]

    def __repr__(self) -> str:
        why = self.stuck or self.failure
        sent = ", ".join(str(one) for one in self.commands) or "nothing"
        return f"<{self.definition.name} {self.status}{f' ({why})' if why else ''} after {self.took}; sent: {sent}>"


def rehearse(
    definition: Definition[D],
    data: D,
    answers: Script | None = None,
    *,
    signals: SignalScript | None = None,
    orders: Sequence[tuple[timedelta, Order]] = (),
    when_stuck: Sequence[Order] = (),
    most_events: int = MOST_EVENTS,
) -> Rehearsal[D]:
    """Play a saga from its beginning until nothing more happens.

    A command that `answers` says nothing of is done. `orders` are given so long after the beginning, `when_stuck`
    one by one whenever the saga, or a child of it, is stuck. Raises CannotRehearse when the script names what the saga
    does not have, when a reply is needed that it does not have, and when the saga does not come to an end.
    """
    script, signal_script = answers or {}, signals or {}
    check(definition, script, signal_script)
    stage = Stage(script, signal_script, when_stuck)
    actor = stage.enter(definition, data)
    for wait, order in orders:
        stage.later(wait, actor, order)
    stage.play(most_events)
    return _result(definition, actor, stage)


def _result(definition: Definition[D], actor: Actor, stage: Stage) -> Rehearsal[D]:
    children = {child.step: _result(child.definition, child, stage) for child in stage.children_of(actor)}
    return Rehearsal(
        definition, actor.saga, actor.log, actor.sent, actor.last_event - actor.began, actor.ignored, children
    )
