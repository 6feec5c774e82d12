"""Every way in which a saga can be stuck, on real servers: `saga why` names the cause, and what it advises helps."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from nats.errors import TimeoutError as NatsTimeout

from examples.transfer.saga import transfer_money
from orchestrator.cli.why import advisor
from orchestrator.composition import PARTICIPANTS, inlet_of, messaging_of
from orchestrator.definition import Policy, Saga, delay, wait_for
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.events import PauseOrdered
from orchestrator.queries import Queries
from orchestrator.registry import Definitions
from orchestrator.sagas.place_order import place_order
from orchestrator.settings import Settings
from orchestrator.why import Diagnosis, Door, Witness, diagnose
from orchestrator.why.causes import BUSY
from orchestrator.why.witness import REPLIES
from orchestrator.window import Windows
from outbox.broker import Broker
from outbox.clock import DatabaseClock
from outbox.courier import NatsCourier
from outbox.database import Database
from outbox.dead_letters import DeadLetters, Order
from outbox.pump import Processor, Received
from outbox.service import Service
from outbox.topology import command_inlet, reply_inlet
from outbox.unit_of_work import UnitOfWork
from tests.support.desk import answer
from tests.support.messaging import courier, send_raw, serving
from tests.support.sagas import FAMILY, Approval, Hold
from tests.support.servers import DatabaseUrls, Role
from tests.support.waiting import eventually
from tests.support.world import ROLES, SQLITE_IS_ENOUGH, World, an_order, definitions_with

PATIENT = Policy(timeout=timedelta(seconds=60), attempts=3, factor=1.0)
HASTY = Policy(timeout=timedelta(seconds=0.2), attempts=1, factor=1.0)
SHORTLY = timedelta(seconds=3)
NAPS = Saga("naps", Hold, [delay("nap", SHORTLY)], None)
ASKS = Saga("asks", Hold, [wait_for(Approval, timeout=SHORTLY, otherwise="proceed")], None)
NOWHERE = "postgresql://nobody@127.0.0.1:1/inventory"


class Scene:
    """A world, and somebody who asks why."""

    def __init__(self, urls: DatabaseUrls, nats: EmbeddedNats, world: World, definitions: Definitions) -> None:
        self.world, self.nats, self.definitions = world, nats, definitions
        self._urls = urls
        self._elsewhere: dict[str, str] = {}
        self.window = 0
        self.later = timedelta(0)
        """By how much whoever asks is ahead of those who work."""

    def lose(self, role: Role) -> None:
        """From here the role's database cannot be reached."""
        self._elsewhere[role] = NOWHERE

    async def why(self, saga_id: str, definitions: Definitions | None = None) -> Diagnosis:
        known, broker = definitions or self.definitions, Broker(self.nats.url, name="test")
        database = self.world.databases["orchestrator"]
        doors = [Door(role, partial(self._open, role), messaging_of(role)) for role in ROLES]
        inlets = {role: inlet_of(Settings(), role) for role in PARTICIPANTS}
        inlets |= {REPLIES: reply_inlet(), "orchestrator": command_inlet("orchestrator")}
        windows = Windows(database, DatabaseClock(), known, self.window)
        witness = Witness(Queries(database, known), database, known, doors, broker, inlets, advisor(), windows)
        try:
            return diagnose(await witness.facts(saga_id, DatabaseClock().now() + self.later))
        finally:
            await broker.close()

    async def until(self, saga_id: str, cause: str, words: str = "") -> Diagnosis:
        """Ask until the cause is this one, and these words are in the sentence."""

        async def look() -> Diagnosis | None:
            seen.append(await self.why(saga_id))
            return seen[-1] if seen[-1].cause == cause and words in seen[-1].sentence else None

        seen: list[Diagnosis] = []
        try:
            found = await eventually(look, cause)
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen[-1]}") from None
        assert found is not None
        return found

    async def redrive(self, letter: str) -> None:
        """What `saga dlq redrive` does."""
        role, _, number = letter.partition("/")
        letters = DeadLetters(role, self.world.outbox(role))  # type: ignore[arg-type]
        [outcome] = await letters.carry_out(Order("redriven", "grace", "it is mended"), [int(number)])
        assert outcome.why_not is None

    def _open(self, role: Role) -> Database:
        return Database(self._elsewhere.get(role) or self._urls(role))


Staging = Callable[..., Awaitable[Scene]]


