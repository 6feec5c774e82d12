"""What there is to see in a saga: stages of nodes, each with its undo, its conditions and its progress. No I/O."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from orchestrator.definition import Action, Kind, Saga, StepSpec, base_name
from orchestrator.durations import fixed_delays, in_words
from orchestrator.model import Saga as State
from orchestrator.model import StepState, StepStatus
from orchestrator.reads import reads
from outbox.contracts import kebab_case

Line = tuple[tuple[str, str], ...]
"""Pieces of text, each with the status or the style that it is shown in."""

LOUDEST_FIRST: Final = (
    StepStatus.UNDO_REFUSED,
    StepStatus.UNKNOWN,
    StepStatus.REFUSED,
    StepStatus.UNDOING,
    StepStatus.ASKED,
    StepStatus.PENDING,
    StepStatus.DONE,
    StepStatus.UNDONE,
    StepStatus.SKIPPED,
)
"""What stands for a step whose instances differ."""

BACKWARD: Final = frozenset({StepStatus.UNDOING, StepStatus.UNDO_REFUSED, StepStatus.UNDONE})
"""Statuses that speak of the undo."""

OTHERWISE: Final = {"refuse": "then turns back", "proceed": "then goes on without", "stick": "then a person decides"}


class Shape(StrEnum):
    """What a node is; each is drawn in a shape of its own."""

    COMMAND = "command"
    WAIT = "wait"
    DELAY = "delay"
    CHILD = "child"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a step has come, all its instances together. `trouble` is why it is stuck, or why it was refused."""

    status: StepStatus
    counts: tuple[tuple[StepStatus, int], ...]
    attempt: int = 0
    stuck: bool = False
    by_hand: bool = False
    trouble: str | None = None

    @property
    def words(self) -> str:
        """`done`, `asked, attempt 3`, `2 done, 1 asked`."""
        if len(self.counts) > 1 or self.counts[0][1] > 1:
            return ", ".join(f"{count} {status}" for status, count in self.counts)
        again = self.attempt > 1 and self.status in (StepStatus.ASKED, StepStatus.UNDOING)
        return self.status.value + (f", attempt {self.attempt}" if again else "") + (" by hand" if self.by_hand else "")


