"""The surroundings of a saga: participants that keep the protocol, a network that keeps nothing, and truthful people.

Every reply that may be given to a command that was ever sent may arrive at any time, again, or never. What became of a
command stays open until the saga, or a person, goes by it: an open command may have been carried out, may be yet, or
may never be, and every promise is judged by the worst of these. So nothing is lost by leaving it open, and far fewer
states are to be looked at than if every delivery were a step of its own.

A participant answers a command once and for all: what was undone before it was done is refused when it comes. A
person says that something was done, undone or did not happen only when it is so, and has seen to it that it stays so.
No I/O.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.explorer.decisions import Decisions, Outcome
from orchestrator.explorer.moves import DONE, REFUSED, REFUSED_FOR_GOOD, SAGA_ID, Move, move_of, parts
from orchestrator.explorer.promises import Broken, status_is_in
from orchestrator.explorer.states import Facts
from orchestrator.explorer.truth import bad_command, bad_end, is_there, may_be_there, settled
from orchestrator.model import Saga as State
from orchestrator.model import StepStatus, command_id

Mail = tuple[tuple[str, str], ...]
Heard = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far to look: askings per policy, a person's orders, items of a step that has them, states in all."""

    attempts: int = 2
    orders: int = 1
    items: int = 2
    states: int = 100_000


class World(NamedTuple):
    """The saga, and all that its surroundings remember."""

    saga: int
    """The number of its state."""

    mail: Mail = ()
    """(command, what its participant has made of it), for every command that was ever sent; empty: that is open."""

    heard: Heard = ()
    """(step, outcome) of the signals that count and have not been used."""

    orders: int = 0
    """How many orders people have given."""


class Step(NamedTuple):
    """What happens in a world, the world after it, and the promise that is broken by it."""

    move: Move
    world: World
    broken: Broken | None = None


