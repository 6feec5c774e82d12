"""What the source of a definition's function tells, which fields it reads and supplies; and when it tells nothing."""

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import pytest

from orchestrator.definition import SagaData, supplied
from orchestrator.reads import reads, supplied_fields, supplies
from outbox.contracts import Reply

# --- the data ----------------------------------------------------------------------------------------------------


class Ok(Reply):
    code: str = ""


class Order(SagaData):
    customer: str = ""
    price: int = 0
    code: str | None = supplied()
    note: str | None = supplied()

    @property
    def total(self) -> int:
        return self.price * 2

    @property
    def heading(self) -> str:
        return f"{self.customer}: {self.total}"

    @property
    def circular(self) -> str:
        return self.circular + str(self.code)

    def shout(self) -> str:
        return self.customer.upper()


def anything(order: object) -> int:
    return 0


def test_supplied_fields_are_no_input_and_are_none_at_first() -> None:
    assert supplied_fields(Order) == {"code", "note"}
    assert (Order().code, Order(code="c").code) == (None, "c")


# --- what a function reads -----------------------------------------------------------------------------------------


def reads_two(order: Order) -> str:
    return f"{order.customer} {order.code}"


def reads_by_a_property(order: Order) -> str:
    return order.heading


def reads_by_a_circle(order: Order) -> str:
    return order.circular


def reads_nothing(order: Order) -> str:
    code = Order(code="x").code
    return code or ""


def reads_in_a_comprehension(order: Order) -> list[str]:
    return [order.customer for _ in range(order.price)]


def reads_its_first_argument(order: Order, reply: Ok) -> str:
    return order.customer + reply.code


reads_as_a_lambda = lambda order: order.note  # noqa: E731


@pytest.mark.parametrize(
    ("function", "fields"),
    [
        (reads_two, frozenset({"customer", "code"})),
        (reads_by_a_property, frozenset({"customer", "price"})),
        (reads_by_a_circle, frozenset({"code"})),
        (reads_nothing, frozenset()),
        (reads_in_a_comprehension, frozenset({"customer", "price"})),
        (reads_its_first_argument, frozenset({"customer"})),
        (reads_as_a_lambda, frozenset({"note"})),
    ],
)
def test_what_a_function_reads(function: Callable[..., Any], fields: frozenset[str]) -> None:
    assert reads(function, Order) == fields


def hands_it_on(order: Order) -> int:
    return anything(order)


def hands_it_on_by_name(order: Order) -> int:
    return anything(order=order)


def has_a_function_inside(order: Order) -> str:
    def inner() -> str:
        return order.customer

    return inner()


def takes_nothing() -> int:
    return 0


def made_of_text() -> Callable[..., Any]:
    namespace: dict[str, Any] = {}
    code = compile("def made(order): return order.code", "<nowhere>", "exec")
    FunctionType(code, namespace)()
    return namespace["made"]  # type: ignore[no-any-return]


UNTOLD = [
    hands_it_on,
    hands_it_on_by_name,
    has_a_function_inside,
    takes_nothing,
    made_of_text(),
    len,
    partial(reads_two),
]


@pytest.mark.parametrize("function", UNTOLD)
def test_where_the_source_does_not_tell_nothing_is_claimed(function: Callable[..., Any]) -> None:
    assert reads(function, Order) is None


# --- what a `then` supplies ----------------------------------------------------------------------------------------


def supplies_one(order: Order, reply: Ok) -> Order:
    return order.model_copy(update={"code": reply.code})


def supplies_two(order: Order, reply: Ok) -> Order:
    if reply.code:
        return order.model_copy(update={"code": reply.code})
    return order.model_copy(update={"note": "none", "code": ""})


@pytest.mark.parametrize(
    ("then", "fields"), [(supplies_one, frozenset({"code"})), (supplies_two, frozenset({"code", "note"}))]
)
def test_what_a_then_supplies(then: Callable[..., Any], fields: frozenset[str]) -> None:
    assert supplies(then) == fields


NAME = "code"


def supplies_a_computed_key(order: Order, reply: Ok) -> Order:
    return order.model_copy(update={NAME: reply.code})


def supplies_what_is_unpacked(order: Order, reply: Ok) -> Order:
    return order.model_copy(update={**reply.model_dump()})


def supplies_a_variable(order: Order, reply: Ok) -> Order:
    update = reply.model_dump()
    return order.model_copy(update=update)


def supplies_by_a_helper(order: Order, reply: Ok) -> Order:
    known = reply.model_copy(update={"code": "c"})
    return helped(order, known)


def helped(order: Order, reply: Ok) -> Order:
    return order.model_copy(update={"note": reply.code})


def supplies_another_way(order: Order, reply: Ok) -> Order:
    return Order(saga_id=order.saga_id, code=reply.code)


@pytest.mark.parametrize(
    "then",
    [
        supplies_a_computed_key,
        supplies_what_is_unpacked,
        supplies_a_variable,
        supplies_by_a_helper,
        supplies_another_way,
        made_of_text(),
    ],
)
def test_where_a_then_does_not_tell_nothing_is_claimed(then: Callable[..., Any]) -> None:
    assert supplies(then) is None
