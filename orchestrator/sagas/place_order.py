"""The saga `place-order`: an order is opened, stock and payment are secured, the money is taken, the rest follows.

    | stage | step               | participant | undo           |            |
    |-------|--------------------|-------------|----------------|------------|
    | 1     | open-order         | order       | reject-order   | reversible |
    | 2     | reserve-stock      | inventory   | release-stock  | reversible |
    | 3     | authorise-payment  | payment     | void-payment   | reversible |
    | 4     | capture-payment    | payment     |                | pivot      |
    | 5     | sell-stock         | inventory   |                | retriable  |
    | 6     | confirm-order      | order       |                | retriable  |

The order is confirmed last: until then it is pending, which tells everybody that its facts may still change
(a semantic lock, Frank & Zahle 1998). Every id that an undo needs is the saga's own.
"""

from decimal import Decimal
from typing import Annotated, Final, Self

from pydantic import ConfigDict, Field, model_validator

from orchestrator.definition import Saga, SagaData, reversible, step
from outbox.contracts import Message
from participants.inventory.contracts import ReleaseStock, ReserveStock, SellStock, StockLine
from participants.order.contracts import ConfirmOrder, OpenOrder, OrderLine, Price, RejectOrder
from participants.payment.contracts import AuthorisePayment, CapturePayment, PaymentAuthorised, VoidPayment

MAX_TOTAL: Final = Decimal(10**12)
Name = Annotated[str, Field(min_length=1, max_length=100)]


class Line(Message):
    """One line of an order as the customer gives it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sku: Name
    quantity: Annotated[int, Field(gt=0, le=1_000_000)]
    unit_price: Price


class PlaceOrder(SagaData):
    """An order, and the authorisation code of its payment once there is one."""

    order_id: Name
    customer_id: Name
    lines: Annotated[tuple[Line, ...], Field(min_length=1, max_length=500)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    authorisation_code: str | None = None

    @model_validator(mode="after")
    def _total_can_be_paid(self) -> Self:
        if self.total > MAX_TOTAL:
            raise ValueError(f"the total, {self.total}, is more than {MAX_TOTAL:,}")
        return self

    @property
    def total(self) -> Decimal:
        """What the customer pays, exactly."""
        return sum((line.unit_price * line.quantity for line in self.lines), Decimal(0))


def open_order(data: PlaceOrder) -> OpenOrder:
    """Make the order visible, pending."""
    return OpenOrder(
        order_id=data.order_id,
        placement_id=data.saga_id,
        customer_id=data.customer_id,
        lines=tuple(OrderLine(sku=line.sku, quantity=line.quantity, unit_price=line.unit_price) for line in data.lines),
        currency=data.currency,
    )


def reject_order(data: PlaceOrder) -> RejectOrder:
    """Undo of open_order."""
    return RejectOrder(order_id=data.order_id, placement_id=data.saga_id)


def reserve_stock(data: PlaceOrder) -> ReserveStock:
    """Set the articles aside."""
    return ReserveStock(
        reservation_id=data.saga_id,
        lines=tuple(StockLine(sku=line.sku, quantity=line.quantity) for line in data.lines),
    )


def release_stock(data: PlaceOrder) -> ReleaseStock:
    """Undo of reserve_stock."""
    return ReleaseStock(reservation_id=data.saga_id)


def authorise_payment(data: PlaceOrder) -> AuthorisePayment:
    """Hold the total on the customer's account."""
    return AuthorisePayment(
        hold_id=data.saga_id, customer_id=data.customer_id, amount=data.total, currency=data.currency
    )


def keep_authorisation(data: PlaceOrder, reply: PaymentAuthorised) -> PlaceOrder:
    """Remember the code that the bank gave."""
    return data.model_copy(update={"authorisation_code": reply.authorisation_code})


def void_payment(data: PlaceOrder) -> VoidPayment:
    """Undo of authorise_payment."""
    return VoidPayment(hold_id=data.saga_id)


def capture_payment(data: PlaceOrder) -> CapturePayment:
    """The point of no return: the money changes hands."""
    return CapturePayment(hold_id=data.saga_id)


def sell_stock(data: PlaceOrder) -> SellStock:
    """What was set aside is sold."""
    return SellStock(reservation_id=data.saga_id)


def confirm_order(data: PlaceOrder) -> ConfirmOrder:
    """Lift the semantic lock."""
    return ConfirmOrder(order_id=data.order_id, placement_id=data.saga_id)


place_order = Saga(
    name="place-order",
    data=PlaceOrder,
    reversible=(
        reversible(open_order, undo=reject_order),
        reversible(reserve_stock, undo=release_stock),
        reversible(authorise_payment, undo=void_payment, then=keep_authorisation),
    ),
    pivot=step(capture_payment),
    retriable=(step(sell_stock), step(confirm_order)),
)