@pytest.fixture
async def stage(database_urls: DatabaseUrls, nats: EmbeddedNats) -> AsyncIterator[Staging]:
    """Makes a scene in which these roles run."""
    async with AsyncExitStack() as stack:

        async def make(*roles: Role, definitions: Definitions | None = None) -> Scene:
            known = definitions or definitions_with(PATIENT)
            world = await stack.enter_async_context(World(database_urls, nats.url, definitions=known))
            await world.start(*roles)
            return Scene(database_urls, nats, world, known)

        yield make


@asynccontextmanager
async def instead_of(role: Role, scene: Scene, processor: Processor) -> AsyncIterator[None]:
    """Somebody who listens for a role, and handles what comes in a way of its own."""
    outbox, courier = scene.world.outbox(role), NatsCourier(scene.nats.url, role)
    async with serving(Service(role, courier=courier, inlets={command_inlet(role): processor}, outbox=outbox)):
        yield


class Buries:
    """Cannot handle anything."""

    async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        for received in batch:
            unit.bury(received.dead_letter("there is no such shelf"))


class Fails:
    """Raises an error at everything."""

    async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        raise LookupError("there is no such shelf\nand more of it")


class Deaf:
    """Takes everything, and never answers."""

    async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        pass


class Mumbles:
    """Answers done, without what the answer must say."""

    async def process(self, unit: UnitOfWork, batch: Sequence[Received]) -> None:
        for received in batch:
            unit.send("saga.reply.payment", answer(received.envelope.id))


async def test_nobody_listens(stage: Staging) -> None:
    scene = await stage("orchestrator", "order", "inventory")
    await scene.world.stop("inventory")
    saga_ids = await scene.world.place(an_order(), an_order())
    await scene.world.until_asked(saga_ids, "reserve-stock")
    found = await scene.until(saga_ids[0], "nobody-listens")
    assert "Nobody listens for the commands to inventory, where " in found.sentence
    assert found.command == ("run", "inventory")
    await scene.world.start("inventory", "payment")
    assert await scene.world.until_ended(saga_ids) == ["completed"] * 2
    ended = await scene.why(saga_ids[0])
    assert (ended.cause, ended.command) == ("ended", ("get", saga_ids[0]))


@SQLITE_IS_ENOUGH
async def test_a_role_that_never_ran(stage: Staging) -> None:
    scene = await stage("orchestrator", "order")
    [saga_id] = await scene.world.place(an_order())
    await scene.world.until_asked([saga_id], "reserve-stock")
    assert (await scene.until(saga_id, "nobody-listens")).command == ("run", "inventory")


@SQLITE_IS_ENOUGH
async def test_nobody_listens_for_the_answers(stage: Staging) -> None:
    scene = await stage("orchestrator", "order")
    await scene.world.stop("orchestrator")
    [saga_id] = await scene.world.place(an_order())
    found = await scene.until(saga_id, "nobody-listens")
    assert (found.command, "for the answers to orchestrator" in found.sentence) == (("run", "orchestrator"), True)


@SQLITE_IS_ENOUGH
async def test_nobody_listens_at_a_participant_that_somebody_else_is_to_run(stage: Staging) -> None:
    scene = await stage("orchestrator", definitions=Definitions([transfer_money]))
    saga_id = await scene.world.desk().begin("transfer-money", payer="ada", payee="bob", amount="5.00")
    found = await scene.until(saga_id, "nobody-listens")
    assert (
        "Nobody listens for the commands to payer-bank: step hold-money goes on when payer-bank runs" in found.sentence
    )
    assert found.command == ("log", saga_id, "--follow")


async def test_a_backlog(stage: Staging) -> None:
    scene = await stage("orchestrator", "order", "inventory")
    await scene.world.stop("inventory")
    saga_ids = await scene.world.place(an_order())
    async with fetching_and_doing_nothing(scene):
        found = await scene.until(saga_ids[0], "backlog")
    assert "waits for inventory, which has 1 message waiting or in hand; it is asked again in " in found.sentence


@asynccontextmanager
async def fetching_and_doing_nothing(scene: Scene) -> AsyncIterator[None]:
    """A replica of the inventory that is very slow."""
    broker, inlet = Broker(scene.nats.url, name="slow"), command_inlet("inventory")
    await broker.connect()
    subscription = await broker.jetstream.pull_subscribe_bind(inlet.durable, inlet.stream)

    async def fetch() -> None:
        while True:
            with suppress(NatsTimeout):
                await subscription.fetch(1, timeout=1)

    fetching = asyncio.create_task(fetch())
    try:
        yield
    finally:
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)
        await broker.close()


