"""The door: what is wrong with a start is said before it is accepted, with the name of what is wrong."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import Field

from orchestrator.definition import Saga, reversible, supplied
from orchestrator.door import MAX_INPUT_BYTES, MAX_KEY, BadInput, StartRequest, read_request
from orchestrator.model import Caller
from tests.support.sagas import Hold, hold_stock, release, reserve


class Parcel(Hold):
    """Something with a field of every troublesome kind."""

    weight: float = 1.0
    notes: dict[str, str] = Field(default_factory=dict)
    whatever: Any = None
    tracking: str | None = supplied()


def parcel(**options: Any) -> Saga[Parcel]:
    """Its saga."""
    return Saga("parcel", Parcel, [reversible(reserve, undo=release)], None, **options)


def read(data: dict[str, Any] | None = None, /, *, saga: Saga[Any] | None = None, **options: Any) -> StartRequest:
    """Knock at the door."""
    return read_request(saga or parcel(), data or {}, **options)


def refusal(data: dict[str, Any] | None = None, /, **options: Any) -> str:
    """What is said at the door."""
    with pytest.raises(BadInput) as refused:
        read(data, **options)
    return str(refused.value)


# --- the input -----------------------------------------------------------------------------------------------------


def test_what_passes_is_what_was_given() -> None:
    caller = Caller("shop-1/do", "saga.reply.shop")
    request = read({"sku": "vase"}, key="k", if_taken="reject", labels={"a": "b"}, priority=3, caller=caller)

    assert request.data == Parcel(sku="vase")
    assert (request.definition, request.key, request.if_taken, request.caller) == ("parcel", "k", "reject", caller)
    assert (request.labels, request.priority, request.begins_at) == ({"a": "b"}, 3, None)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"quantity": "many"}, "quantity: "),
        ({"colour": "red"}, "colour: "),
        ({"saga_id": "mine"}, "saga_id: is minted by the saga; leave it out"),
        ({"tracking": "T1"}, "tracking: is supplied by one of the saga's steps; leave it out"),
        ({"tracking": None}, "tracking: is supplied"),
        ({"sku": "a\x00b"}, "sku: has a character in it that is no text"),
        ({"notes": {"a\x00b": "c"}}, "notes: has a character in it that is no text"),
        ({"notes": {"door": "a\x00"}}, "notes.door: has a character"),
        ({"whatever": ["fine", {"deep": "\udcff"}]}, "whatever.1.deep: has a character"),
        ({"weight": float("inf")}, "it has a number in it that JSON does not have"),
        ({"weight": float("nan")}, "it has a number in it that JSON does not have"),
    ],
)
def test_a_bad_input_is_refused_with_its_field(data: dict[str, Any], sentence: str) -> None:
    assert refusal(data).startswith(sentence)


def test_several_bad_fields_are_told_together() -> None:
    assert [part.partition(":")[0] for part in refusal({"quantity": "many", "colour": 1}).split("; ")] == [
        "quantity",
        "colour",
    ]


def test_the_largest_input_passes_and_one_more_byte_does_not() -> None:
    frame = len('{"sku": ""}')
    assert read({"sku": "x" * (MAX_INPUT_BYTES - frame)}).data.saga_id == ""
    assert "the input has 262,145 bytes, the limit is 262,144" in refusal({"sku": "x" * (MAX_INPUT_BYTES - frame + 1)})


def test_the_same_input_has_the_same_digest_and_another_has_another() -> None:
    first = read({"sku": "vase", "quantity": 2})
    assert read({"quantity": 2, "sku": "vase"}).digest == first.digest
    assert read({"quantity": 3, "sku": "vase"}).digest != first.digest


def test_a_field_that_a_new_version_adds_is_no_other_input() -> None:
    class Grown(Parcel):
        colour: str = "red"

    grown = Saga("parcel", Grown, [reversible(reserve, undo=release)], None, version=2)
    assert read({"sku": "vase"}, saga=grown).digest == read({"sku": "vase"}).digest


# --- the key -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "k" * (MAX_KEY + 1), "k\x00", "k\udcff"])
def test_a_key_that_no_database_can_keep_is_refused(key: str) -> None:
    assert refusal(key=key).startswith("the key ")


def test_the_longest_key_passes() -> None:
    assert read(key="ß" * MAX_KEY).key == "ß" * MAX_KEY


# --- labels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "0", "customer", "order.id", "a-b_c.d", "x" * 60])
def test_a_label_may_be_called(name: str) -> None:
    assert read(labels={name: "value"}).labels == {name: "value"}


@pytest.mark.parametrize("name", ["", "A", "größe", "a b", "-a", "a-", ".a", "a.", "x" * 61, "a\n"])
def test_a_label_may_not_be_called(name: str) -> None:
    assert refusal(labels={name: "value"}).startswith(f"label {name!r}: use up to 60 lower-case letters")


@pytest.mark.parametrize("value", ["", "x" * 201, "a\x00b", "\udcff"])
def test_a_label_may_not_be_worth(value: str) -> None:
    assert refusal(labels={"a": value}) == "label a: its value is to be a text of 1 to 200 characters"


def test_twenty_labels_pass_and_one_more_does_not() -> None:
    assert len(read(labels={f"a{number}": "b" for number in range(20)}).labels) == 20
    assert refusal(labels={f"a{number}": "b" for number in range(21)}) == "there are 21 labels, the limit is 20"


def test_labels_of_the_definition_are_kept_and_those_of_the_start_win() -> None:
    labelled = parcel(labels=lambda data: {"sku": data.sku, "shop": "here"})
    assert read({"sku": "vase"}, saga=labelled, labels={"shop": "there"}).labels == {"sku": "vase", "shop": "there"}


def raising(_data: Parcel) -> Any:
    """A function of the definition that fails."""
    raise LookupError("no such article")


@pytest.mark.parametrize("wrong", [raising, lambda data: None, lambda data: ["a"]])
def test_labels_that_fail_are_told_and_do_not_crash(wrong: Callable[[Parcel], Any]) -> None:
    assert refusal(saga=parcel(labels=wrong)).startswith("the definition's `labels` failed: ")


def test_labels_of_the_definition_that_are_no_texts_become_texts() -> None:
    counted: Any = lambda data: {1: data.quantity}  # noqa: E731
    assert read({"quantity": 7}, saga=parcel(labels=counted)).labels == {"1": "7"}


# --- priority ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("definition", "given", "priority"),
    [
        (0, None, 0),
        (5, None, 5),
        (5, -1000, -1000),
        (lambda data: data.quantity, None, 1),
        (raising, 1000, 1000),
    ],
)
def test_the_priority_is_the_starts_or_the_definitions(definition: Any, given: int | None, priority: int) -> None:
    assert read(saga=parcel(priority=definition), priority=given).priority == priority


@pytest.mark.parametrize(
    ("definition", "given"),
    [
        (0, 1001),
        (0, -1001),
        (0, 1.0),
        (0, True),
        (lambda data: "high", None),
        (lambda data: None, None),
        (2000, None),
    ],
)
def test_a_priority_out_of_bounds_is_refused(definition: Any, given: Any) -> None:
    sentence = refusal(saga=parcel(priority=definition), priority=given)
    assert sentence.startswith("the priority is ")
    assert sentence.endswith("it is to be between -1000 and 1000")


def test_a_priority_that_fails_is_told_and_does_not_crash() -> None:
    assert refusal(saga=parcel(priority=raising)) == "the definition's `priority` failed: LookupError: no such article"


# --- the time ------------------------------------------------------------------------------------------------------


def test_a_time_to_begin_has_a_time_zone() -> None:
    summer = datetime(2026, 7, 1, 9, tzinfo=timezone(timedelta(hours=2)))
    assert read(saga=hold_stock, begins_at=summer).begins_at == summer
    assert refusal(begins_at=summer.replace(tzinfo=None)) == "begins_at: 2026-07-01 09:00:00 has no time zone"
