"""Envelopes go to JSON and back, alone or in a batch, and what is bad in a message stays its own affair."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox.envelope import BATCH, SINGLE, Envelope, Packet, Unreadable, decode, pack

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def envelope(**changes: Any) -> Envelope:
    attributes: dict[str, Any] = {
        "id": "saga-1/reserve-stock/do",
        "source": "orchestrator",
        "type": "inventory.reserve-stock",
        "subject": "saga-1",
        "time": NOON,
        "data": {"order": "o-1"},
    }
    return Envelope(**{**attributes, **changes})


def read(body: bytes) -> Envelope | Unreadable:
    [event] = decode(body)
    return event


def as_json(**changes: Any) -> dict[str, Any]:
    """A good event as JSON, with these attributes changed; None takes an attribute away."""
    content = {**json.loads(envelope().encode()), **changes}
    return {name: value for name, value in content.items() if value is not None}


def why_unreadable(content: Any) -> str:
    event = read(json.dumps(content).encode())
    assert isinstance(event, Unreadable), event
    return event.reason


# --- one event ---------------------------------------------------------------------------------------------------


def test_an_envelope_survives_the_wire() -> None:
    one = envelope(attempt=3, replyto="saga.reply.inventory", undoes="a", answers="b", outcome="refused")
    assert read(one.encode().encode()) == one


def test_what_is_on_the_wire_is_cloudevents_1_0() -> None:
    assert json.loads(envelope().encode()) == {
        "specversion": "1.0",
        "id": "saga-1/reserve-stock/do",
        "source": "orchestrator",
        "type": "inventory.reserve-stock",
        "subject": "saga-1",
        "time": "2026-01-01T12:00:00Z",
        "datacontenttype": "application/json",
        "data": {"order": "o-1"},
        "attempt": 1,
    }


def test_every_attempt_has_a_message_id_of_its_own_and_the_same_id() -> None:
    first, again = envelope(), envelope(attempt=2)
    assert first.id == again.id
    assert (first.message_id, again.message_id) == (
        "saga-1/reserve-stock/do:1",
        "saga-1/reserve-stock/do:2",
    )


def test_an_attribute_that_we_do_not_know_is_kept() -> None:
    event = read(json.dumps(as_json(traceparent="00-abc")).encode())
    assert isinstance(event, Envelope)
    assert json.loads(event.encode())["traceparent"] == "00-abc"


def test_nothing_in_the_data_is_left_out() -> None:
    one = envelope(data={"none": None, "nested": {"none": None}, "list": [None]})
    assert read(one.encode().encode()) == one


CHARACTERS = st.characters(exclude_characters="\x00", codec="utf-8")
WORDS = st.text(CHARACTERS, max_size=20)
IDS = st.text(CHARACTERS, min_size=1, max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(CHARACTERS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
ENVELOPES = st.builds(
    Envelope,
    id=IDS,
    source=WORDS,
    type=WORDS,
    subject=IDS,
    time=st.datetimes(timezones=st.just(UTC)),
    data=st.dictionaries(WORDS, JSON, max_size=4),
    attempt=st.integers(1, 2**31 - 1),
    replyto=st.none() | st.just("saga.reply.inventory"),
    undoes=st.none() | IDS,
    answers=st.none() | IDS,
    outcome=st.sampled_from([None, "done", "refused"]),
)


@settings(deadline=None, max_examples=200)
@given(ENVELOPES)
def test_any_envelope_survives_the_wire(one: Envelope) -> None:
    assert read(one.encode().encode()) == one


@settings(deadline=None, max_examples=100)
@given(st.lists(ENVELOPES, max_size=12), st.integers(1, 5), st.integers(1, 2000))
def test_any_envelopes_survive_packing(envelopes: list[Envelope], max_events: int, max_bytes: int) -> None:
    events = [Packet(f"{n}:{one.message_id}", f"saga.{n % 2}", one.encode()) for n, one in enumerate(envelopes)]
    packets = pack(events, max_events=max_events, max_bytes=max_bytes)
    for subject in ("saga.0", "saga.1"):
        ours = [packet for packet in packets if packet.subject == subject]
        sent = [one for n, one in enumerate(envelopes) if f"saga.{n % 2}" == subject]
        assert [event for packet in ours for event in decode(packet.body.encode())] == sent
    for packet in packets:
        carried = len(decode(packet.body.encode()))
        assert carried == 1 or len(packet.body.encode()) <= max_bytes
        assert carried <= max_events
        assert packet.content_type == (BATCH if carried > 1 else SINGLE)
    assert len({packet.message_id for packet in packets}) == len(packets)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_can_be_read_or_are_told_why_not(body: bytes) -> None:
    for event in decode(body):
        assert isinstance(event, Envelope) or event.reason


# --- what cannot be read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'"\\ud800"', b"[" * 100_000, b'{"a": 1,}'])
def test_what_is_not_json_is_unreadable(body: bytes) -> None:
    event = read(body)
    assert isinstance(event, Unreadable)
    assert event.reason.startswith("it is not JSON: ")


def test_the_text_of_what_is_not_json_is_kept_as_it_came_and_can_be_stored() -> None:
    event = read(b"caf\xc3\xa9 \xff \x00")
    assert isinstance(event, Unreadable)
    assert event.text == "café \\xff \\x00"


@pytest.mark.parametrize("content", [1, None, "text", True, [[]], {}])
def test_what_is_json_and_no_event_is_unreadable(content: Any) -> None:
    assert why_unreadable(content).startswith("it is not a CloudEvent: ")


@pytest.mark.parametrize("missing", ["id", "source", "type", "subject", "time", "data"])
def test_an_event_without_a_needed_attribute_is_unreadable(missing: str) -> None:
    assert why_unreadable(as_json(**{missing: None})) == f"it is not a CloudEvent: {missing}: Field required"


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("specversion", "0.3"),
        ("id", ""),
        ("id", "x" * 351),
        ("id", 7),
        ("subject", ""),
        ("answers", "x" * 351),
        ("time", "2026-01-01T12:00:00"),
        ("time", "at noon"),
        ("datacontenttype", "text/xml"),
        ("data", "text"),
        ("data", ["list"]),
        ("attempt", 0),
        ("attempt", 2**31),
        ("outcome", "perhaps"),
        ("replyto", "saga.*"),
        ("replyto", "saga.>"),
        ("replyto", "saga reply"),
        ("replyto", "saga..reply"),
        ("replyto", ""),
        ("replyto", "x" * 256),
    ],
)
def test_an_attribute_that_cannot_be_used_makes_the_event_unreadable(attribute: str, value: Any) -> None:
    assert why_unreadable(as_json(**{attribute: value})).startswith(f"it is not a CloudEvent: {attribute}: ")


@pytest.mark.parametrize(
    "where",
    [
        {"id": "a\x00b"},
        {"data": {"name": "\x00"}},
        {"data": {"\x00": 1}},
        {"data": {"deep": [[{"x": ["\x00"]}]]}},
        {"unknown": "\x00"},
    ],
)
def test_a_character_that_postgresql_cannot_keep_is_refused(where: dict[str, Any]) -> None:
    assert why_unreadable(as_json(**where)) == "it has the character U+0000 in it"


def test_text_that_only_looks_like_that_character_is_accepted() -> None:
    one = envelope(data={"regex": "\\u0000"})
    assert b"\\u0000" in one.encode().encode()
    assert read(one.encode().encode()) == one


# --- many events -------------------------------------------------------------------------------------------------


def test_a_batch_is_read_in_its_order() -> None:
    events = [envelope(id=f"e-{number}") for number in range(3)]
    assert decode(f"[{','.join(one.encode() for one in events)}]".encode()) == events
    assert decode(b"[]") == []


@pytest.mark.parametrize("bad", ['{"id":"lonely"}', "7", '{"id":"nul\\u0000"}'])
def test_one_bad_event_does_not_spoil_its_neighbours(bad: str) -> None:
    before, after = envelope(id="before"), envelope(id="after")
    first, broken, last = decode(f"[{before.encode()},{bad},{after.encode()}]".encode())
    assert (first, last) == (before, after)
    assert isinstance(broken, Unreadable)


def test_a_bad_event_in_a_batch_is_kept_without_its_neighbours() -> None:
    _, broken = decode(f'[{envelope().encode()},{{"id":"é"}}]'.encode())
    assert isinstance(broken, Unreadable)
    assert json.loads(broken.text) == {"id": "é"}


# --- packing -----------------------------------------------------------------------------------------------------


def events(*texts: str, subject: str = "saga.cmd") -> list[Packet]:
    return [Packet(f"m-{number}", subject, text) for number, text in enumerate(texts)]


def bodies(packets: Sequence[Packet]) -> list[str]:
    return [packet.body for packet in packets]


def test_nothing_makes_no_packet() -> None:
    assert pack([]) == []


def test_a_lone_event_goes_as_it_is_under_its_own_id() -> None:
    [packet] = pack(events('{"é":1}'))
    assert packet == Packet("m-0", "saga.cmd", '{"é":1}')
    assert packet.content_type == SINGLE


def test_events_of_one_subject_go_together_in_their_order() -> None:
    [packet] = pack(events("3", "1", "2"))
    assert (packet.subject, packet.body, packet.content_type) == ("saga.cmd", "[3,1,2]", BATCH)


def test_events_of_different_subjects_never_go_together() -> None:
    packets = pack([Packet("a", "x", "1"), Packet("b", "y", "2"), Packet("c", "x", "3")])
    assert [(packet.subject, packet.body) for packet in packets] == [("x", "[1,3]"), ("y", "2")]


def test_a_packet_carries_at_most_so_many_events() -> None:
    assert bodies(pack(events(*"12345"), max_events=2)) == ["[1,2]", "[3,4]", "5"]
    assert bodies(pack(events(*"1234"), max_events=2)) == ["[1,2]", "[3,4]"]
    assert bodies(pack(events("1", "2"), max_events=1)) == ["1", "2"]


def test_a_packet_is_at_most_so_many_bytes() -> None:
    assert bodies(pack(events("1234", "1234"), max_bytes=11)) == ["[1234,1234]"]
    assert bodies(pack(events("1234", "1234"), max_bytes=10)) == ["1234", "1234"]


def test_bytes_are_counted_and_not_characters() -> None:
    text = '"' + "é" * 100 + '"'
    packets = pack(events(*[text] * 10), max_bytes=1000)
    assert [len(packet.body.encode()) for packet in packets] == [4 * 202 + 5] * 2 + [2 * 202 + 3]


def test_an_event_above_the_limit_goes_alone() -> None:
    assert bodies(pack(events("1", "2" * 50, "3"), max_bytes=20)) == ["1", "2" * 50, "3"]


def test_the_same_events_make_the_same_message_id_and_others_another() -> None:
    [first], [same], [other] = pack(events("1", "2")), pack(events("8", "9")), pack(events("1", "2", "3"))
    assert first.message_id == same.message_id
    assert first.message_id != other.message_id
    assert first.message_id.startswith("batch:")


def test_a_full_packet_is_whole_and_its_message_id_fits_its_column() -> None:
    texts = [str(number) for number in range(500)]
    [packet] = pack(Packet(text.rjust(350), "saga.cmd", text) for text in texts)
    assert packet.body == f"[{','.join(texts)}]"
    assert len(packet.message_id) < 100
