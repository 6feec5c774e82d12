"""Random saga definitions, with everything that one may have, and functions that fail when they are told to."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from hypothesis import strategies as st
from pydantic import create_model

from orchestrator.definition import (
    Policy,
    Saga,
    SagaData,
    Signal,
    child,
    delay,
    reversible,
    reversible_each,
    step,
    step_each,
    wait_for,
)
from orchestrator.machine import Terms
from orchestrator.model import Caller
from orchestrator.steps import Parallel
from orchestrator.testing import DAWN
from outbox.contracts import Command, Reply


class Poked(Reply):
    note: int = 0


class Poke(Command[Poked], participant="anyone"):
    step: str
    saga: str


class Ledger(SagaData):
    """`items` is the list of every `each`; the steps in `skipped` have a condition that does not hold."""

    items: tuple[str, ...] = ()
    skipped: frozenset[str] = frozenset()
    notes: tuple[int, ...] = ()


SECOND: Final = timedelta(seconds=1)
CALLER: Final = Caller("parent/child/do", "saga.reply.orchestrator")
NODS: Final = [create_model(f"Nod{number}", __base__=Signal, note=(int, 0)) for number in range(20)]
"""Signals, one for every wait that a definition may have."""

POLICIES: Final = st.builds(
    Policy,
    timeout=st.just(SECOND),
    attempts=st.integers(1, 3),
    jitter=st.sampled_from([0, 0.5]),
    first_delay=st.sampled_from([None, SECOND / 2]),
    not_retried=st.sampled_from([frozenset(), frozenset(), frozenset({"no"})]),
)


@dataclass(slots=True)
class Functions:
    """Makes the functions of a definition. One whose name is in `broken` fails for as long as it is."""

    broken: set[str]
    names: list[str] = field(default_factory=list)

    def make(self, name: str, returns: Callable[..., Any], annotation: Any = None) -> Any:
        """A function of this name. It returns what `returns` makes of its arguments."""

        def made(*arguments: Any) -> Any:
            if name in self.broken:
                raise ZeroDivisionError(name)
            return returns(*arguments)

        made.__name__ = name
        made.__annotations__ = {"return": annotation}
        self.names.append(name)
        return made

    def poke(self, name: str) -> Any:
        """Makes a command; of an item too, where there is one."""
        return self.make(name, lambda data, *_: Poke(step=name, saga=data.saga_id), Poke)

    def keep(self, name: str) -> Any:
        """A `then` for any answer."""

        def note(data: Ledger, answer: Any) -> Ledger:
            return data.model_copy(update={"notes": (*data.notes, getattr(answer, "note", 0))})

        return self.make(f"keep_{name}", note)

    def when(self, name: str) -> Any:
        """A condition that holds unless the data says otherwise."""
        return self.make(f"when_{name}", lambda data: name not in data.skipped)

    def items(self, name: str) -> Any:
        """The list of a step that is done for each of it."""
        return self.make(f"items_{name}", lambda data: data.items)


class _Drawing:
    """One definition in the making."""

    def __init__(self, draw: st.DrawFn, broken: set[str]) -> None:
        self.draw = draw
        self.functions = Functions(broken)
        self._names = iter(range(1000))
        self._nods = iter(NODS)

    def name(self) -> str:
        return f"step_{next(self._names)}"

    def options(self, name: str) -> dict[str, Any]:
        """What any step may have."""
        when = self.functions.when(name) if self.draw(st.sampled_from([False, False, True])) else None
        then = self.functions.keep(name) if self.draw(st.booleans()) else None
        return {"when": when, "then": then}

    def before(self) -> Any:
        """A step that may stand before the pivot."""
        kind = self.draw(st.sampled_from(["plain", "plain", "plain", "each", "each", "wait", "delay", "child"]))
        name = self.name()
        if kind in ("wait", "delay", "child"):
            return self.special(kind, name, st.sampled_from([None, "refuse", "proceed", "stick"]))
        do, undo = self.functions.poke(name), self.functions.poke(f"undo_{name}")
        given = {**self.options(name), "undo": undo, "policy": self.draw(POLICIES), "undo_policy": self.draw(POLICIES)}
        given["if_unknown"] = self.draw(st.sampled_from(["undo", "undo", "stick"]))
        if kind == "plain":
            return reversible(do, **given)
        return reversible_each(self.functions.items(name), do, limit=self.draw(LIMITS), **given)

    def after(self) -> Any:
        """A step that may stand after the pivot."""
        kind = self.draw(st.sampled_from(["plain", "plain", "each", "wait", "delay", "child"]))
        name = self.name()
        if kind in ("wait", "delay", "child"):
            return self.special(kind, name, st.sampled_from([None, "proceed", "stick"]))
        do, given = self.functions.poke(name), {**self.options(name), "policy": self.draw(POLICIES)}
        if kind == "plain":
            return step(do, **given)
        return step_each(self.functions.items(name), do, limit=self.draw(LIMITS), **given)

    def special(self, kind: str, name: str, otherwise: st.SearchStrategy[Any]) -> Any:
        """A wait, a delay or a child."""
        given = self.options(name)
        if kind == "wait":
            timeout = self.draw(st.sampled_from([None, 3 * SECOND]))
            return wait_for(
                next(self._nods), timeout=timeout, otherwise=self.draw(otherwise) if timeout else None, **given
            )
        if kind == "delay":
            lasting = self.functions.make(f"lasting_{name}", lambda _: 2 * SECOND)
            return delay(name.replace("_", "-"), lasting, when=given["when"])
        inner = Saga(name.replace("_", "-"), Ledger, (reversible(_poke, undo=_poke),), pivot=None)
        data_of = self.functions.make(f"data_of_{name}", lambda data: data)
        return child(inner, data_of, policy=self.draw(POLICIES), undo_policy=self.draw(POLICIES), **given)

    def pivot(self) -> Any:
        then = self.functions.keep("pivot") if self.draw(st.booleans()) else None
        return step(self.functions.poke("pivot"), then=then, policy=self.draw(POLICIES))

    def stages(self, most: int, one: Callable[[], Any]) -> Iterator[Parallel[Any]]:
        for _ in range(self.draw(st.integers(0, most))):
            yield Parallel(tuple(one() for _ in range(self.draw(st.sampled_from([1, 1, 2, 3])))))


LIMITS: Final = st.sampled_from([None, 1, 2])


def _poke(data: Ledger) -> Poke:
    return Poke(step="inner", saga=data.saga_id)


@dataclass(frozen=True, slots=True)
class RandomSaga:
    """A definition, an input and terms for it, and the names of its functions."""

    definition: Saga[Ledger]
    data: Ledger
    terms: Terms
    functions: Sequence[str]


@st.composite
def random_sagas(draw: st.DrawFn, broken: set[str]) -> RandomSaga:
    """Up to three stages of up to three steps on either side of the pivot, if there is one."""
    drawing = _Drawing(draw, broken)
    pivot = drawing.pivot() if draw(st.sampled_from([True, True, False])) else None
    definition = Saga(
        name="random",
        data=Ledger,
        reversible=list(drawing.stages(3, drawing.before)) or ([] if pivot else [drawing.before()]),
        pivot=pivot,
        retriable=list(drawing.stages(2, drawing.after)) if pivot else (),
        deadline=draw(st.sampled_from([None, None, 4 * SECOND, 60 * SECOND])),
    )
    conditions = [name.removeprefix("when_") for name in drawing.functions.names if name.startswith("when_")]
    data = Ledger(
        items=draw(st.sampled_from([(), ("a",), ("a", "b"), ("a", "b", "c")])),
        skipped=draw(st.frozensets(st.sampled_from(conditions), max_size=2)) if conditions else frozenset(),
    )
    return RandomSaga(definition, data, draw(_terms(definition)), drawing.functions.names)


@st.composite
def _terms(draw: st.DrawFn, definition: Saga[Ledger]) -> Terms:
    kind = draw(st.sampled_from(["at once", "at once", "waits", "later", "called", "fork"]))
    match kind:
        case "waits":
            return Terms(waits=True)
        case "later":
            return Terms(waits=True, begins_at=DAWN + SECOND, caller=CALLER)
        case "called":
            return Terms(caller=CALLER)
        case "fork":
            first = draw(st.integers(0, len(definition.stages)))
            taken = [spec.name for spec in definition.steps.values() if spec.stage < first]
            return Terms(fork_of="saga-0", taken_over=tuple(taken))
        case _:
            return Terms()
