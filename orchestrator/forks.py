"""Forks: a saga that has ended is run again from one of its steps, as a new saga.

From its first step on it is the same input once more, with ids of its own. From a later step on it is a copy of a
saga that has *completed*: the data is as it was when that step's turn came, ids included, so that its commands speak of
the same reservation and the same payment; the steps before it stay the original's, and are never undone by the copy.
A saga that was compensated has no effects to go on from, so it can only be run again as a whole.
"""

from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from orchestrator import machine, outgoing
from orchestrator.definition import Saga as Definition
from orchestrator.definition import SagaData, StepSpec, base_name
from orchestrator.door import BadInput, StartRequest, problems_of
from orchestrator.engine import Engine, UnknownSaga
from orchestrator.entries import Entry, SignalReceived, Started
from orchestrator.model import ENDED, Phase, Saga
from orchestrator.reads import supplied_fields
from orchestrator.store import Change, Stored
from outbox.unit_of_work import UnitOfWork


class CannotFork(Exception):
    """A saga that cannot be run again from there. Says why, and from where it can."""


@dataclass(frozen=True, slots=True)
class Fork:
    """A saga that was begun as a copy of another."""

    saga_id: str
    steps: tuple[str, ...]
    """The steps that are run again."""


async def fork(engine: Engine, saga_id: str, from_step: str | None = None, *, by: str, reason: str) -> Fork:
    """Begin a copy of a saga, on the newest version of its definition. Raises UnknownSaga, CannotFork."""
    async with engine.outbox.unit_of_work() as unit:
        original = (await engine.store.lock(unit.connection, [saga_id])).get(saga_id)
        if original is None:
            raise UnknownSaga(f"there is no saga {saga_id}: `saga ls` lists them")
        definition = _definition(engine, original.saga)
        first = _first(definition, from_step)
        _check(original.saga, first)
        labels = await engine.store.labels(unit.connection, saga_id)
        original = replace(original, labels=labels)
        log = await engine.store.log(unit.connection, saga_id)
        if first.stage == 0:
            return await _again(engine, unit, definition, original, log, by, reason)
        return await _copy(engine, unit, definition, original, first, log, by, reason)


async def _again(
    engine: Engine,
    unit: UnitOfWork,
    definition: Definition[Any],
    original: Stored,
    log: list[Entry],
    by: str,
    reason: str,
) -> Fork:
    begun = next(entry for entry in log if isinstance(entry, Started))
    ours = {"saga_id", *supplied_fields(definition.data)}
    data = {name: value for name, value in begun.data.items() if name not in ours}
    try:
        request = engine.request(definition.name, data, labels=original.labels, priority=original.priority)
    except BadInput as error:
        raise CannotFork(f"its input is none for {definition.name} v{definition.version}: {error}") from error
    [result] = await engine.start_within(unit, [replace(request, by=by, reason=reason)])
    return Fork(result.saga_id, tuple(definition.steps))


async def _copy(
    engine: Engine,
    unit: UnitOfWork,
    definition: Definition[Any],
    original: Stored,
    first: StepSpec,
    log: list[Entry],
    by: str,
    reason: str,
) -> Fork:
    before = [spec.name for spec in definition.steps.values() if spec.stage < first.stage]
    done = {base_name(name) for name in original.saga.steps}
    if missing := [name for name in before if name not in done]:
        raise CannotFork(
            f"{definition.name} v{definition.version} has {', '.join(missing)} before {first.name}, which saga "
            f"{original.saga.id} never did: leave out the step to run it again as a whole"
        )
    request = _request(definition, original, _data_before(definition, original.saga.id, log, first))
    waits = definition.is_limited
    begins_at = unit.now if waits else None
    terms = machine.Terms(waits, begins_at, None, original.saga.id, tuple(before), by, reason)
    decision = machine.start(definition, engine.new_id(), request.data, unit.now, terms)
    stored = Stored(
        decision.saga, 1, None, original.digest, unit.now, priority=original.priority, labels=original.labels
    )
    engine.store.write(unit.writes, [Change(stored, decision.entries, unit.now)])
    outgoing.send(unit, decision)
    return Fork(decision.saga.id, tuple(name for name in definition.steps if name not in before))


def _definition(engine: Engine, saga: Saga) -> Definition[Any]:
    if saga.definition not in engine.definitions:
        raise CannotFork(f"its definition {saga.definition} is not loaded: name its module in SAGA_DEFINITIONS")
    return engine.definitions[saga.definition]


def _first(definition: Definition[Any], from_step: str | None) -> StepSpec:
    if from_step is None:
        return definition.stages[0][0]
    if from_step not in definition.steps:
        raise CannotFork(f"{definition.name} has no step {from_step}: it has {', '.join(definition.steps)}")
    return definition.steps[from_step]


def _check(saga: Saga, first: StepSpec) -> None:
    if saga.phase not in ENDED:
        raise CannotFork(f"saga {saga.id} has not ended, it is {saga.status}: retry, resolve or cancel it first")
    if first.stage > 0 and saga.phase is not Phase.COMPLETED:
        raise CannotFork(
            f"saga {saga.id} was compensated, so nothing is left to go on from at {first.name}: "
            "leave out the step to run it again as a whole"
        )


def _request(definition: Definition[Any], original: Stored, data: dict[str, Any]) -> StartRequest:
    try:
        read: SagaData = definition.data.model_validate(data)
    except ValidationError as error:
        problems = problems_of(error)
        raise CannotFork(f"its data is none for {definition.name} v{definition.version}: {problems}") from error
    return StartRequest(definition.name, read, original.digest)


def _data_before(definition: Definition[Any], saga_id: str, log: list[Entry], first: StepSpec) -> dict[str, Any]:
    """What the saga knew when the stage of `first` began."""
    later = {spec.name for spec in definition.steps.values() if spec.stage >= first.stage}
    before: list[Entry] = []
    for entry in log:
        if isinstance(entry, SignalReceived):
            continue  # it may come before its turn, and what was kept of it is in `Done`
        if base_name(getattr(entry, "step", "")) in later:
            break
        before.append(entry)
    return machine.replay(saga_id, before).data