@dataclass(frozen=True, slots=True)
class Node:
    """One step. `kind` is None when its definition is not known."""

    name: str
    shape: Shape
    kind: Kind | None
    by: str
    undo: str | None = None
    notes: tuple[str, ...] = ()
    many: bool = False
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A saga to be drawn. `facts` hold for the whole of it; an id and a status are there when it is one saga."""

    title: str
    facts: tuple[str, ...]
    stages: tuple[tuple[Node, ...], ...]
    saga_id: str | None = None
    status: str | None = None
    reason: str | None = None

    @property
    def nodes(self) -> Iterator[Node]:
        """Every node, in order."""
        return (node for stage in self.stages for node in stage)


def picture(definition: Saga[Any] | None, state: State | None = None) -> Picture:
    """A definition, or one saga with its progress. Without its definition only the names of its steps are known."""
    if definition is None:
        if state is None:
            raise ValueError("a picture needs a definition, a saga, or both")
        return _of_names(state)
    delays = {name: in_words(lasting) for name, lasting in fixed_delays(definition).items()}
    steps = {} if state is None else state.steps
    stages = tuple(tuple(_node(definition, spec, delays, steps) for spec in stage) for stage in definition.stages)
    title = f"{definition.name} v{definition.version}"
    if state is None:
        return Picture(title, tuple(_facts(definition)), stages)
    return Picture(title, tuple(_facts(definition)), stages, state.id, state.status, _reason(state))


def _of_names(state: State) -> Picture:
    names = dict.fromkeys(base_name(name) for name in state.steps)
    stages = tuple((Node(name, Shape.COMMAND, None, "", progress=_progress(name, state.steps)),) for name in names)
    facts = (f"its definition {state.fingerprint} is not loaded here: only the names of its steps are known",)
    return Picture(f"{state.definition} v{state.version}", facts, stages, state.id, state.status, _reason(state))


def _reason(state: State) -> str | None:
    if state.paused and state.status == "paused":
        return f"paused by {state.paused}"
    return state.stuck or state.failure


def _facts(definition: Saga[Any]) -> Iterator[str]:
    if definition.deadline is not None:
        yield f"turns back after {in_words(definition.deadline)}"
    if definition.max_in_flight is not None:
        yield f"{definition.max_in_flight} in flight at most"
    if definition.rate is not None:
        yield f"{definition.rate.count} begin per {in_words(definition.rate.per)} at most"
    if definition.pivot is None:
        yield "can be undone as a whole"


def _node(definition: Saga[Any], spec: StepSpec, delays: Mapping[str, str], steps: Mapping[str, StepState]) -> Node:
    return Node(
        name=spec.name,
        shape=_shape(spec),
        kind=spec.kind,
        by=_by(spec),
        undo=_undo(spec),
        notes=tuple(_notes(definition, spec, delays)),
        many=spec.items is not None,
        progress=_progress(spec.name, steps) if steps else None,
    )


def _shape(spec: StepSpec) -> Shape:
    if spec.child is not None:
        return Shape.CHILD
    return Shape(spec.action.value)


def _by(spec: StepSpec) -> str:
    match _shape(spec):
        case Shape.COMMAND:
            return spec.participant
        case Shape.CHILD:
            return "child saga"
        case Shape.WAIT:
            return "signal"
        case Shape.DELAY:
            return "time"


def _undo(spec: StepSpec) -> str | None:
    if spec.undo is None:
        return None
    return f"undo {spec.child.name}" if spec.child is not None else kebab_case(spec.undo.__name__)


def _notes(definition: Saga[Any], spec: StepSpec, delays: Mapping[str, str]) -> Iterator[str]:
    if spec.items is not None:
        limit = "all at once" if spec.limit is None else f"{spec.limit} at a time"
        yield f"{_said(spec.items, definition, 'for each of', 'for each item')}, {limit}"
    if spec.when is not None:
        yield _said(spec.when, definition, "when", "on a condition")
    if spec.action is Action.WAIT:
        yield (
            "waits for ever" if spec.timeout is None else f"waits {in_words(spec.timeout)}, {OTHERWISE[spec.otherwise]}"
        )
    if spec.action is Action.DELAY:
        yield f"lasts {delays[spec.name]}" if spec.name in delays else "lasts as the data says"
    if spec.if_unknown == "stick":
        yield "a person decides when no answer comes"


def _said(function: Callable[..., Any], definition: Saga[Any], before: str, unknown: str) -> str:
    """What a function of the data is about: its name, or for a lambda the fields that it reads."""
    name = getattr(function, "__name__", "<lambda>")
    if name == "<lambda>":
        name = ", ".join(sorted(reads(function, definition.data) or ()))
    return f"{before} {name.strip('_').replace('_', ' ')}" if name else unknown


def _progress(name: str, steps: Mapping[str, StepState]) -> Progress | None:
    states = [state for instance, state in steps.items() if base_name(instance) == name]
    if not states:
        return None
    found = Counter(state.status for state in states)
    counts = tuple((status, found[status]) for status in LOUDEST_FIRST if found[status])
    return Progress(
        status=counts[0][0],
        counts=counts,
        attempt=max(state.attempt for state in states),
        stuck=any(state.stuck for state in states),
        by_hand=all(state.by_hand for state in states),
        trouble=_first(state.stuck for state in states) or _first(_complaint(state) for state in states),
    )


def _complaint(state: StepState) -> str | None:
    return state.refusal if state.status in (StepStatus.REFUSED, StepStatus.UNDO_REFUSED) else None


def _first(reasons: Iterable[str | None]) -> str | None:
    return next((reason for reason in reasons if reason), None)
