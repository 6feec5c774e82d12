"""An exhaustive explorer: every way in which a saga of this shape can go, up to a bound. No I/O.

The machine is run against participants that keep the protocol and a network that keeps nothing: from every state every
command that was ever sent may be delivered (once more), every reply that was ever given may arrive (once more, or
never), every participant may refuse what it has not yet handled, every timer may fire, and a person may order a
retry when the saga is stuck. Losing a message is never delivering it; being late is delivering it after the end.

In every state that can be reached this must hold:

- nothing is undone that was never asked, and no undo is sent once the pivot may have happened;
- undos go back stage by stage;
- nothing is done twice, and nothing is undone twice;
- `completed` means that every effect is there, `compensated` that none is, *and stays so* whatever arrives later;
- what has not ended waits for a timer or for a person;
- an end can be reached.

The explorer looks at the shape of a definition (stages, kinds, undos), not at its functions or its data. States are
explored breadth first, so the first counterexample is a shortest one.

Source of the method: explicit-state model checking, as in Holzmann, "The model checker SPIN", 1997.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from orchestrator import machine
from orchestrator.definition import Kind, Policy, Saga, SagaData, StepSpec
from orchestrator.events import Answered, Event, Retried, TimedOut
from orchestrator.model import ENDED, Phase, StepStatus, command_id
from orchestrator.model import Saga as State
from outbox.contracts import Command, Reply

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
SAGA_ID: Final = "S"

Decide = Callable[[Saga[Any], State, Event, datetime], machine.Decision]


class StubReply(Reply):
    """Any reply: the explorer looks at outcomes only."""


class Stub(Command[StubReply], participant="explorer"):
    """Any command."""


def _stub(_data: SagaData) -> Stub:
    return Stub()


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far to look: askings per policy, a person's retries, states in all."""

    attempts: int = 2
    retries: int = 1
    states: int = 500_000


