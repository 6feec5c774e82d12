"""How a mistake is planted in the state machine, and taken out again."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from orchestrator import machine
from orchestrator.definition import Saga
from orchestrator.events import TimedOut
from orchestrator.explorer import Bounds
from orchestrator.model import StepStatus
from tests.mutants.shapes import BOUNDS, SMALL

MODULES: Final = [machine, *(importlib.import_module(f"orchestrator.machine.{name}") for name in ("decide", "evolve"))]
"""Where the machine looks up its tables and functions: `machine.decide` by itself is the function."""

Decider: Final[Any] = MODULES[1]._Decider


def is_out_of_time(decider: Any, name: str, event: TimedOut, status: StepStatus) -> bool:
    """Whether a timer is one that counts, and the step has this status."""
    state, saga = decider._saga.steps[name], decider._saga
    due = state.due_at is not None and decider._now >= state.due_at and state.attempt == event.attempt
    return due and state.status is status and not saga.paused


@dataclass(frozen=True)
class Mutant:
    """A mistake: its name, what it puts in the place of what, and the saga on which it is hunted.

    `tables` are names of the machine's modules (tables and functions), `decider` those of the methods that decide.
    """

    name: str
    tables: Mapping[str, Any] | None = None
    decider: Mapping[str, Callable[..., Any]] | None = None
    shape: Saga[Any] = SMALL
    bounds: Bounds = BOUNDS


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Break the machine for a while."""
    tables = mutant.tables or {}
    places = [(module, name, tables[name]) for name in tables for module in MODULES if hasattr(module, name)]
    places += [(Decider, name, mistake) for name, mistake in (mutant.decider or {}).items()]
    before = [(place, name, getattr(place, name)) for place, name, _ in places]
    try:
        for place, name, mistake in places:
            setattr(place, name, mistake)
        yield
    finally:
        for place, name, right in before:
            setattr(place, name, right)


@dataclass(frozen=True)
class Bug:
    """A mistake outside of the machine: its name, and what it puts in the place of which attributes of what.

    A `plain` one is found by so many schedules that a few dozen of any will do.
    """

    name: str
    patches: tuple[tuple[Any, str, Any], ...]
    plain: bool = False


@contextmanager
def dug_in(bug: Bug) -> Iterator[None]:
    """Break the parts for a while."""
    before = [(owner, name, owner.__dict__[name]) for owner, name, _ in bug.patches]
    try:
        for owner, name, mistake in bug.patches:
            setattr(owner, name, mistake)
        yield
    finally:
        for owner, name, right in before:
            setattr(owner, name, right)