@SQLITE_IS_ENOUGH
async def test_a_role_that_died_with_much_in_hand_is_not_taken_for_a_busy_one(stage: Staging) -> None:
    scene, inlet, much = await stage("orchestrator"), command_inlet("order", timedelta(seconds=4)), BUSY + 36
    async with courier(scene.nats.url, inlet) as broker, courier(scene.nats.url) as victim:
        [saga_id] = await scene.world.place(an_order())
        for _ in range(much):
            await send_raw(broker.jetstream, "saga.cmd.order.noise", b"{}")
        taking = await victim.jetstream.pull_subscribe_bind(inlet.durable, inlet.stream)
        assert len(await taking.fetch(much, timeout=10)) == much
        await victim.close()
        slow = await scene.why(saga_id)
        assert (slow.cause, slow.command[0]) == ("backlog", "log"), "a large batch may take as long as ack_wait"
        found = await scene.until(saga_id, "nobody-listens", "Nobody listens for the commands to order, where ")
    assert found.command == ("run", "order")


async def test_a_command_that_is_a_dead_letter_moves_on_when_it_is_redriven(stage: Staging) -> None:
    scene = await stage("orchestrator", "order", "payment")
    async with instead_of("inventory", scene, Buries()):
        [saga_id] = await scene.world.place(an_order())
        found = await scene.until(saga_id, "command-is-dead-letter")
    assert "it is the dead letter inventory/1 (there is no such shelf); it is asked again in " in found.sentence
    assert found.command[:3] == ("dlq", "redrive", "inventory/1")
    await scene.world.start("inventory")
    await scene.redrive(found.command[2])
    assert await scene.world.until_ended([saga_id]) == ["completed"]


async def test_a_handler_that_fails_is_told_before_its_command_is_a_dead_letter(stage: Staging) -> None:
    scene = await stage("orchestrator", "order", "payment")
    async with instead_of("inventory", scene, Fails()):
        [saga_id] = await scene.world.place(an_order())
        found = await scene.until(saga_id, "handling-fails", "tried 2 times of 8 before it is buried")
    told = (
        "inventory fails at the command of step reserve-stock (handling failed: LookupError: there is no such shelf; "
    )
    assert found.sentence.startswith(told)
    await scene.world.start("inventory")
    assert await scene.world.until_ended([saga_id]) == ["completed"]


async def test_an_answer_that_is_a_dead_letter(stage: Staging) -> None:
    scene = await stage("orchestrator", "order", "inventory")
    async with instead_of("payment", scene, Mumbles()):
        [saga_id] = await scene.world.place(an_order())
        found = await scene.until(saga_id, "answer-is-dead-letter")
    assert "it is the dead letter orchestrator/1 (the reply to authorise-payment cannot be read" in found.sentence
    assert found.command[:3] == ("dlq", "redrive", "orchestrator/1")


async def test_stuck(stage: Staging) -> None:
    scene = await stage("orchestrator", definitions=definitions_with(HASTY))
    [saga_id] = await scene.world.place(an_order())
    assert await scene.world.until_ended([saga_id]) == ["stuck"]
    found = await scene.why(saga_id)
    assert (found.cause, found.command[:2]) == ("is-stuck", ("retry", saga_id))
    assert found.sentence.startswith("It is stuck at open-order, and a person must act: ")


@SQLITE_IS_ENOUGH
async def test_stuck_for_a_dead_letter(stage: Staging) -> None:
    scene = await stage("orchestrator", definitions=definitions_with(HASTY))
    async with instead_of("order", scene, Buries()):
        [saga_id] = await scene.world.place(an_order())
        assert await scene.world.until_ended([saga_id]) == ["stuck"]
        found = await scene.until(saga_id, "is-stuck", "what was sent is the dead letter order/")
    assert found.command[:2] == ("dlq", "redrive")


@SQLITE_IS_ENOUGH
async def test_paused(stage: Staging) -> None:
    scene = await stage("orchestrator", "order")
    [saga_id] = await scene.world.place(an_order())
    await scene.world.desk().engine.tell(saga_id, PauseOrdered("grace", "to look at it"))
    found = await scene.why(saga_id)
    assert (found.cause, found.command[:2]) == ("is-paused", ("resume", saga_id))
    assert "It was paused by grace since " in found.sentence
    assert "(to look at it)" in found.sentence


