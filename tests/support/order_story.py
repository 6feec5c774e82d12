"""The order on which the story of the state machine is told, and how far it has come.

open-order    reserve-stock || authorise-payment    capture-payment (pivot)    confirm-order
"""

from datetime import timedelta

from orchestrator.definition import Policy, Saga, SagaData, parallel, reversible, step
from orchestrator.testing import Specification, done, given, refused
from outbox.contracts import Command, Reply


class Ok(Reply):
    pass


class Authorised(Reply):
    authorisation: str


class OpenOrder(Command[Ok], participant="order"):
    order: str


class RejectOrder(Command[Ok], participant="order"):
    order: str


class ConfirmOrder(Command[Ok], participant="order"):
    order: str


class ReserveStock(Command[Ok], participant="inventory"):
    reservation: str


class ReleaseStock(Command[Ok], participant="inventory"):
    reservation: str


class AuthorisePayment(Command[Authorised], participant="payment"):
    payment: str


class VoidPayment(Command[Ok], participant="payment"):
    payment: str


class CapturePayment(Command[Ok], participant="payment"):
    authorisation: str


class Order(SagaData):
    customer: str = "ada"
    authorisation: str = ""


BROKEN: set[str] = set()
"""The definition functions that raise: a test that puts a name in takes it out again."""


def break_if_told(function: str) -> None:
    if function in BROKEN:
        raise ZeroDivisionError(f"{function} is broken")


def open_order(order: Order) -> OpenOrder:
    break_if_told("open_order")
    return OpenOrder(order=order.saga_id)


def reject_order(order: Order) -> RejectOrder:
    break_if_told("reject_order")
    return RejectOrder(order=order.saga_id)


def reserve_stock(order: Order) -> ReserveStock:
    break_if_told("reserve_stock")
    return ReserveStock(reservation=order.saga_id)


def release_stock(order: Order) -> ReleaseStock:
    break_if_told("release_stock")
    return ReleaseStock(reservation=order.saga_id)


def authorise_payment(order: Order) -> AuthorisePayment:
    return AuthorisePayment(payment=order.saga_id)


def void_payment(order: Order) -> VoidPayment:
    return VoidPayment(payment=order.saga_id)


def keep_authorisation(order: Order, reply: Authorised) -> Order:
    break_if_told("keep_authorisation")
    return order.model_copy(update={"authorisation": reply.authorisation})


def capture_payment(order: Order) -> CapturePayment:
    return CapturePayment(authorisation=order.authorisation)


def confirm_order(order: Order) -> ConfirmOrder:
    break_if_told("confirm_order")
    return ConfirmOrder(order=order.saga_id)


FEW = Policy(timeout=timedelta(seconds=1), attempts=3, factor=2, jitter=0)

place_order = Saga(
    name="place-order",
    data=Order,
    reversible=(
        reversible(open_order, undo=reject_order, policy=FEW, undo_policy=FEW),
        parallel(
            reversible(reserve_stock, undo=release_stock, policy=FEW, undo_policy=FEW),
            reversible(authorise_payment, undo=void_payment, then=keep_authorisation, policy=FEW, undo_policy=FEW),
        ),
    ),
    pivot=step(capture_payment, policy=FEW),
    retriable=(step(confirm_order, policy=FEW),),
)

paid = done("authorise-payment", authorisation="a-1")


def opened() -> Specification:
    """The order is open, and both parallel steps are out."""
    return given(place_order).started().when(done("open-order"))


def prepared() -> Specification:
    """Everything reversible is done, and the pivot is out."""
    return opened().when(done("reserve-stock"), paid)


def past_the_pivot() -> Specification:
    """The money is taken, and the last step is out."""
    return prepared().when(done("capture-payment"))


def completed() -> Specification:
    """It went well."""
    return past_the_pivot().when(done("confirm-order")).then_completed()


def compensated() -> Specification:
    """There was no stock."""
    return opened().when(refused("reserve-stock"), done("authorise-payment"), done("open-order"))