@dataclass(frozen=True, slots=True)
class World:
    """The saga, and all that its surroundings remember."""

    saga: State
    sent: frozenset[str] = frozenset()
    """Ids of the commands that were ever sent."""

    inboxes: frozenset[tuple[str, str]] = frozenset()
    """(command id, outcome) of what participants have handled, tombstones included."""

    answers: frozenset[tuple[str, str]] = frozenset()
    """(command id, outcome) of the replies that were ever given."""

    retries: int = 0

    @property
    def key(self) -> tuple[Any, ...]:
        """Two worlds with the same key have the same future."""
        steps = tuple(
            (name, step.status, step.round, step.tries, step.due_at is not None, step.stuck is not None)
            for name, step in self.saga.steps.items()
        )
        return self.saga.phase, steps, self.sent, self.inboxes, self.answers, self.retries

    def times(self, step: str, direction: str) -> int:
        """How often a step was carried out, or undone: in how many of its rounds."""
        beginning = f"{SAGA_ID}/{step}/{direction}"
        rounds = [command for command, outcome in self.inboxes if outcome == "done"]
        return sum(command == beginning or command.startswith(f"{beginning}/") for command in rounds)

    def took_effect(self, step: str) -> bool:
        """Whether a step's effect is there: it was done, and it was not undone."""
        return bool(self.times(step, "do")) and not self.times(step, "undo")


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A broken promise, and the shortest way to it."""

    promise: str
    path: tuple[str, ...]


@dataclass(slots=True)
class Exploration:
    """What was found."""

    states: int = 0
    transitions: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    counterexample: Counterexample | None = None
    exhausted: bool = True
    """False when the bound of states was met before everything was seen."""


def skeleton(definition: Saga[Any], bounds: Bounds) -> Saga[Any]:
    """The same stages and kinds, with stubs for functions and short policies."""
    policy = Policy(timeout=timedelta(seconds=1), attempts=bounds.attempts, jitter=0)

    def strip(spec: StepSpec) -> StepSpec:
        undo = None if spec.undo is None else _stub
        undo_command = None if spec.undo is None else Stub
        stripped = replace(spec, do=_stub, undo=undo, then=None, command=Stub, undo_command=undo_command)
        return replace(stripped, policy=policy, undo_policy=policy)

    bare = replace(definition, data=SagaData)
    object.__setattr__(bare, "stages", tuple(tuple(strip(spec) for spec in stage) for stage in definition.stages))
    vars(bare).pop("steps", None)
    return bare


class Explorer:
    """Explores one definition. `decide` is the machine; a test may give a broken one."""

    def __init__(self, definition: Saga[Any], bounds: Bounds | None = None, decide: Decide = machine.decide) -> None:
        self._bounds = bounds or Bounds()
        self._definition = skeleton(definition, self._bounds)
        self._decide = decide
        self._now = START

    def explore(self) -> Exploration:
        """Look at every state, the nearest first; stops at the first broken promise."""
        found = Exploration()
        begin = self._begin()
        parents: dict[Any, tuple[Any, str] | None] = {begin.key: None}
        backwards: dict[Any, list[Any]] = {}
        sinks: list[Any] = []
        queue = deque([begin])
        while queue:
            world = queue.popleft()
            found.states += 1
            if world.saga.stuck and world.retries == self._bounds.retries:
                sinks.append(world.key)  # a person could go on from here; the bound does not
            if world.saga.phase in ENDED:
                sinks.append(world.key)
                found.ends[world.saga.phase.value] = found.ends.get(world.saga.phase.value, 0) + 1
            for label, promise, after in self._steps(world):
                found.transitions += 1
                if promise is not None:
                    found.counterexample = Counterexample(promise, (*_path(parents, world.key), label))
                    return found
                backwards.setdefault(after.key, []).append(world.key)
                if after.key not in parents:
                    parents[after.key] = (world.key, label)
                    queue.append(after)
            if len(parents) > self._bounds.states:
                found.exhausted = False
                return found
        lost = _cannot_reach(parents, backwards, sinks)
        if lost is not None:
            found.counterexample = Counterexample("an end can be reached", _path(parents, lost))
        return found

    def _begin(self) -> World:
        decision = machine.start(self._definition, SAGA_ID, SagaData(), START)
        return World(decision.saga, sent=frozenset(dispatch.command_id for dispatch in decision.dispatches))

    def _steps(self, world: World) -> Iterator[tuple[str, str | None, World]]:
        """(what happens, the promise that it breaks or None, the world after it)."""
        for label, event, after in self._moves(world):
            if event is None:
                yield label, _broken_promise(self._definition, after), after
                continue
            try:
                decision = self._decide(self._definition, world.saga, event, self._time_of(world, event))
            except Exception as error:
                yield label, f"the machine decides ({type(error).__name__}: {error})", after
                continue
            dispatched = [dispatch.command_id for dispatch in decision.dispatches]
            then = replace(after, saga=decision.saga, sent=after.sent | frozenset(dispatched))
            yield (
                label,
                self._broken_by(event, world, then, dispatched) or _broken_promise(self._definition, then),
                then,
            )

    def _moves(self, world: World) -> Iterator[tuple[str, Event | None, World]]:
        handled = dict(world.inboxes)
        for command in sorted(world.sent):
            for outcome in [handled[command]] if command in handled else self._possible(command, handled):
                inboxes = world.inboxes | {(command, outcome)} | self._tombstone(command, handled)
                answers = world.answers | {(command, outcome)}
                if (inboxes, answers) != (world.inboxes, world.answers):
                    yield f"{command} is {outcome}", None, replace(world, inboxes=inboxes, answers=answers)
        for command, outcome in sorted(world.answers):
            event = Answered(command, "done" if outcome == "done" else "refused")
            yield f"the reply to {command} arrives: {outcome}", event, world
            foreign = Answered(command.replace(SAGA_ID, "ANOTHER", 1), event.outcome)
            yield f"a reply to another saga's {command} arrives: {outcome}", foreign, world
        for name, step in world.saga.steps.items():
            if step.due_at is not None:
                command = world.saga.command_id(name)
                yield f"the timer of {command} fires", TimedOut(command, step.attempt), world
        if world.saga.stuck and world.retries < self._bounds.retries:
            yield "a person orders a retry", Retried("somebody", ""), replace(world, retries=world.retries + 1)

    def _possible(self, command: str, handled: dict[str, str]) -> list[str]:
        """What a participant that keeps the protocol may answer to a command that it has not handled."""
        _, step, direction = command.split("/")[:3]
        if direction == "do":
            return ["done", "refused"]
        did = handled.get(command_id(SAGA_ID, step, "do"))
        return ["done", "refused"] if did == "done" else ["done"]

    def _tombstone(self, command: str, handled: dict[str, str]) -> frozenset[tuple[str, str]]:
        _, step, direction = command.split("/")[:3]
        do = command_id(SAGA_ID, step, "do")
        return frozenset() if direction == "do" or do in handled else frozenset({(do, "refused")})

    def _time_of(self, world: World, event: Event) -> datetime:
        """Late enough for the timer that fires, and never earlier than before."""
        if isinstance(event, TimedOut):
            due = [step.due_at for step in world.saga.steps.values() if step.due_at is not None]
            self._now = max([self._now, *due])
        return self._now

    def _broken_by(self, event: Event, before: World, after: World, dispatched: list[str]) -> str | None:
        """A promise that this very decision breaks."""
        if isinstance(event, Answered) and not event.command_id.startswith(SAGA_ID) and after.saga != before.saga:
            return "a reply to another saga changes nothing"
        if before.saga.phase in ENDED and (after.saga != before.saga or dispatched):
            return "what has ended stays as it is"
        for command in dispatched:
            _, step, direction = command.split("/")[:3]
            if direction == "undo" and (broken := self._bad_undo(before, after, step)):
                return broken
        return None

    def _bad_undo(self, before: World, after: World, step: str) -> str | None:
        spec = self._definition.steps[step]
        if command_id(SAGA_ID, step, "do") not in before.sent:
            return f"nothing is undone that was never asked: {step}"
        for other in self._definition.steps.values():
            status = after.saga.steps[other.name].status
            if other.kind is Kind.PIVOT and after.took_effect(other.name):
                return f"nothing is undone once the pivot has happened: {step}"
            if other.stage > spec.stage and status not in _SETTLED:
                return f"undos go back stage by stage: {step} is undone, and {other.name} is still {status}"
        return None


_SETTLED: Final = (StepStatus.PENDING, StepStatus.REFUSED, StepStatus.UNDONE)


def _broken_promise(definition: Saga[Any], world: World) -> str | None:
    saga = world.saga
    repeated = [name for name in definition.steps if max(world.times(name, "do"), world.times(name, "undo")) > 1]
    if repeated:
        return f"nothing happens twice: {repeated[0]} does"
    effects = {name: world.took_effect(name) for name in definition.steps}
    if saga.phase is Phase.COMPLETED and not all(effects.values()):
        return f"completed means that every effect is there: {_names(effects, False)} is not"
    if saga.phase is Phase.COMPENSATED and any(effects.values()):
        return f"compensated means that no effect is there: {_names(effects, True)} is"
    if saga.phase not in ENDED and saga.stuck is None and saga.due_at is None:
        return "what has not ended waits for a timer or for a person"
    return None


def _names(effects: dict[str, bool], there: bool) -> str:
    return ", ".join(name for name, effect in effects.items() if effect is there)


def _path(parents: dict[Any, tuple[Any, str] | None], key: Any) -> tuple[str, ...]:
    labels: list[str] = []
    while (step := parents[key]) is not None:
        key, label = step
        labels.append(label)
    return tuple(reversed(labels))


def _cannot_reach(parents: dict[Any, Any], backwards: dict[Any, list[Any]], ended: list[Any]) -> Any | None:
    """A state from which no end can be reached; None when there is none."""
    reached = set(ended)
    queue = deque(ended)
    while queue:
        for before in backwards.get(queue.popleft(), ()):
            if before not in reached:
                reached.add(before)
                queue.append(before)
    return next((key for key in parents if key not in reached), None)
