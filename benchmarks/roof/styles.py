"""Two ways to do the same work by hand: the least that is durable, and the same tables and messages as Amends has.

The first says what the machine can do. The second says what it can do for a library that keeps our promises on the
wire: any language may take part, each message can be sent again by itself, and the saga's row is the truth.

|                                     | `bare`                          | `amends`                   |
|-------------------------------------|---------------------------------|----------------------------|
| a row of the outbox is              | a packet of events              | an event                   |
| an event is                         | an array of saga id, step, order| a CloudEvent               |
| what the next command needs is read | from the reply, which echoes it | from the saga's locked row |
"""

import itertools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import orjson

Order = dict[str, Any]
"""What a saga is about."""

Event = tuple[str, int, Order]
"""A command or the reply to it: saga id, step, order."""

PACKET_EVENTS: Final = 500
"""Two hundred kilobytes at most: well below the broker's limit."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One message of the broker, and the rows of the outbox that it stands for."""

    subject: str
    body: bytes
    row_ids: list[str]
    row_bodies: list[bytes]


class Style(Protocol):
    """How events are written and read."""

    reads_state: bool
    """Whether the saga's row is read, and locked, before it is written. Replies carry no order then."""

    def pack(self, subject: str, events: Sequence[Event], kind: str) -> Packet:
        """Events of one kind (`do` or `reply`) that go one way."""

    def unpack(self, body: bytes) -> list[Event]:
        """Back from the wire."""


class Bare:
    """The least."""

    reads_state = False

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count()

    def pack(self, subject: str, events: Sequence[Event], kind: str) -> Packet:
        """One row for all."""
        body = orjson.dumps(events)
        return Packet(subject, body, [f"{self._prefix}-{next(self._numbers)}"], [body])

    def unpack(self, body: bytes) -> list[Event]:
        """They are as they were."""
        return list(orjson.loads(body))


class Amends:
    """Our own tables and messages."""

    reads_state = True

    def pack(self, subject: str, events: Sequence[Event], kind: str) -> Packet:
        """A row for each."""
        now = datetime.now(UTC).isoformat()
        envelopes = [_envelope(event, kind, now) for event in events]
        rows = [orjson.dumps(envelope) for envelope in envelopes]
        return Packet(subject, b"[" + b",".join(rows) + b"]", [f"{one['id']}:1" for one in envelopes], rows)

    def unpack(self, body: bytes) -> list[Event]:
        """What is in the envelopes."""
        return [(one["subject"], one["step"], one["data"]) for one in orjson.loads(body)]


def _envelope(event: Event, kind: str, now: str) -> dict[str, Any]:
    saga_id, step, order = event
    return {
        "specversion": "1.0",
        "id": f"{saga_id}/step-{step}/{kind}",
        "source": "/roof",
        "type": f"roof.{kind}",
        "subject": saga_id,
        "time": now,
        "datacontenttype": "application/json",
        "attempt": 1,
        "step": step,
        "data": order if kind == "do" else {},
    }


STYLES: Final[dict[str, type[Bare] | type[Amends]]] = {"bare": Bare, "amends": Amends}


def packed(style: Style, subject: str, events: Sequence[Event], kind: str) -> list[Packet]:
    """Events that go one way, in packets that the broker takes."""
    starts = range(0, len(events), PACKET_EVENTS)
    return [style.pack(subject, events[start : start + PACKET_EVENTS], kind) for start in starts]


def rows_of(packets: Sequence[Packet]) -> tuple[list[str], list[str], list[bytes]]:
    """The columns of the outbox: ids, subjects, bodies."""
    ids = [row_id for packet in packets for row_id in packet.row_ids]
    subjects = [packet.subject for packet in packets for _ in packet.row_ids]
    return ids, subjects, [body for packet in packets for body in packet.row_bodies]