class Surroundings:
    """Whatever can happen in a world, and what comes of it."""

    def __init__(self, decisions: Decisions, bounds: Bounds) -> None:
        self._decisions = decisions
        self._definition = decisions.definition
        self._bounds = bounds

    def begin(self) -> Iterator[Step]:
        """Every way in which a saga begins."""
        for kind in ("start", "accept"):
            for outcome in self._decisions.begin(Move(kind)):
                yield self._step(World(-1 if outcome.saga is None else outcome.saga), Move(kind), outcome)

    def steps(self, world: World) -> Iterator[Step]:
        """Every next step."""
        facts = self._decisions.facts[world.saga]
        for command, outcome in world.mail:
            yield from self._replies(world, command, outcome)
        for move in facts.moves:
            yield from self._decide(world, move)
        if world.orders < self._bounds.orders:
            for move in facts.orders:
                yield from self._order(world, move)

    # --- participants ----------------------------------------------------------------------------------------------

    def _replies(self, world: World, command: str, outcome: str) -> Iterator[Step]:
        """The replies to a command that may arrive. One that nobody goes by leaves open what is open."""
        if outcome:
            yield from self._decide(world, move_of("reply", command, outcome))
            return
        mail = dict(world.mail)
        for possible in self._possible(command, mail):
            known = world._replace(mail=_after(mail, _learnt(command, possible)))
            for step in self._decide(known, move_of("reply", command, possible)):
                yield step._replace(world=world) if step.world is known else step

    def _possible(self, command: str, mail: Mapping[str, str]) -> list[str]:
        """What a participant that keeps the protocol may make of a command."""
        sent = parts(command)
        spec = self._definition.spec_of(sent.step)
        policy = spec.policy if sent.direction == "do" else spec.undo_policy
        if sent.direction == "undo" and mail.get(command_id(SAGA_ID, sent.step, "do"), REFUSED) not in ("", DONE):
            return [DONE]
        if policy.attempts is None and sent.round >= self._bounds.attempts:
            return [DONE]  # who is asked for ever does not refuse for ever
        return [DONE, REFUSED, REFUSED_FOR_GOOD] if policy.not_retried else [DONE, REFUSED]

    # --- the saga --------------------------------------------------------------------------------------------------

    def _decide(self, world: World, move: Move) -> Iterator[Step]:
        for outcome in self._decisions.after(world.saga, move):
            yield self._step(world, move, outcome)

    def _step(self, world: World, move: Move, outcome: Outcome) -> Step:
        if outcome.chosen:
            move = move._replace(chosen=outcome.chosen)
        if outcome.broken or (outcome.saga is None and move.kind != "signal"):
            return Step(move, world, outcome.broken)
        saga = world.saga if outcome.saga is None else outcome.saga
        heard, unheard = self._hear(world, move, outcome, saga)
        mail = world.mail
        if outcome.sends:
            known = dict(mail)
            mail = _after(known, {command: "" for command in outcome.sends if command not in known})
        after = World(saga, mail, heard, world.orders)
        facts = self._decisions.facts[saga]
        broken = unheard or self._bad_commands(world, facts.saga, outcome) or self._bad_end(facts, after)
        return Step(move, world if after == world else after, broken)

    def _hear(self, world: World, move: Move, outcome: Outcome, saga: int) -> tuple[Heard, Broken | None]:
        """The signals that still count, and the promise about them that is broken."""
        heard = dict(world.heard)
        counts = move.kind == "signal" and move.name in self._decisions.facts[world.saga].listens
        if counts and move.name not in heard:
            heard[move.name] = move.outcome
            if outcome.saga is None:
                return (), Broken("a signal that came is not lost", move.name, "assert it.last.entries")
        for step, how in outcome.used:
            if heard.pop(step, None) != how:
                promise = "a wait ends by one signal, by its time, or by a person"
                return (), status_is_in(promise, f"{step} is {how}", step, StepStatus(how))
        lost = self._decisions.facts[saga].asked_waits & heard.keys()
        if lost:
            step = min(lost)
            return (), status_is_in("a signal that came is not lost", step, step, StepStatus.ASKED)
        return tuple(sorted(heard.items())), None

    # --- people ----------------------------------------------------------------------------------------------------

    def _order(self, world: World, move: Move) -> Iterator[Step]:
        """What comes of an order, if a truthful person may give it. One that changes nothing is not counted."""
        known = self._seen_to(world, move)
        if known is None:
            return
        for step in self._decide(known, move):
            counted = step.world._replace(orders=world.orders + 1)
            yield step._replace(world=world if step.world is known else counted)

    def _seen_to(self, world: World, move: Move) -> World | None:
        """The world when a person has looked, and seen to it that it stays so; None when it is not as they say."""
        mail = dict(world.mail)
        if move.kind == "done-by-hand" and self._definition.spec_of(move.name).command:
            outcome, true = DONE, may_be_there(mail, move.name)
        elif move.kind in ("undone-by-hand", "cancel-for-sure"):
            outcome, true = REFUSED, not is_there(mail, move.name)
        else:
            return world
        return world._replace(mail=_after(mail, settled(mail, move.name, outcome))) if true else None

    # --- promises that need the truth ------------------------------------------------------------------------------

    def _bad_commands(self, world: World, saga: State, outcome: Outcome) -> Broken | None:
        if not outcome.sends:
            return None
        mail = {**dict.fromkeys(outcome.sends, ""), **dict(world.mail)}
        judged = (bad_command(self._definition, saga, mail, one) for one in outcome.sends)
        return next(filter(None, judged), None)

    def _bad_end(self, facts: Facts, world: World) -> Broken | None:
        return bad_end(self._definition, facts.saga, dict(world.mail)) if facts.ended else None


def _learnt(command: str, outcome: str) -> dict[str, str]:
    """What is known from a reply: a refused undo says that there is something to undo."""
    sent = parts(command)
    if sent.direction == "undo" and outcome != DONE:
        return {command: outcome, command_id(SAGA_ID, sent.step, "do"): DONE}
    return {command: outcome}


def _after(mail: Mapping[str, str], changes: Mapping[str, str]) -> Mail:
    return tuple(sorted({**mail, **changes}.items()))
