"""The search: breadth first through every world, so that the first counterexample is a shortest one. No I/O."""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from orchestrator import machine
from orchestrator.definition import Saga
from orchestrator.explorer.decisions import Decide, Decisions
from orchestrator.explorer.moves import DONE, WISHES, Move
from orchestrator.explorer.promises import Broken
from orchestrator.explorer.skeleton import skeleton
from orchestrator.explorer.world import Bounds, Step, Surroundings, World
from orchestrator.model import ENDED
from orchestrator.model import Saga as State

Progress = Callable[[int, int], None]
"""Told how many states were looked at, and how many are known."""

TELL_EVERY: Final = 1000


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A broken promise, and a shortest way to it."""

    broken: Broken
    moves: tuple[Move, ...]

    @property
    def promise(self) -> str:
        """What was promised, and what broke it."""
        return str(self.broken)

    @property
    def path(self) -> tuple[str, ...]:
        """What happens, one after the other."""
        return tuple(map(str, self.moves))


@dataclass(slots=True)
class Exploration:
    """What was found."""

    states: int = 0
    transitions: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    counterexample: Counterexample | None = None
    exhausted: bool = True
    """False when the bound of states was met before everything was seen."""


@dataclass(slots=True)
class _Seen:
    """Every world that was met: numbered, how it was first reached, and what leads on from it."""

    worlds: list[World] = field(default_factory=list)
    numbers: dict[World, int] = field(default_factory=dict)
    reached: list[tuple[int, Move]] = field(default_factory=list)
    sources: "array[int]" = field(default_factory=lambda: array("I"))
    targets: "array[int]" = field(default_factory=lambda: array("I"))

    def number(self, step: Step, source: int) -> int:
        number = self.numbers.setdefault(step.world, len(self.worlds))
        if number == len(self.worlds):
            self.worlds.append(step.world)
            self.reached.append((source, step.move))
        return number

    def leads(self, source: int, target: int) -> None:
        self.sources.append(source)
        self.targets.append(target)

    def path(self, number: int) -> tuple[Move, ...]:
        moves: list[Move] = []
        while number >= 0:
            number, move = self.reached[number]
            moves.append(move)
        return tuple(reversed(moves))

    def cannot_reach(self, ends: Iterable[int]) -> set[int]:
        """The worlds from which none of the ends can be reached."""
        backwards: list[list[int]] = [[] for _ in self.worlds]
        for source, target in zip(self.sources, self.targets, strict=True):
            backwards[target].append(source)
        lost = set(range(len(self.worlds))).difference(ends)
        todo = [number for number in range(len(self.worlds)) if number not in lost]
        while todo:
            found = lost.intersection(backwards[todo.pop()])
            lost -= found
            todo.extend(found)
        return lost


class Explorer:
    """Explores one definition. `decide` is the machine; a test may give a broken one."""

    def __init__(self, definition: Saga[Any], bounds: Bounds | None = None, decide: Decide | None = None) -> None:
        self.bounds = bounds or Bounds()
        self.definition = definition
        bare = skeleton(definition, attempts=self.bounds.attempts, items=self.bounds.items)
        self._decisions = Decisions(bare, decide or machine.decide, self.bounds.items)
        self._surroundings = Surroundings(self._decisions, self.bounds)

    def explore(self, progress: Progress = lambda _looked_at, _known: None) -> Exploration:
        """Look at every state, the nearest first; stops at the first broken promise."""
        found, seen = Exploration(), _Seen()
        for step in self._surroundings.begin():
            if not self._take(found, seen, -1, step):
                return found
        while found.states < len(seen.worlds):
            if len(seen.worlds) > self.bounds.states:
                found.exhausted = False
                return found
            if found.states % TELL_EVERY == 0:
                progress(found.states, len(seen.worlds))
            if not self._look_at(found, seen, found.states):
                return found
            found.states += 1
        self._find_the_lost(found, seen)
        return found

    def replay(self, moves: Sequence[Move]) -> Broken | None:
        """The promise that is broken at the end of these moves. Raises ValueError when they are not possible."""
        steps, broken = list(self._surroundings.begin()), None
        for move in moves:
            step = next((step for step in steps if step.move == move), None)
            if step is None or broken is not None:
                raise ValueError(f"not possible here: {move}")
            broken = step.broken
            steps = [] if broken else list(self._surroundings.steps(step.world))
        return broken

    def shrink(self, found: Counterexample) -> Counterexample:
        """The same broken promise, without the moves that it does not need: alone, or some in a row."""
        for fewer in _without_some(found.moves):
            try:
                broken = self.replay(fewer)
            except ValueError:
                continue
            if broken is not None and broken.promise == found.broken.promise:
                return self.shrink(Counterexample(broken, fewer))
        return found

    # --- one world after the other ---------------------------------------------------------------------------------

    def _look_at(self, found: Exploration, seen: _Seen, number: int) -> bool:
        """Take every step from here; says whether every promise is kept."""
        world = seen.worlds[number]
        saga = self._decisions.facts[world.saga].saga
        if saga.phase in ENDED:
            found.ends[saga.phase.value] = found.ends.get(saga.phase.value, 0) + 1
        return all(self._take(found, seen, number, step) for step in self._surroundings.steps(world))

    def _take(self, found: Exploration, seen: _Seen, source: int, step: Step) -> bool:
        found.transitions += source >= 0
        if step.broken is not None:
            path = (*seen.path(source), step.move)
            found.counterexample = self.shrink(Counterexample(step.broken, path))
            return False
        if source >= 0 and step.world is seen.worlds[source]:
            return True
        target = seen.number(step, source)
        if source >= 0 and step.move.kind not in WISHES:
            seen.leads(source, target)
        return True

    def _find_the_lost(self, found: Exploration, seen: _Seen) -> None:
        lost = seen.cannot_reach(number for number, world in enumerate(seen.worlds) if self._is_an_end(world))
        if lost:
            broken = Broken("an end can be reached", "", "assert can_end(it.definition, it.saga)")
            hopeless = (number for number in sorted(lost) if not _can_end(self._decisions, seen.worlds[number].saga))
            found.counterexample = Counterexample(broken, seen.path(next(hopeless, min(lost))))

    def _is_an_end(self, world: World) -> bool:
        """Where nobody has to go on from; or only a person could, and the bound of orders does not let them."""
        facts = self._decisions.facts[world.saga]
        return facts.ended or bool(facts.stuck and world.orders == self.bounds.orders)


def _without_some(moves: tuple[Move, ...]) -> Iterator[tuple[Move, ...]]:
    """These moves without some in a row, the most first; how it begins stays."""
    for count in range(len(moves) - 1, 0, -1):
        for first in range(1, len(moves) - count + 1):
            yield (*moves[:first], *moves[first + count :])


def can_end(definition: Saga[Any], saga: State) -> bool:
    """Whether this saga, of the skeleton of a definition, can come to an end if everybody answers."""
    decisions = Decisions(definition, machine.decide)
    return _can_end(decisions, decisions.number(saga))


def _can_end(decisions: Decisions, first: int) -> bool:
    todo, known = deque([first]), {first}
    while todo:
        facts = decisions.facts[number := todo.popleft()]
        if facts.ended:
            return True
        out = [Move("reply", facts.saga.command_id(name), DONE) for name in facts.saga.steps]
        moves = (move for move in (*out, *facts.moves, *facts.orders) if move.kind not in WISHES)
        outcomes = {outcome.saga for move in moves for outcome in decisions.after(number, move)}
        new = {after for after in outcomes if after is not None} - known
        known |= new
        todo.extend(new)
    return False
