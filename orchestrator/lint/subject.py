"""What every check is given: a definition, what the broker does, and the questions that several checks ask. No I/O."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

from orchestrator.definition import Action, Kind, Policy, Saga, StepSpec
from orchestrator.durations import fixed_delays
from orchestrator.reads import reads, supplied_fields, supplies


@dataclass(frozen=True, slots=True)
class Broker:
    """What the broker does with a message: not acknowledged within `ack_wait`, it comes again; it is kept for
    `kept_for`, and participants remember the ids of commands for little longer.
    """

    ack_wait: timedelta
    kept_for: timedelta


@dataclass(frozen=True, slots=True)
class Hazard:
    """What may go wrong, and what to change. `step` is empty when it is about the whole saga."""

    code: str
    saga: str
    step: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Subject:
    """One definition under scrutiny."""

    definition: Saga[Any]
    broker: Broker

    @cached_property
    def delays(self) -> dict[str, timedelta]:
        """How long the delays last of which that is known."""
        return fixed_delays(self.definition)

    @property
    def steps(self) -> Iterator[StepSpec]:
        """All of them, in order."""
        return iter(self.definition.steps.values())

    @property
    def stages_before_the_pivot(self) -> list[tuple[StepSpec, ...]]:
        """Where the saga can still turn back."""
        return [stage for stage in self.definition.stages if stage[0].kind is Kind.REVERSIBLE]

    @property
    def before_the_pivot(self) -> Iterator[StepSpec]:
        """The steps of these stages."""
        return (spec for stage in self.stages_before_the_pivot for spec in stage)

    @property
    def commands(self) -> Iterator[StepSpec]:
        """What participants are asked to do. A child is none: it is waited for as long as it takes."""
        return (spec for spec in self.steps if spec.action is Action.COMMAND and spec.child is None)

    @property
    def policies(self) -> Iterator[tuple[StepSpec, str, Policy]]:
        """(step, what of it is asked, how often)."""
        for spec in self.commands:
            yield spec, "it", spec.policy
            if spec.undo is not None:
                yield spec, "its undo", spec.undo_policy

    def fields_read(self, function: Callable[..., Any] | None) -> frozenset[str]:
        """The fields of the data that it is known to read."""
        return (None if function is None else reads(function, self.definition.data)) or frozenset()

    def fields_supplied(self, spec: StepSpec) -> frozenset[str]:
        """The fields that a step's answer sets; all supplied ones when that cannot be told."""
        if spec.then is None:
            return frozenset()
        known = supplies(spec.then)
        return supplied_fields(self.definition.data) if known is None else known

    def hazard(self, code: str, step: str, message: str, remedy: str) -> Hazard:
        """A finding about this definition."""
        return Hazard(code, self.definition.name, step, message, remedy)
