"""Command, reply and event types name themselves."""

from typing import Any

import pytest
from pydantic import ValidationError

from outbox.contracts import Command, Event, Refused, Reply, kebab_case


class StockReserved(Reply):
    shelf: str = ""


class StockReservedInFull(StockReserved):
    pass


class ReserveStock(Command[StockReserved], participant="inventory"):
    order: str
    units: int = 1


class ReserveMoreStock(ReserveStock, participant="warehouse"):
    pass


class OrderCreated(Event, type="order.created"):
    order: str


@pytest.mark.parametrize(
    ("name", "kebab"),
    [
        ("ReserveStock", "reserve-stock"),
        ("reserve_stock", "reserve-stock"),
        ("reserve-stock", "reserve-stock"),
        ("Reserve2Units", "reserve2-units"),
        ("X", "x"),
        ("", ""),
    ],
)
def test_names_in_any_style_become_kebab_case(name: str, kebab: str) -> None:
    assert kebab_case(name) == kebab


def test_a_command_names_its_participant_its_type_and_its_reply() -> None:
    named = (ReserveStock.participant, ReserveStock.type, ReserveStock.reply)
    assert named == ("inventory", "inventory.reserve-stock", StockReserved)
    assert ReserveStock.subject() == "saga.cmd.inventory.reserve-stock"


def test_a_command_may_extend_another_and_keeps_its_reply() -> None:
    assert ReserveMoreStock.subject() == "saga.cmd.warehouse.reserve-more-stock"
    assert ReserveMoreStock.reply is StockReserved
    assert ReserveStock.type == "inventory.reserve-stock"


def test_a_reply_is_named_after_its_class() -> None:
    assert (StockReserved.type, StockReservedInFull.type) == ("stock-reserved", "stock-reserved-in-full")


def test_an_event_has_the_name_that_it_is_given() -> None:
    assert (OrderCreated.type, OrderCreated.subject()) == ("order.created", "saga.event.order.created")


def without_reply() -> type:
    class Bare(Command, participant="inventory"):  # type: ignore[type-arg]
        pass

    return Bare


def with_any_reply() -> type:
    class Bare(Command[Any], participant="inventory"):
        pass

    return Bare


@pytest.mark.parametrize("declare", [without_reply, with_any_reply])
def test_a_command_that_does_not_name_its_reply_is_refused(declare: Any) -> None:
    with pytest.raises(TypeError, match="Bare does not name its reply: subclass Command"):
        declare()


def test_a_message_cannot_be_changed() -> None:
    command = ReserveStock(order="o-1")
    with pytest.raises(ValidationError, match="frozen"):
        command.order = "o-2"  # type: ignore[misc]


def test_a_message_tolerates_fields_of_a_newer_sender() -> None:
    assert ReserveStock.model_validate({"order": "o-1", "gift": True}) == ReserveStock(order="o-1")


def test_a_message_does_not_tolerate_a_field_that_is_missing() -> None:
    with pytest.raises(ValidationError, match="order"):
        ReserveStock.model_validate({"units": 2})


def test_a_message_survives_json() -> None:
    command = ReserveStock(order="ö-1", units=3)
    assert ReserveStock.model_validate_json(command.model_dump_json()) == command
    assert command.model_dump() == {"order": "ö-1", "units": 3}


def test_a_refusal_has_a_code_for_programs_and_a_reason_for_people() -> None:
    refused = Refused("out-of-stock", "nothing is left of it")
    assert (refused.code, refused.reason, str(refused)) == (
        "out-of-stock",
        "nothing is left of it",
        "nothing is left of it",
    )