@SQLITE_IS_ENOUGH
async def test_waiting_for_a_signal_of_its_child(stage: Staging) -> None:
    scene = await stage(*ROLES, definitions=Definitions(FAMILY))
    order = {"order_id": "o-1", "customer_id": "ada"}
    [saga_id] = await scene.world.place(order, saga="sell-on-approval")
    parent = await scene.until(saga_id, "child-not-done")
    [child] = await scene.world.children(saga_id)
    assert parent.command == ("why", child.id)
    found = await scene.until(child.id, "waits-for-signal")
    assert found.sentence.startswith("It waits for the signal approval since ")
    assert found.command[:3] == ("signal", child.id, "approval")


async def test_nats_is_away(stage: Staging) -> None:
    scene = await stage("orchestrator", "order")
    [saga_id] = await scene.world.place(an_order())
    await scene.world.until_asked([saga_id], "reserve-stock")
    await asyncio.to_thread(scene.nats.stop)
    found = await scene.until(saga_id, "nats-is-away")
    assert f"waits for inventory, and NATS at {scene.nats.url} is out of reach (" in found.sentence
    assert found.sentence.endswith("): it goes on when NATS is back.")
    await asyncio.to_thread(scene.nats.start)
    await scene.world.start("inventory", "payment")
    assert await scene.world.until_ended([saga_id]) == ["completed"]


@pytest.mark.parametrize(("saga", "meanwhile"), [("naps", "delayed"), ("asks", "waits-for-signal")])
@SQLITE_IS_ENOUGH
async def test_a_timer_that_is_due_waits_for_nats(stage: Staging, saga: str, meanwhile: str) -> None:
    scene = await stage("orchestrator", definitions=Definitions([NAPS, ASKS]))
    [saga_id] = await scene.world.place({}, saga=saga)
    await asyncio.to_thread(scene.nats.stop)
    assert (await scene.why(saga_id)).cause == meanwhile
    scene.later = SHORTLY + timedelta(seconds=10)
    found = await scene.why(saga_id)
    assert found.cause == "nats-is-away"
    assert f", and NATS at {scene.nats.url} is out of reach (" in found.sentence
    assert found.sentence.startswith("It has been due for ")
    await asyncio.to_thread(scene.nats.start)
    assert await scene.world.until_ended([saga_id]) == ["completed"]


async def test_waiting_for_admission(stage: Staging) -> None:
    limited = replace(place_order, max_in_flight=1)
    scene = await stage("orchestrator", definitions=Definitions([limited]))
    *_, saga_id = [(await scene.world.place(an_order()))[0] for _ in range(3)]
    found = await scene.until(saga_id, "queued", "behind 1 other of place-order; 1 of at most 1 is under way.")
    assert found.command == ("ls", "--type", "place-order", "--status", "running")


async def test_waiting_for_room_in_the_installation(stage: Staging) -> None:
    scene = await stage()
    scene.window, scene.later = 2, timedelta(seconds=30)
    desk = scene.world.desk(max_in_flight=scene.window)
    for _ in range(scene.window):
        await desk.start(an_order())
    waiting = await desk.start(an_order(), begins_at=DatabaseClock().now())
    assert await desk.admit() == 0

    found = await scene.why(waiting.saga_id)
    full = "the next of place-order; 2 are at work, and no more may be (SAGA_MAX_IN_FLIGHT)."
    assert (found.cause, found.sentence) == ("queued", f"It waits to begin, {full}")
    scene.window = 3
    assert (await scene.why(waiting.saga_id)).cause == "overdue"


@SQLITE_IS_ENOUGH
async def test_its_definition_is_not_loaded(stage: Staging) -> None:
    scene = await stage("orchestrator", "order")
    [saga_id] = await scene.world.place(an_order())
    found = await scene.why(saga_id, Definitions([replace(place_order, version=2)]))
    assert (found.cause, found.command) == ("not-loaded", ("definitions", "check"))
    assert f"It began with place-order v1 ({place_order.fingerprint})" in found.sentence


@SQLITE_IS_ENOUGH
async def test_no_answer_yet_and_a_database_that_is_away(stage: Staging) -> None:
    scene = await stage("orchestrator", "order")
    async with instead_of("inventory", scene, Deaf()):
        [saga_id] = await scene.world.place(an_order())
        found = await scene.until(saga_id, "not-answered")
        assert "Step reserve-stock was asked once, " in found.sentence
        assert "(attempt 2 of 3)" in found.sentence
        scene.lose("inventory")
        found = await scene.until(saga_id, "database-is-away")
    assert "waits for inventory, and as seen from here the database postgresql://nobody@" in found.sentence
