"""Calling a definition's own functions: whatever they raise becomes a sentence, and never a crash. No I/O.

The machine hands over what the saga knows as JSON; the functions get it as the definition's data model.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from orchestrator.definition import Saga, SagaData, StepSpec, base_name, item_index
from orchestrator.model import Saga as State
from outbox.contracts import Command, Message

MOST_ITEMS: Final = 1000
"""A step for each of more items than this is refused: that is work for a child saga, or for a batch."""

T = TypeVar("T")


class Broken(Exception):
    """A function of the definition failed. Says which, and how."""


class UnreadableReply(Exception):
    """An answer to what is out, with data that its contract does not allow."""


def build_command(definition: Saga[Any], state: State, instance: str, *, undo: bool) -> Command[Any]:
    """The command of a step, or of its undo. Raises Broken."""
    return _guarded("undo" if undo else "do", lambda: _command(definition, state, instance, undo=undo))


def _command(definition: Saga[Any], state: State, instance: str, *, undo: bool) -> Command[Any]:
    spec = definition.spec_of(instance)
    build, wanted = (spec.undo, spec.undo_command) if undo else (spec.do, spec.command)
    if build is None or wanted is None:
        raise TypeError(f"step {spec.name} has none")
    command = build(*_arguments(definition, state, spec, instance))
    if not isinstance(command, wanted):
        raise TypeError(f"it is annotated with {wanted.__name__}, and returned {command!r}")
    return command


def keep(definition: Saga[Any], state: State, instance: str, answer: Message) -> dict[str, Any]:
    """What the saga knows after the step's `then`. Raises Broken."""
    then = definition.spec_of(instance).then
    return state.data if then is None else _guarded("then", lambda: _kept(definition, state, then, answer))


def _kept(definition: Saga[Any], state: State, then: Callable[[Any, Any], SagaData], answer: Message) -> dict[str, Any]:
    known = _data(definition, state)
    kept = then(known, answer).model_dump(mode="json")
    after = definition.data.model_validate(kept)
    if after.saga_id != known.saga_id:
        raise ValueError("it changed `saga_id`, from which undos are built; use data.model_copy(update={…})")
    for other in _expanded(definition, state.steps):
        if other.items is not None and list(other.items(known)) != list(other.items(after)):
            raise ValueError(f"it changed the list that step {other.name} runs over")
    return kept


def holds(definition: Saga[Any], state: State, spec: StepSpec) -> bool:
    """Whether a step is to be done at all. Raises Broken."""
    when = spec.when
    return when is None or _guarded("when", lambda: bool(when(_data(definition, state))))


def instances(definition: Saga[Any], state: State, spec: StepSpec) -> list[str]:
    """The names of the instances that a step has, one for each item. Raises Broken."""
    items = spec.items
    if items is None:
        return [spec.name]
    count = _guarded("items", lambda: len(items(_data(definition, state))))
    if count > MOST_ITEMS:
        raise Broken(f"the step has {count:,} items, and {MOST_ITEMS:,} is the limit")
    return [f"{spec.name}[{index}]" for index in range(count)]


def over_at(definition: Saga[Any], state: State, spec: StepSpec, now: datetime) -> datetime:
    """When a delay that begins now is over. Raises Broken."""
    lasting = spec.lasting
    return now if lasting is None else _guarded("lasting", lambda: now + _timedelta(lasting(_data(definition, state))))


def read_answer(spec: StepSpec, data: dict[str, Any]) -> Message:
    """The data of a reply or a signal, as its contract has it. Raises UnreadableReply."""
    if spec.answer is None:
        raise UnreadableReply(f"step {spec.name} awaits no answer")
    try:
        return spec.answer.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "data"
        what = "signal" if spec.signal else "reply"
        raise UnreadableReply(f"the {what} to {spec.name} cannot be read: {where}: {first['msg']}") from error


def _arguments(definition: Saga[Any], state: State, spec: StepSpec, instance: str) -> tuple[Any, ...]:
    data = _data(definition, state)
    index = item_index(instance)
    if spec.items is None or index is None:
        return (data,)
    return data, spec.items(data)[index]


def _timedelta(value: Any) -> timedelta:
    if not isinstance(value, timedelta):
        raise TypeError(f"it returned {value!r}, which is no timedelta")
    return value


def _expanded(definition: Saga[Any], names: Iterable[str]) -> list[StepSpec]:
    bases = {base_name(name): None for name in names if item_index(name) is not None}
    return [definition.steps[base] for base in bases]


def _data(definition: Saga[Any], state: State) -> Any:
    return definition.data.model_validate(state.data)


def _guarded(part: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except Exception as error:  # whatever it raises, the saga says so
        raise Broken(f"the definition's `{part}` failed: {type(error).__name__}: {error}") from error
