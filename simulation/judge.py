"""The proof after a schedule: what `saga verify` finds, and what only somebody finds who has seen all of it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from orchestrator.composition import messaging_of
from orchestrator.model import SAGA
from orchestrator.verify import Books, Verifier
from participants.inventory.audit import InventoryAuditor
from participants.order.audit import OrderAuditor
from participants.payment.audit import PaymentAuditor
from simulation.people import Order
from simulation.sagas import DEFINITIONS
from simulation.violation import Violation
from simulation.world import World


class Judge:
    """Looks at one world."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def findings(self, orders: Sequence[Order], garbage: int) -> list[Violation]:
        """Every broken promise, when all sagas have ended."""
        databases = self._world.rack.databases
        auditors = (
            OrderAuditor(databases["order"]),
            InventoryAuditor(databases["inventory"]),
            PaymentAuditor(databases["payment"]),
        )
        books = [Books(role, database, messaging_of(role)) for role, database in databases.items()]
        verifier = Verifier(databases["orchestrator"], DEFINITIONS, auditors, books)
        found = [Violation(one.check, one.message) async for one in verifier.findings()]
        found += self._world.witness.findings()
        return found + self._of_orders(orders) + self._of_families() + self._of_dead_letters(garbage)

    def unended(self) -> list[Violation]:
        """Sagas that never end, or messages that are never sent."""
        found = []
        for saga_id, status, state in self._ask("SELECT id, status, state FROM sagas WHERE ended_at IS NULL"):
            steps = {name: step.status.value for name, step in SAGA.validate_json(state).steps.items()}
            found.append(Violation("every-saga-ends", f"saga {saga_id} is still {status}: {steps}"))
        for role, server in self._world.rack.servers.items():
            if rows := server.ask("SELECT message_id FROM outbox ORDER BY message_id"):
                found.append(Violation("every-message-leaves", f"{role} still has {[row[0] for row in rows]}"))
        return found or [Violation("every-order-is-accepted", "an order was never accepted")]

    def ends(self) -> dict[str, int]:
        """How the sagas have ended, or where they are."""
        return dict(Counter(status for (status,) in self._ask("SELECT status FROM sagas ORDER BY id")))

    def _of_orders(self, orders: Sequence[Order]) -> list[Violation]:
        known = {saga_id for (saga_id,) in self._ask("SELECT id FROM sagas")}
        found = [
            Violation("a-key-is-one-saga", f"{order.key} was accepted as {sorted(order.ids)}")
            for order in orders
            if len(order.ids) != 1
        ]
        lost = sorted(set().union(*(order.ids for order in orders)) - known)
        return found + [Violation("what-is-accepted-is-kept", f"saga {saga_id} is not there") for saga_id in lost]

    def _of_families(self) -> list[Violation]:
        """A parent has ended as its children have."""
        states = [SAGA.validate_json(state) for (state,) in self._ask("SELECT state FROM sagas ORDER BY id")]
        by_id = {saga.id: saga for saga in states}
        keys = dict(self._ask("SELECT key, id FROM sagas WHERE key IS NOT NULL"))
        callers = Counter(saga.caller.command_id for saga in states if saga.caller is not None)
        found = [
            Violation("a-command-begins-one-saga", f"{command} has begun {count}")
            for command, count in callers.items()
            if count > 1
        ]
        for saga in states:
            for name in saga.steps:
                child = by_id.get(keys.get(f"{saga.id}/{name}/do", ""))
                if child is not None and child.phase != saga.phase:
                    message = f"saga {saga.id} is {saga.phase}, its child {child.id} is {child.phase}"
                    found.append(Violation("children-end-as-their-parent", message))
        return found

    def _of_dead_letters(self, garbage: int) -> list[Violation]:
        """Only garbage is buried."""
        found = []
        for role, server in self._world.rack.servers.items():
            for subject, reason, body in server.ask("SELECT subject, reason, body FROM dead_letters ORDER BY id"):
                if not garbage or '"id":"01SAGA' in body:
                    found.append(Violation("only-garbage-is-buried", f"{role}: {subject}: {reason}: {body[:200]}"))
        return found

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        return self._world.rack.servers["orchestrator"].ask(query)
