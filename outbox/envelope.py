"""The envelope: CloudEvents 1.0 in JSON, one event per NATS message or many in one. No I/O.

Any language can take part with a NATS client and docs/protocol.md. Besides the attributes of the standard
an envelope carries these extensions:

- `attempt`    how often this command has been asked; a re-asked command keeps its `id`
- `replyto`    the subject on which the answer is awaited
- `undoes`     on an undo: the id of the command whose effect it takes back
- `answers`    on a reply: the id of the command that it answers. Ids end in `/do` or `/undo`, so a reply
               says its direction; it is never inferred from the state the receiver happens to be in
- `outcome`    on a reply: `done` or `refused`

Source: CloudEvents 1.0.2, JSON event format, sections 3 and 4 (batch mode), and the NATS protocol binding.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

SINGLE: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"

Outcome = Literal["done", "refused"]
Id = Annotated[str, Field(min_length=1, max_length=350)]
Subject = Annotated[str, Field(max_length=255, pattern=r"^[^\s.*>]+(\.[^\s.*>]+)*$")]
"""A NATS subject that can be published to: no wildcard, no empty token. Like an id, it fits its column."""


class Envelope(BaseModel):
    """One CloudEvent. `subject` is the id of the business transaction that it belongs to."""

    model_config = ConfigDict(frozen=True, extra="allow")

    specversion: Literal["1.0"] = "1.0"
    id: Id
    source: str
    type: str
    subject: Id
    time: AwareDatetime
    datacontenttype: Literal["application/json"] = "application/json"
    data: dict[str, Any]
    attempt: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1
    replyto: Subject | None = None
    undoes: Id | None = None
    answers: Id | None = None
    outcome: Outcome | None = None

    @property
    def message_id(self) -> str:
        """The broker's deduplication id: fresh for every attempt, so that a re-asked command gets through."""
        return f"{self.id}:{self.attempt}"

    def encode(self) -> str:
        """The envelope as JSON text, without the attributes that are absent."""
        return self.model_dump_json(exclude_none=True)


_BATCH: Final = TypeAdapter(list[Envelope])


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An event, or a whole message, that could not be read: the text as it came, and why."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Packet:
    """One NATS message: one event, or many in batch mode."""

    message_id: str
    subject: str
    body: str

    @property
    def content_type(self) -> str:
        """Which of the two modes the body is in."""
        return BATCH if self.body.startswith("[") else SINGLE


def decode(body: bytes) -> list[Envelope | Unreadable]:
    """Read a message in either mode. One bad event does not spoil its neighbours.

    The character U+0000 is refused wherever it stands: PostgreSQL cannot keep it, and would refuse the batch.
    """
    if b"\\u0000" not in body:
        with suppress(ValidationError):  # then it is looked at event by event, to tell which is bad, and why
            return [*_BATCH.validate_json(body)] if body.startswith(b"[") else [Envelope.model_validate_json(body)]
    try:
        content = from_json(body)
    except ValueError as error:
        return [Unreadable(_text(body), f"it is not JSON: {error}")]
    return [_read(event) for event in (content if isinstance(content, list) else [content])]


def pack(events: Iterable[Packet], *, max_events: int = 500, max_bytes: int = 512 * 1024) -> list[Packet]:
    """Pack single events by subject into as few NATS messages as the limits allow."""
    packets: list[Packet] = []
    for group in _by_subject(events):
        start, size = 0, 0
        for index, event in enumerate(group):
            length = len(event.body) if event.body.isascii() else len(event.body.encode())
            if index > start and (index - start == max_events or size + length + 2 > max_bytes):
                packets.append(_packet(group[start:index]))
                start, size = index, 0
            size += length + 1  # and a comma, or a bracket
        packets.append(_packet(group[start:]))
    return packets


def _by_subject(events: Iterable[Packet]) -> Iterable[list[Packet]]:
    groups: dict[str, list[Packet]] = {}
    for event in events:
        groups.setdefault(event.subject, []).append(event)
    return groups.values()


def _packet(group: Sequence[Packet]) -> Packet:
    if len(group) == 1:
        return group[0]
    digest = sha256("\n".join(event.message_id for event in group).encode()).hexdigest()
    return Packet(f"batch:{digest}", group[0].subject, f"[{','.join(event.body for event in group)}]")


def _read(event: Any) -> Envelope | Unreadable:
    if _has_nul(event):
        return Unreadable(_text(to_json(event)), "it has the character U+0000 in it")
    try:
        return Envelope.model_validate(event)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the event"
        return Unreadable(_text(to_json(event)), f"it is not a CloudEvent: {where}: {first['msg']}")


def _has_nul(value: Any) -> bool:
    match value:
        case str():
            return "\x00" in value
        case list():
            return any(_has_nul(item) for item in value)
        case dict():
            return any(_has_nul(item) for pair in value.items() for item in pair)
        case _:
            return False


def _text(body: bytes) -> str:
    return body.decode("utf-8", "backslashreplace").replace("\x00", "\\x00")
