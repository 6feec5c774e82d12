"""The saga on which mutants are hunted: the smallest that has everything."""

from orchestrator.definition import Saga, parallel, reversible, step
from orchestrator.explorer import Bounds
from orchestrator.sagas.place_order import (
    PlaceOrder,
    authorise_payment,
    capture_payment,
    confirm_order,
    open_order,
    reject_order,
    release_stock,
    reserve_stock,
    void_payment,
)

SMALL = Saga(
    name="small",
    data=PlaceOrder,
    reversible=(
        reversible(open_order, undo=reject_order),
        parallel(
            reversible(reserve_stock, undo=release_stock),
            reversible(authorise_payment, undo=void_payment),
        ),
    ),
    pivot=step(capture_payment),
    retriable=(step(confirm_order),),
)
BOUNDS = Bounds(attempts=2, retries=1, states=60_000)
