"""The sagas that are measured besides place-order: a chain of N steps, and one that waits for a signal.

The chain goes round the three services of place-order: it opens an order, reserves stock, holds money, and opens
another order. Each step has its undo and there is no pivot. Its references begin with the saga's id, so that the
auditors of the services know whose they are.

SAGA_BENCH_STEPS says how many steps the chain has: a definition is data, and every process must load the same.
"""

import os
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import Field

from orchestrator.definition import Saga, SagaData, Signal, reversible, wait_for
from orchestrator.steps import Reversible
from outbox.contracts import Command
from participants.inventory.contracts import ReleaseStock, ReserveStock, StockLine
from participants.order.contracts import OpenOrder, OrderLine, RejectOrder
from participants.payment.contracts import AuthorisePayment, VoidPayment

SERVICES: Final = 3
PRICE: Final = Decimal("1.00")


class NotedOrder(OpenOrder):
    """An order with a text that the service reads over, as any consumer does with a field that it does not know."""

    note: str = ""


class NotedReservation(ReserveStock):
    """A reservation with such a text."""

    note: str = ""


class NotedPayment(AuthorisePayment):
    """A payment with such a text."""

    note: str = ""


class Link(SagaData):
    """What every step of the chain is about. `last_amount` is what the last payment holds: too much, and it is refused.

    `note` is the payload: it is kept with the saga, and travels in every command.
    """

    order_id: Annotated[str, Field(min_length=1, max_length=90)]
    customer_id: str
    sku: str
    last_amount: Decimal = PRICE
    note: str = ""


def reference(saga_id: str, number: int) -> str:
    """The id of what step `number` does: the saga's own, and from the fourth step on which step it was."""
    return saga_id if number <= SERVICES else f"{saga_id}/{number}"


def chain(steps: int) -> Saga[Link]:
    """The chain of so many steps."""
    makers = (_order, _reservation, _payment)
    reversibles = [makers[number % SERVICES](number + 1, steps) for number in range(steps)]
    return Saga(name="chain", data=Link, reversible=tuple(reversibles), pivot=None)


def _order(number: int, _steps: int) -> Reversible[Link]:
    def do(data: Link) -> NotedOrder:
        return NotedOrder(
            order_id=reference(data.order_id, number),
            placement_id=reference(data.saga_id, number),
            customer_id=data.customer_id,
            lines=(OrderLine(sku=data.sku, quantity=1, unit_price=PRICE),),
            currency="EUR",
            note=data.note,
        )

    def undo(data: Link) -> RejectOrder:
        return RejectOrder(order_id=reference(data.order_id, number), placement_id=reference(data.saga_id, number))

    return _step("open_order", do, undo, number)


def _reservation(number: int, _steps: int) -> Reversible[Link]:
    def do(data: Link) -> NotedReservation:
        line = StockLine(sku=data.sku, quantity=1)
        return NotedReservation(reservation_id=reference(data.saga_id, number), lines=(line,), note=data.note)

    def undo(data: Link) -> ReleaseStock:
        return ReleaseStock(reservation_id=reference(data.saga_id, number))

    return _step("reserve_stock", do, undo, number)


def _payment(number: int, steps: int) -> Reversible[Link]:
    def do(data: Link) -> NotedPayment:
        return NotedPayment(
            hold_id=reference(data.saga_id, number),
            customer_id=data.customer_id,
            amount=data.last_amount if number == steps else PRICE,
            currency="EUR",
            note=data.note,
        )

    def undo(data: Link) -> VoidPayment:
        return VoidPayment(hold_id=reference(data.saga_id, number))

    return _step("authorise_payment", do, undo, number)


def _step(
    name: str, do: Callable[[Link], Command[Any]], undo: Callable[[Link], Command[Any]], number: int
) -> Reversible[Link]:
    """Steps are called after their functions, and no two alike."""
    do.__name__ = name if number <= SERVICES else f"{name}_{number}"
    return reversible(do, undo=undo)


class GoAhead(Signal):
    """What the sagas that wait are never told."""


chain_of_steps: Final = chain(int(os.environ.get("SAGA_BENCH_STEPS", "3")))
waiting_order: Final = Saga(
    name="waiting-order", data=Link, reversible=(_order(1, 1), wait_for(GoAhead), _reservation(2, 2)), pivot=None
)
