"""Small sagas over the real services, each for something that place-order does not do: children, waits, limits.

    | saga             | is                                                    | for                              |
    |------------------|-------------------------------------------------------|----------------------------------|
    | hold-stock       | reserve-stock                                         | a child that can be undone whole |
    | approved-hold    | a signal, then reserve-stock                          | a child that waits for a person  |
    | pack             | hold-stock                                            | a child in the middle            |
    | charge           | authorise-payment, then capture-payment (pivot)       | a child with a pivot             |
    | sell             | order, hold-stock, payment                            | a parent                         |
    | sell-on-approval | order, approved-hold, payment                         | a parent that waits long         |
    | export           | order, pack (and so hold-stock), payment              | three generations                |
    | invoice          | order, then charge at the pivot                       | a child where nothing turns back |
    | everything       | when, each, wait and delay, and a child, in one       | orders                           |

A reservation and a hold on an account have the id of the saga that made them, so that `saga verify` finds its effects.
"""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from orchestrator.definition import (
    Policy,
    Saga,
    SagaData,
    SagaEnded,
    Signal,
    child,
    delay,
    reversible,
    reversible_each,
    step,
    supplied,
    wait_for,
)
from participants.inventory.contracts import ReleaseStock, ReserveStock, StockLine
from participants.order.contracts import ConfirmOrder, OpenOrder, OrderLine, RejectOrder
from participants.payment.contracts import AuthorisePayment, CapturePayment, PaymentAuthorised, VoidPayment

PRICE: Final = Decimal("10.00")


# --- children ----------------------------------------------------------------------------------------------------


class Hold(SagaData):
    """What is to be set aside."""

    sku: str = "lamp"
    quantity: int = 1


def reserve(data: Hold) -> ReserveStock:
    """Set it aside."""
    return ReserveStock(reservation_id=data.saga_id, lines=(StockLine(sku=data.sku, quantity=data.quantity),))


def release(data: Hold) -> ReleaseStock:
    """Undo of reserve."""
    return ReleaseStock(reservation_id=data.saga_id)


class Approval(Signal):
    """A person lets it go on."""

    by: str


hold_stock = Saga(name="hold-stock", data=Hold, reversible=[reversible(reserve, undo=release)], pivot=None)

approved_hold = Saga(
    name="approved-hold",
    data=Hold,
    reversible=[wait_for(Approval), reversible(reserve, undo=release)],
    pivot=None,
)

pack = Saga(name="pack", data=Hold, reversible=[child(hold_stock, lambda data: data)], pivot=None)


class Bill(SagaData):
    """Who is to pay."""

    customer_id: str = "ada"


def authorise(data: Bill) -> AuthorisePayment:
    """Hold the price on the customer's account."""
    return AuthorisePayment(hold_id=data.saga_id, customer_id=data.customer_id, amount=PRICE, currency="EUR")


def void(data: Bill) -> VoidPayment:
    """Undo of authorise."""
    return VoidPayment(hold_id=data.saga_id)


def capture(data: Bill) -> CapturePayment:
    """The money changes hands."""
    return CapturePayment(hold_id=data.saga_id)


charge = Saga(name="charge", data=Bill, reversible=[reversible(authorise, undo=void)], pivot=step(capture))


# --- parents -----------------------------------------------------------------------------------------------------


class Sale(Bill):
    """Something that is sold, and which saga holds it once one does."""

    order_id: str
    sku: str = "lamp"
    held_by: str | None = supplied()


def open_order(data: Sale) -> OpenOrder:
    """Make it visible."""
    line = OrderLine(sku=data.sku, quantity=1, unit_price=PRICE)
    return OpenOrder(
        order_id=data.order_id,
        placement_id=data.saga_id,
        customer_id=data.customer_id,
        lines=(line,),
        currency="EUR",
    )


def reject_order(data: Sale) -> RejectOrder:
    """Undo of open_order."""
    return RejectOrder(order_id=data.order_id, placement_id=data.saga_id)


def confirm_order(data: Sale) -> ConfirmOrder:
    """It is final."""
    return ConfirmOrder(order_id=data.order_id, placement_id=data.saga_id)


def hold_of(data: Sale) -> Hold:
    """What the child is to set aside."""
    return Hold(sku=data.sku)


def keep_holder(data: Sale, ended: SagaEnded) -> Sale:
    """Remember the child."""
    return data.model_copy(update={"held_by": ended.saga_id})


def selling(name: str, holding: Saga[Hold], **options: Any) -> Saga[Sale]:
    """An order, a child that holds the goods, the money, and the end of it. `bob` cannot pay."""
    return Saga(
        name=name,
        data=Sale,
        reversible=[
            reversible(open_order, undo=reject_order),
            child(holding, hold_of, then=keep_holder),
            reversible(authorise, undo=void),
        ],
        pivot=step(capture),
        retriable=[step(confirm_order)],
        **options,
    )


sell = selling("sell", hold_stock)
sell_on_approval = selling("sell-on-approval", approved_hold)
export = selling("export", pack)

invoice = Saga(
    name="invoice",
    data=Sale,
    reversible=[reversible(open_order, undo=reject_order)],
    pivot=child(charge, lambda data: Bill(customer_id=data.customer_id)),
    retriable=[step(confirm_order)],
)


# --- all words in one --------------------------------------------------------------------------------------------


class Tour(Bill):
    """A tour with so many stops; only a guided one is paid for."""

    stops: tuple[str, ...] = ("lamp", "lamp")
    guided: bool = True
    code: str | None = supplied()


def reserve_stop(data: Tour, sku: str) -> ReserveStock:
    """One of the stops."""
    return ReserveStock(reservation_id=data.saga_id, lines=(StockLine(sku=sku, quantity=1),))


def release_stop(data: Tour, sku: str) -> ReleaseStock:
    """Undo of reserve_stop."""
    return ReleaseStock(reservation_id=data.saga_id)


def stops_of(data: Tour) -> Sequence[str]:
    """Where it goes."""
    return data.stops


def keep_code(data: Tour, reply: PaymentAuthorised) -> Tour:
    """Remember the code that the bank gave."""
    return data.model_copy(update={"code": reply.authorisation_code})


everything = Saga(
    name="everything",
    data=Tour,
    reversible=[
        wait_for(Approval, timeout=timedelta(hours=1)),
        reversible_each(stops_of, reserve_stop, undo=release_stop, limit=1),
        reversible(authorise, undo=void, then=keep_code, when=lambda data: data.guided),
        delay("cooling-off", timedelta(minutes=5)),
    ],
    pivot=step(capture, policy=Policy(timeout=timedelta(seconds=10), attempts=2, factor=1.0, jitter=0.0)),
)

FAMILY: Final = (sell, sell_on_approval, export, invoice, everything)
"""Their children come with them."""
