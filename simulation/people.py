"""The people of a schedule: customers who order until they are told, and an operator who interferes.

Some customers start a saga themselves, as `saga start` does; for others a service does it, with a command.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from orchestrator.door import BadInput
from orchestrator.engine import UnknownSaga
from orchestrator.events import Cancelled, Event, PauseOrdered, ResumeOrdered, Retried, Signalled
from orchestrator.steps import StartSaga
from orchestrator.store import LostRace
from outbox.envelope import Envelope, Packet
from outbox.errors import OutOfReach
from participants.inventory.seed import seed_stock
from simulation.fate import Fate
from simulation.sagas import ORDERED
from simulation.world import World

HURRY: Final = 25.0
"""Seconds in which everything is ordered."""

RUSH: Final = 0.05
"""How many schedules have a rush: several orders at once, all of the same things and for the same people."""

SIGNALS: Final = {"approved-order": ("approval", "receipt")}


@dataclass(slots=True)
class Order:
    """What a customer wants, and what became of it."""

    key: str
    saga: str
    data: Mapping[str, Any]
    at: float
    by_service: bool
    tries: int = 0
    ids: set[str] = field(default_factory=set)
    """The sagas that it was accepted as: one, or a promise is broken."""


def orders_of(fate: Fate) -> list[Order]:
    """A few orders: most can be carried out, some cannot."""
    chance = fate.random
    if chance.random() < RUSH:
        return _rush(_order(fate, 0, None, 0.05), fate)
    alike = chance.choice(ORDERED) if chance.random() < 0.4 else None
    hurry = chance.choice((0.05, HURRY, HURRY))
    return [_order(fate, number, alike, hurry) for number in range(chance.choice((1, 1, 1, 1, 2, 2, 3)))]


def _rush(first: Order, fate: Fate) -> list[Order]:
    return [
        replace(
            first,
            key=f"order-{number}",
            data={**first.data, "order_id": f"o-{number}"},
            at=fate.random.random() * 0.05,
            ids=set(),
        )
        for number in range(4)
    ]


def _order(fate: Fate, number: int, alike: str | None, hurry: float) -> Order:
    chance = fate.random
    sku = chance.choice(("lamp", "lamp", "lamp", "rare", "sold-out"))
    customer = chance.choice(("ada", "ada", "ada", "cy", "bob"))
    lines = [{"sku": sku, "quantity": chance.randint(1, 2), "unit_price": "10.00"}]
    if chance.random() < 0.3:
        lines.insert(0, {"sku": "bulb", "quantity": 1, "unit_price": "1.00"})
    data = {"order_id": f"o-{number}", "customer_id": customer, "lines": lines, "currency": "EUR"}
    saga, at = alike or chance.choice(ORDERED), chance.random() ** 2 * hurry
    return Order(f"order-{number}", saga, data, at, by_service=chance.random() < 0.3)


class Customers:
    """They place their orders, and again until they are told that they were accepted."""

    def __init__(self, world: World, orders: Sequence[Order]) -> None:
        self._world = world
        self.orders = orders

    @property
    def all_are_told(self) -> bool:
        """Whether every order was accepted."""
        return all(order.ids for order in self.orders)

    def begin(self) -> None:
        """Let each of them come at its time."""
        for order in self.orders:
            self._world.loop.call_at(order.at, self._come, order)
            if self._world.fate.random.random() < 0.2:
                self._world.loop.call_at(order.at + self._world.fate.random.random(), self._come_again, order)

    def _come_again(self, order: Order) -> None:
        self._world.fate.count("started-again")
        self._come(order)

    def _come(self, order: Order) -> None:
        order.tries += 1
        self._world.loop.call_later(self._world.fate.random.uniform(2.0, 8.0), self._come_unless_told, order)
        if order.by_service:
            self._send(order)
            return
        visitor = self._world.visitor(f"customer of {order.key}")
        visitor.spawn("place an order", lambda: self._place(visitor, order))

    def _send(self, order: Order) -> None:
        """Let a service start it, whose own outbox asks again until it is seen to be there."""
        command = StartSaga(saga=order.saga, input=dict(order.data))
        envelope = Envelope(
            id=order.key,
            source="/shop",
            type=command.type,
            subject=order.key,
            time=self._world.now(),
            data=command.model_dump(mode="json"),
            attempt=order.tries,
        )
        if self._world.broker.is_up:
            self._world.broker.store(Packet(envelope.message_id, command.subject(), envelope.encode()))

    def _come_unless_told(self, order: Order) -> None:
        server = self._world.rack.servers["orchestrator"]
        if order.by_service and not server.is_writing:
            order.ids.update(saga_id for (saga_id,) in server.ask("SELECT id FROM sagas WHERE key = ?", order.key))
        if not order.ids:
            self._come(order)

    async def _place(self, visitor: Any, order: Order) -> None:
        engine = visitor.open_engine()
        [result] = await engine.start([engine.request(order.saga, order.data, order.key)])
        order.ids.add(result.saga_id)
        if self._world.fate.lines is not None:
            self._world.fate.note(f"{visitor.name}: {result.outcome} {order.saga} as {result.saga_id}")
        with suppress(OutOfReach):
            await visitor.relay.flush()


class Operator:
    """Somebody who orders and signals at bad moments; and who, when all is calm, helps what waits for a person."""

    def __init__(self, world: World) -> None:
        self._world = world

    def begin(self, meddling: float) -> None:
        """Interfere for a while, so often a second."""
        at = self._world.fate.random.expovariate(meddling)
        self._world.loop.call_at(self._world.fate.random.random() * HURRY * 2, self.restock, 1)
        while at < HURRY * 2:
            self._world.loop.call_at(at, self._meddle)
            at += self._world.fate.random.expovariate(meddling)

    def restock(self, quantity: int) -> None:
        """Bring in what there was too little of."""
        visitor = self._world.visitor("storekeeper", "inventory")
        visitor.spawn("restock", lambda: seed_stock(self._world.rack.databases["inventory"], {"gift": quantity}))

    def help(self, saga_id: str, saga: str, status: str) -> None:
        """What waits for a person gets one."""
        match status:
            case "paused":
                self._tell(saga_id, ResumeOrdered("op", "all is calm"))
            case "stuck":
                self._tell(saga_id, Retried("op", "all is calm"))
            case _:
                for step in SIGNALS.get(saga, ()):
                    self._tell(saga_id, Signalled(step, "done", {}, "op"))

    def _meddle(self) -> None:
        if not self._world.fate.is_active or self._world.rack.servers["orchestrator"].is_writing:
            return
        chance = self._world.fate.random
        known = self._world.rack.servers["orchestrator"].ask("SELECT id, definition FROM sagas ORDER BY id")
        if not known:
            return
        saga_id, saga = chance.choice(known)
        kinds: list[tuple[str, Event]] = [
            ("cancelled", Cancelled("op", "changed their mind")),
            ("paused", PauseOrdered("op", "wait a moment")),
            ("resumed", ResumeOrdered("op", "go on")),
            ("resumed", ResumeOrdered("op", "go on")),
            ("retried", Retried("op", "again")),
        ]
        for step in SIGNALS.get(saga, ()):
            kinds += [("signalled", Signalled(step, "done", {}, "op"))] * 2
            kinds.append(("refused", Signalled(step, "refused", {"reason": "no"}, "op")))
        kind, event = chance.choice(kinds)
        self._world.fate.count(f"operator-{kind}", saga_id)
        self._tell(saga_id, event)

    def _tell(self, saga_id: str, event: Event) -> None:
        visitor = self._world.visitor("operator")
        visitor.spawn("give an order", lambda: self._give(visitor, saga_id, event))

    async def _give(self, visitor: Any, saga_id: str, event: Event) -> None:
        engine = visitor.open_engine()
        try:
            decision = await engine.tell(saga_id, event)
        except (LostRace, UnknownSaga, BadInput) as error:
            self._world.fate.note(f"operator: {type(event).__name__} to {saga_id} fails: {error}")
            return
        if self._world.fate.lines is not None:
            self._world.fate.note(f"operator: {type(event).__name__} to {saga_id}: {decision.ignored or 'done'}")
        with suppress(OutOfReach, asyncio.TimeoutError):
            await visitor.relay.flush()
