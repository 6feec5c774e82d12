"""A test kit for people who write sagas: no servers, no databases, no waiting. Time is virtual. No I/O.

*One event after the other*, for everything that can go wrong at a certain moment:

    saga = given(place_order).started(order_id="o-1", ...).then_asks("open-order")
    saga.when(done("open-order")).then_asks("reserve-stock")
    saga.when(refused("reserve-stock", "sold out")).then_undoes("open-order")
    saga.when(done("open-order")).then_compensated()
    saga.when(answered("reserve-stock/do")).then_nothing_happened("the saga has ended")

*A whole saga in one call*, with fake participants that keep the protocol:

    order = rehearse(place_order, PlaceOrder(...), {ReserveStock: Refused("out-of-stock", "none left")})
    assert order.status == "compensated"
    assert order.undone == ["open-order"]

Both run the machine that runs in production. So a test is about the saga: which steps, in which order, undone by what.
"""

from orchestrator.testing.fakes import SILENCE, Answer, CannotRehearse, Inbox, Late, Script, SignalScript, late
from orchestrator.testing.happenings import (
    admitted,
    answered,
    cancelled,
    deadline,
    done,
    paused,
    refused,
    resolved,
    resumed,
    retried,
    signal_refused,
    signalled,
    silence,
    timer,
    undo_requested,
)
from orchestrator.testing.rehearsal import Rehearsal, rehearse
from orchestrator.testing.specification import (
    DAWN,
    SAGA_ID,
    Happening,
    Specification,
    check_log_is_the_truth,
    given,
)
from orchestrator.testing.stage import Sent

__all__ = [
    "DAWN", "SAGA_ID", "SILENCE", "Answer", "CannotRehearse", "Happening", "Inbox", "Late", "Rehearsal", "Script",
    "Sent", "SignalScript", "Specification", "admitted", "answered", "cancelled", "check_log_is_the_truth", "deadline",
    "done", "given", "late", "paused", "refused", "rehearse", "resolved", "resumed", "retried", "signal_refused",
    "signalled", "silence", "timer", "undo_requested",
]  # fmt: skip
