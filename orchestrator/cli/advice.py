"""What a person can do about a saga: which orders apply to it as it is now, each as a command that is ready to paste.

Nothing is advised that would be refused: the machine is asked about each order first. No I/O.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from orchestrator.cli.values import PLACEHOLDER
from orchestrator.definition import Action, Kind, StepSpec
from orchestrator.definition import Saga as Definition
from orchestrator.events import Cancelled, Event, Resolved, Retried, Signalled
from orchestrator.machine import UnreadableReply, decide
from orchestrator.model import ENDED, Phase, Saga, StepStatus
from outbox.contracts import Message

REASON: Final = ("--reason", PLACEHOLDER)
WHO: Final = "?"
MOST_STEPS: Final = 3
"""Steps that are stuck in one saga, and for each of which something is advised."""

BROKEN: Final = "the definition's `"
BROKEN_THEN: Final = "the definition's `then`"
"""How the reason begins when a function of the definition has failed: in the second case the step itself is done."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A command, as the arguments of `saga`, and when to give it."""

    when: str
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Awaited:
    """A step that waits for a signal, and the commands that give it."""

    step: str
    until: datetime | None
    commands: tuple[tuple[str, ...], ...]


def advice(definition: Definition[Any], saga: Saga, now: datetime) -> list[Advice]:
    """What to do about a saga that does not go on by itself; the likeliest first."""
    if saga.phase in ENDED:
        return []
    if saga.paused:
        return [Advice("when it may go on", ("resume", saga.id, *REASON))]
    if not saga.stuck:
        return []
    return [one for event, one in _for_stuck(definition, saga) if event is None or _works(definition, saga, event, now)]


def awaited(definition: Definition[Any], saga: Saga) -> list[Awaited]:
    """The signals that a saga waits for."""
    if saga.phase is not Phase.RUNNING:
        return []
    waits = [(spec, saga.steps[spec.name]) for spec in definition.steps.values() if spec.action is Action.WAIT]
    return [
        Awaited(spec.name, state.due_at if state.status is StepStatus.ASKED else None, tuple(_signals(saga, spec)))
        for spec, state in waits
        if state.status is StepStatus.ASKED or (state.status is StepStatus.REFUSED and spec.kind is Kind.RETRIABLE)
    ]


def _for_stuck(definition: Definition[Any], saga: Saga) -> Iterator[tuple[Event | None, Advice]]:
    """Candidates, and the event by which the machine can be asked about each; None: it applies for certain."""
    stuck = {name: state.stuck for name, state in saga.steps.items() if state.stuck}
    mended = any(reason.startswith(BROKEN) for reason in stuck.values())
    when = "when the definition is mended and deployed" if mended else "when the cause is gone"
    yield Retried(WHO, WHO), Advice(when, ("retry", saga.id, *REASON))
    for name in list(stuck)[:MOST_STEPS]:
        yield from _for_step(definition.spec_of(name), saga, name)
    turn_back = Cancelled(WHO, WHO)
    yield turn_back, Advice("if it is not to go on", ("cancel", saga.id, *REASON))
    yield from _for_pivot(definition, stuck, saga)


def _for_step(spec: StepSpec, saga: Saga, name: str) -> Iterator[tuple[Event | None, Advice]]:
    done = f"if {spec.participant} has done {name}" if spec.participant else f"if {name} is not to be waited for"
    if saga.phase is Phase.COMPENSATING:
        when = f"if {spec.participant} has nothing left of {name}"
        yield Resolved(WHO, WHO, name), Advice(when, ("resolve", saga.id, name, "--as", "undone", *REASON))
    elif spec.action is Action.WAIT:
        for number, command in enumerate(_signals(saga, spec)):
            signal = Signalled(name, "refused", {}, WHO)
            yield signal, Advice("if the answer is no" if number else "if the answer is yes", command)
    elif spec.then is not None and spec.answer is not None:
        reply = ("--reply", _example(spec.answer))
        yield None, Advice(done, ("skip", saga.id, name, *reply, *REASON))
    else:
        yield Resolved(WHO, WHO, name), Advice(done, ("resolve", saga.id, name, "--as", "done", *REASON))


def _for_pivot(definition: Definition[Any], stuck: dict[str, str], saga: Saga) -> Iterator[tuple[Event, Advice]]:
    pivot = definition.pivot_name
    if pivot is None or saga.steps[pivot].status is not StepStatus.ASKED:
        return
    if pivot not in stuck or stuck[pivot].startswith(BROKEN_THEN):
        return
    when = f"if {definition.steps[pivot].participant} shows that {pivot} did not happen, and will not"
    yield (
        Cancelled(WHO, WHO, pivot_did_not_happen=True),
        Advice(when, ("compensate", saga.id, "--pivot-did-not-happen", *REASON)),
    )


def _signals(saga: Saga, spec: StepSpec) -> Iterable[tuple[str, ...]]:
    data = _example(spec.answer) if spec.answer else "{}"
    yield ("signal", saga.id, spec.name, *(() if data == "{}" else ("--data", data)))
    if spec.kind is not Kind.RETRIABLE:  # there a no would only be asked again
        yield ("signal", saga.id, spec.name, "--refuse", PLACEHOLDER)


def _works(definition: Definition[Any], saga: Saga, event: Event, now: datetime) -> bool:
    try:
        return decide(definition, saga, event, now).ignored is None
    except UnreadableReply:
        return False


def _example(kind: type[Message]) -> str:
    required = {name: PLACEHOLDER for name, one in kind.model_fields.items() if one.is_required()}
    return json.dumps(required, ensure_ascii=False)
