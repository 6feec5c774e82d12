"""The door: what is wrong with a saga is said before it is accepted, in a sentence, and never later. No I/O."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, Literal

from pydantic import ValidationError

from orchestrator.definition import Saga, SagaData
from orchestrator.model import Caller
from orchestrator.reads import supplied_fields

MAX_INPUT_BYTES: Final = 256 * 1024
"""A saga's input is refused above this, so that every command made of it fits into a message."""

MAX_KEY: Final = 200
"""Characters: the width of the column."""

MAX_LABELS: Final = 20
MAX_LABEL: Final = 200
LABEL_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,58}[a-z0-9])?")
PRIORITIES: Final = range(-1000, 1001)

IfTaken = Literal["return", "reject", "after-failure"]
"""What to do when the key is taken: give back the saga that has it (if its input is the same), say no, or, when that
saga was compensated, start a new one.
"""


class BadInput(Exception):
    """Something that its saga does not allow. Says which field and why."""


@dataclass(frozen=True, slots=True)
class StartRequest:
    """A saga to be started. The same `key` and the same input is the same saga."""

    definition: str
    data: SagaData
    digest: str
    key: str | None = None
    if_taken: IfTaken = "return"
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    begins_at: datetime | None = None
    caller: Caller | None = None
    by: str | None = None
    reason: str | None = None
    """Who ordered it and why, when it was not simply started."""


@dataclass(frozen=True, slots=True)
class StartResult:
    """What came of a request: `started`, `existing` (same key, same input), or `conflict` (the key is taken)."""

    outcome: Literal["started", "existing", "conflict"]
    saga_id: str


def read_request(
    definition: Saga[Any],
    data: Mapping[str, Any],
    key: str | None = None,
    *,
    if_taken: IfTaken = "return",
    labels: Mapping[str, str] | None = None,
    priority: int | None = None,
    begins_at: datetime | None = None,
    caller: Caller | None = None,
) -> StartRequest:
    """Check an input. Raises BadInput."""
    read = _read(definition, data)
    if (problem := _key_problem(key)) is not None:
        raise BadInput(problem)
    if begins_at is not None and begins_at.tzinfo is None:
        raise BadInput(f"begins_at: {begins_at} has no time zone")
    return StartRequest(
        definition.name,
        read,
        _digest(read),
        key,
        if_taken,
        _labels(definition, read, labels or {}),
        _priority(definition, read, priority),
        begins_at,
        caller,
    )


def _read(definition: Saga[Any], data: Mapping[str, Any]) -> SagaData:
    if "saga_id" in data:
        raise BadInput("saga_id: is minted by the saga; leave it out")
    for name in sorted(supplied_fields(definition.data) & set(data)):
        raise BadInput(f"{name}: is supplied by one of the saga's steps; leave it out")
    try:
        read: SagaData = definition.data.model_validate(dict(data))
        return read
    except ValidationError as error:
        raise BadInput(problems_of(error)) from error


def _digest(read: SagaData) -> str:
    content = read.model_dump(mode="json", exclude_unset=True)  # a new optional field is no other input
    if (place := _place_of_no_text(content)) is not None:
        raise BadInput(f"{place}: has a character in it that is no text, and cannot be kept or sent")
    try:
        text = json.dumps(content, sort_keys=True, allow_nan=False)
    except ValueError as error:
        raise BadInput("it has a number in it that JSON does not have: infinite, or none at all") from error
    if len(text.encode()) > MAX_INPUT_BYTES:
        raise BadInput(f"the input has {len(text.encode()):,} bytes, the limit is {MAX_INPUT_BYTES:,}")
    return sha256(text.encode()).hexdigest()


def _labels(definition: Saga[Any], read: SagaData, given: Mapping[str, str]) -> dict[str, str]:
    labels = dict(given)
    if definition.labels is not None:
        try:
            labels = {**definition.labels(read), **given}
        except Exception as error:  # the definition's own function: whatever it raises, we say so
            raise BadInput(f"the definition's `labels` failed: {type(error).__name__}: {error}") from error
    if len(labels) > MAX_LABELS:
        raise BadInput(f"there are {len(labels)} labels, the limit is {MAX_LABELS}")
    for name, value in labels.items():
        if not LABEL_NAME.fullmatch(str(name)):
            raise BadInput(f"label {name!r}: use up to 60 lower-case letters, digits, dots, hyphens and underscores")
        if not 0 < len(str(value)) <= MAX_LABEL or _is_no_text(str(value)):
            raise BadInput(f"label {name}: its value is to be a text of 1 to {MAX_LABEL} characters")
    return {str(name): str(value) for name, value in labels.items()}


def _priority(definition: Saga[Any], read: SagaData, given: int | None) -> int:
    priority = given
    if priority is None and callable(definition.priority):
        try:
            priority = definition.priority(read)
        except Exception as error:  # the definition's own function: whatever it raises, we say so
            raise BadInput(f"the definition's `priority` failed: {type(error).__name__}: {error}") from error
    elif priority is None:
        priority = definition.priority if isinstance(definition.priority, int) else 0
    if type(priority) is not int or priority not in PRIORITIES:
        raise BadInput(f"the priority is {priority}; it is to be between {PRIORITIES[0]} and {PRIORITIES[-1]}")
    return priority


def problems_of(error: ValidationError) -> str:
    """Which fields are wrong, and why, in one line."""
    return "; ".join(_problem(detail) for detail in error.errors(include_url=False)[:5])


def _problem(detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    return f"{where}: {detail['msg']}" if where else str(detail["msg"])


def _key_problem(key: str | None) -> str | None:
    """Why a key cannot be kept; what the databases would otherwise say, each in its own way."""
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY:
        return "the key is empty" if not key else f"the key is longer than {MAX_KEY} characters"
    return "the key has a character in it that is no text" if _is_no_text(key) else None


def _is_no_text(text: str) -> bool:
    if text.isascii():
        return "\x00" in text
    return "\x00" in text or text.encode(errors="replace") != text.encode(errors="surrogatepass")


def _place_of_no_text(value: Any, place: str = "") -> str | None:
    """The path of the first text with U+0000 or half a character in it, be it a value or a name."""
    if isinstance(value, str):
        return place if _is_no_text(value) else None
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if isinstance(value, dict) and any(_is_no_text(name) for name in value):
        return place
    found = (_place_of_no_text(item, f"{place}.{name}".lstrip(".")) for name, item in pairs)
    return next((one for one in found if one is not None), None)
