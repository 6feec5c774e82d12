"""A desk: the inner half of an orchestrator, an engine without intake and relay, on a database that is real.

A test hands it replies and commands, fires its timers and lets sagas begin, by a clock that it owns:

    desk = world.desk()
    saga_id = (await desk.start(an_order())).saga_id
    await desk.receive(answer(f"{saga_id}/open-order/do"))

With it come the orders to start, and definitions with a patience that a test can outlast.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from orchestrator.admission import Admission
from orchestrator.commands import OrchestratorCommands
from orchestrator.definition import Policy
from orchestrator.definition import Saga as Definition
from orchestrator.door import StartResult
from orchestrator.engine import Engine
from orchestrator.registry import Definitions
from orchestrator.sagas import DEFINITIONS
from orchestrator.steps import Child, Parallel, Reversible, Step
from outbox.database import Database
from outbox.envelope import Envelope, Outcome
from outbox.pump import Received
from outbox.unit_of_work import Outbox, UnitOfWork

DAWN: Final = datetime(2026, 1, 1, tzinfo=UTC)


class OwnedClock:
    """Stands still until it is told to move."""

    def __init__(self) -> None:
        self._now = DAWN

    def now(self) -> datetime:
        """The time that the test says it is."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Let so much time go by."""
        self._now += by

    async def sync(self, database: Database) -> None:
        """Nobody else sets it."""


# --- patience


def with_policies(
    saga: Definition[Any],
    policy: Policy,
    undo_policy: Policy | None = None,
    known: dict[str, Definition[Any]] | None = None,
) -> Definition[Any]:
    """The same saga with another patience, and its children too. `known` are those that have it already."""
    known = {} if known is None else known

    def patient(one: Any) -> Any:
        match one:
            case Parallel(steps=steps):
                return Parallel(tuple(patient(step) for step in steps))
            case Reversible():
                return replace(one, policy=policy, undo_policy=undo_policy or policy)
            case Child(saga=child):
                patient_child = with_policies(child, policy, undo_policy, known)
                return replace(one, saga=patient_child, policy=policy, undo_policy=undo_policy or policy)
            case Step():
                return replace(one, policy=policy)
            case _:
                return one

    if saga.name not in known:
        known[saga.name] = replace(
            saga,
            reversible=tuple(patient(one) for one in saga.reversible),
            pivot=patient(saga.pivot),
            retriable=tuple(patient(one) for one in saga.retriable),
        )
    return known[saga.name]


def definitions_with(
    policy: Policy, undo_policy: Policy | None = None, sagas: Iterable[Definition[Any]] = tuple(DEFINITIONS.values())
) -> Definitions:
    """These sagas, or those of the product, with another patience."""
    known: dict[str, Definition[Any]] = {}
    return Definitions(with_policies(saga, policy, undo_policy, known) for saga in sagas)


SQLITE_IS_ENOUGH: Final = pytest.mark.parametrize("database_urls", ["sqlite"], indirect=True)
"""For a test of what is decided, not of how it is kept: most tests of the same module run on both databases."""

THREE_TIMES: Final = Policy(timeout=timedelta(seconds=10), attempts=3, factor=1.0, jitter=0.0)
"""For a clock that the test owns."""

ASKING_FOR_EVER: Final = Policy(timeout=timedelta(seconds=1), attempts=None, factor=1.5, cap=timedelta(seconds=3))
UNTIRING: Final = definitions_with(ASKING_FOR_EVER)
"""Asks again soon, and never gives up: how a saga ends depends on the order alone, whatever breaks meanwhile."""


# --- orders, and what is answered

_numbers = itertools.count(1)


def an_order(*, customer: str = "ada", sku: str = "lamp", quantity: int = 1, price: str = "10.00") -> dict[str, Any]:
    """An order like no other. `sku="sold-out"` is refused by the inventory, `customer="bob"` by the payment service."""
    line = {"sku": sku, "quantity": quantity, "unit_price": price}
    return {"order_id": f"order-{next(_numbers)}", "customer_id": customer, "lines": [line], "currency": "EUR"}


def mixed_orders(count: int) -> tuple[list[dict[str, Any]], list[str]]:
    """So many orders, and how the saga of each must end: of four, two go through."""
    kinds: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, "completed"),
        ({"sku": "sold-out"}, "compensated"),
        ({}, "completed"),
        ({"customer": "bob"}, "compensated"),
    )
    chosen = list(itertools.islice(itertools.cycle(kinds), count))
    return [an_order(**options) for options, _ in chosen], [end for _, end in chosen]


def answer(command_id: str, outcome: Outcome = "done", **data: Any) -> Envelope:
    """A participant's reply to a command. A refusal needs no data."""
    if outcome == "refused":
        data = {"code": "no", "reason": "for a reason"} | data
    return Envelope(
        id=f"{command_id}/reply",
        source="/somebody",
        type="somebody.reply",
        subject=command_id.partition("/")[0],
        time=DAWN,
        data=data,
        answers=command_id,
        outcome=outcome,
    )


def received(envelope: Envelope) -> Received:
    """An envelope as the pump hands it on."""
    return Received(envelope, "saga.reply.somebody", 1)


@dataclass(frozen=True, slots=True)
class Desk:
    """An engine with a connection of its own, as every replica of the orchestrator has."""

    engine: Engine
    outbox: Outbox

    async def start(
        self, order: Mapping[str, Any], key: str | None = None, saga: str = "place-order", **options: Any
    ) -> StartResult:
        """Accept one saga."""
        [result] = await self.engine.start([self.engine.request(saga, order, key, **options)])
        return result

    async def begin(self, saga: str, **data: Any) -> str:
        """Accept one saga without a key. Returns its id."""
        return (await self.start(data, saga=saga)).saga_id

    async def receive(self, *replies: Envelope) -> None:
        """Apply a batch of replies, in one transaction."""
        async with self.outbox.unit_of_work() as unit:
            await self.engine.process(unit, [received(reply) for reply in replies])

    async def carry_out(self, *commands: Envelope) -> UnitOfWork:
        """Carry out a batch of commands to the orchestrator, in one transaction."""
        async with self.outbox.unit_of_work() as unit:
            await OrchestratorCommands(self.engine).process(unit, [received(command) for command in commands])
        return unit

    @property
    def admission(self) -> Admission:
        """Lets its sagas begin."""
        return Admission(self.engine)

    async def admit(self) -> int:
        """Let begin what may begin."""
        return await self.admission.admit()
