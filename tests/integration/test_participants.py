"""The participants: every command applied once, every refusal remembered, every undo safe, and the books balance."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.composition import PARTICIPANTS
from orchestrator.embedded.nats_server import EmbeddedNats
from outbox.courier import NatsCourier
from outbox.delivery import Delivery
from outbox.envelope import Envelope
from outbox.intake import Intake
from outbox.pull import NatsPullSubscription
from outbox.pump import Pump
from outbox.service import Service
from outbox.topology import EVENTS, command_inlet
from outbox.topology import REPLIES as REPLY_STREAM
from outbox.unit_of_work import UnitOfWork
from participants.inventory.contracts import ReleaseStock, ReserveStock, SellStock, StockLine
from participants.inventory.models import Reservation, Stock
from participants.inventory.seed import NotEnoughStock, seed_stock
from participants.order.contracts import ConfirmOrder, OpenOrder, OrderLine, RejectOrder
from participants.order.models import Order
from participants.payment.contracts import AuthorisePayment, CapturePayment, VoidPayment
from participants.payment.models import Account, Posting
from participants.payment.seed import AccountConflict, seed_accounts
from participants.runtime.processor import Answer, Call, CommandProcessor
from tests.support.messaging import OpenDatabase, courier, opened, rows_of, send, serving, stored, unsettled
from tests.support.participants import Ask, Replica, codes, outcome
from tests.support.servers import DatabaseUrls, Postgres, PostgresDatabases, Role
from tests.support.waiting import eventually

SUPPLY = 5
FUNDS = Decimal("100.00")

OpenReplica = Callable[[Role], Awaitable[Replica]]


@pytest.fixture
async def open_replica(database_urls: DatabaseUrls) -> AsyncIterator[OpenReplica]:
    """A replica of a participant, over its own connections. The supplies are the same whoever asks."""
    async with opened(database_urls) as open_database:
        yield replicas_on(open_database)


@pytest.fixture
async def on_postgresql(postgres: Postgres) -> AsyncIterator[OpenReplica]:
    """For what cannot happen on SQLite, where one writes at a time."""
    databases = PostgresDatabases(postgres)
    async with opened(databases) as open_database:
        yield replicas_on(open_database)
    databases.drop()


def replicas_on(open_database: OpenDatabase) -> OpenReplica:
    async def open_one(role: Role) -> Replica:
        replica = Replica(role, await open_database(role))
        await supply(replica)
        return replica

    return open_one


async def supply(replica: Replica) -> None:
    if replica.role == "inventory":
        await seed_stock(replica.database, {"tea": SUPPLY, "pot": SUPPLY})
    if replica.role == "payment":
        await seed_accounts(replica.database, {"ada": FUNDS, "bob": FUNDS}, "EUR")


@pytest.fixture
async def replica(open_replica: OpenReplica, role: Role) -> Replica:
    """Of the participant that the test is run for."""
    return await open_replica(role)


@pytest.fixture
async def inventory(open_replica: OpenReplica) -> Replica:
    return await open_replica("inventory")


@pytest.fixture
async def payment(open_replica: OpenReplica) -> Replica:
    return await open_replica("payment")


@pytest.fixture
async def order(open_replica: OpenReplica) -> Replica:
    return await open_replica("order")


# --- what is asked -----------------------------------------------------------------------------------------------


def reserve(saga: str, tea: int = 1, pot: int = 0) -> Ask:
    lines = [StockLine(sku=sku, quantity=quantity) for sku, quantity in (("tea", tea), ("pot", pot)) if quantity]
    return Ask(ReserveStock(reservation_id=saga, lines=tuple(lines)), f"{saga}/stock/do")


def release(saga: str) -> Ask:
    return Ask(ReleaseStock(reservation_id=saga), f"{saga}/stock/undo", undoes=f"{saga}/stock/do")


def sell(saga: str) -> Ask:
    return Ask(SellStock(reservation_id=saga), f"{saga}/sell/do")


def authorise(saga: str, amount: str = "10.00", customer: str = "ada") -> Ask:
    command = AuthorisePayment(hold_id=saga, customer_id=customer, amount=Decimal(amount), currency="EUR")
    return Ask(command, f"{saga}/payment/do")


def void(saga: str) -> Ask:
    return Ask(VoidPayment(hold_id=saga), f"{saga}/payment/undo", undoes=f"{saga}/payment/do")


def capture(saga: str) -> Ask:
    return Ask(CapturePayment(hold_id=saga), f"{saga}/capture/do")


def open_order(saga: str, order_id: str = "") -> Ask:
    line = OrderLine(sku="tea", quantity=3, unit_price=Decimal("1.10"))
    name = order_id or f"order-of-{saga}"
    return Ask(
        OpenOrder(order_id=name, placement_id=saga, customer_id="ada", lines=(line,), currency="EUR"), f"{saga}/open/do"
    )


def reject(saga: str, order_id: str = "") -> Ask:
    command = RejectOrder(order_id=order_id or f"order-of-{saga}", placement_id=saga)
    return Ask(command, f"{saga}/open/undo", undoes=f"{saga}/open/do")


def confirm(saga: str, order_id: str = "") -> Ask:
    return Ask(ConfirmOrder(order_id=order_id or f"order-of-{saga}", placement_id=saga), f"{saga}/confirm/do")


TRIPLES: dict[Role, tuple[Callable[[str], Ask], Callable[[str], Ask], Callable[[str], Ask]]] = {
    "order": (open_order, reject, confirm),
    "inventory": (reserve, release, sell),
    "payment": (authorise, void, capture),
}
each_participant = pytest.mark.parametrize("role", TRIPLES)


async def stock(replica: Replica) -> dict[str, tuple[int, int, int]]:
    """sku -> available, reserved, sold"""
    rows = await rows_of(replica.database, Stock.table)
    return {row.sku: (row.available, row.reserved, row.sold) for row in rows}


# --- once --------------------------------------------------------------------------------------------------------


@each_participant
async def test_a_command_is_applied_and_told_once(replica: Replica, role: Role) -> None:
    do, undo, finish = TRIPLES[role]
    assert await replica.outcomes(do("a")) == ["done"]
    assert await replica.effects("a") == {"a": "partial"}
    assert await replica.outcomes(finish("a")) == ["done"]
    assert await replica.effects("a") == {"a": "applied"}
    assert await replica.outcomes(do("b")) == ["done"]
    assert await replica.outcomes(undo("b")) == ["done"]
    assert await replica.effects("a", "b", "c") == {"a": "applied", "b": "none"}
    assert await replica.findings() == []
    told = [event.partition(" ")[0] for event in await replica.events()]
    assert told == sorted(f"{ask.id}/event/0" for ask in (do("a"), finish("a"), do("b"), undo("b")))


async def test_events_say_what_happened(inventory: Replica) -> None:
    await inventory.carry_out(reserve("a"), sell("a"), reserve("b"), release("b"))
    assert await inventory.events() == [
        "a/sell/do/event/0 stock.sold",
        "a/stock/do/event/0 stock.reserved",
        "b/stock/do/event/0 stock.reserved",
        "b/stock/undo/event/0 stock.released",
    ]


@each_participant
async def test_a_duplicate_gets_the_stored_reply_under_a_fresh_message_id(
    replica: Replica, open_replica: OpenReplica, role: Role
) -> None:
    do, _, _ = TRIPLES[role]
    first = await replica.answer(do("a"))
    before = await replica.effects("a"), await replica.events()
    other = await open_replica(role)
    again = await other.answer(do("a").again())
    assert (again.answers, again.type, again.outcome, again.data) == (first.answers, first.type, "done", first.data)
    assert (first.message_id, again.message_id) == (f"{do('a').id}/reply:1", f"{do('a').id}/reply:2")
    assert (await replica.effects("a"), await replica.events()) == before
    assert await replica.findings() == []


@each_participant
async def test_duplicates_inside_of_a_batch_are_applied_once(replica: Replica, role: Role) -> None:
    do, undo, _ = TRIPLES[role]
    replies = await replica.carry_out(do("a"), do("a"), do("a").again(), undo("a"), do("a").again().again(), undo("a"))
    assert [(reply.message_id, outcome(reply)) for reply in replies] == [
        (f"{do('a').id}/reply:1", "done"),
        (f"{do('a').id}/reply:2", "done"),
        (f"{undo('a').id}/reply:1", "done"),
        (f"{do('a').id}/reply:3", "done"),
    ]
    assert await replica.effects("a") == {"a": "none"}
    assert len(await replica.events()) == 2
    assert await replica.findings() == []


async def test_a_command_to_somebody_else_is_left_alone(order: Replica) -> None:
    """Found by chaos: a broker whose store was deleted under it sent an inventory's command to the order service."""
    command = ReserveStock(reservation_id="s-1", lines=(StockLine(sku="lamp", quantity=1),))
    assert await order.carry_out(Ask(command, "s-1/reserve-stock/do")) == []
    assert await rows_of(order.database, order.outbox.tables.inbox) == []
    assert await rows_of(order.database, order.outbox.tables.dead_letters) == []


async def test_the_reply_carries_the_facts_and_the_duplicate_the_same(payment: Replica) -> None:
    first, again = await payment.answer(authorise("a")), await payment.answer(authorise("a").again())
    assert first.data == again.data
    assert len(first.data["authorisation_code"]) == 8
    assert (first.source, first.type, first.subject) == ("/payment", "payment.payment-authorised", "a")


# --- refusals ----------------------------------------------------------------------------------------------------


async def test_a_refusal_leaves_nothing_and_holds_nobody_back(inventory: Replica) -> None:
    assert await inventory.outcomes(reserve("a", tea=2), reserve("b", tea=4), reserve("c", tea=3)) == [
        "done",
        "out-of-stock",
        "done",
    ]
    assert await stock(inventory) == {"tea": (0, 5, 0), "pot": (5, 0, 0)}
    assert await inventory.effects("a", "b", "c") == {"a": "partial", "c": "partial"}
    assert len(await inventory.events()) == 2


async def test_a_reservation_is_made_of_all_lines_or_of_none(inventory: Replica) -> None:
    [reply] = await inventory.carry_out(reserve("a", tea=5, pot=6))
    assert (outcome(reply), reply.data["reason"]) == ("out-of-stock", "6 of pot wanted, 5 available")
    assert await stock(inventory) == {"tea": (5, 0, 0), "pot": (5, 0, 0)}
    assert await rows_of(inventory.database, Reservation.table) == []


async def test_lines_of_the_same_article_are_added_up(inventory: Replica) -> None:
    line = StockLine(sku="tea", quantity=3)
    twice = Ask(ReserveStock(reservation_id="a", lines=(line, line)), "a/stock/do")
    assert await inventory.outcomes(twice) == ["out-of-stock"]
    assert await stock(inventory) == {"tea": (5, 0, 0), "pot": (5, 0, 0)}


async def test_a_refusal_is_remembered_even_if_stock_arrives_later(inventory: Replica) -> None:
    assert await inventory.outcomes(reserve("a", tea=6)) == ["out-of-stock"]
    await seed_stock(inventory.database, {"tea": 100})
    assert await inventory.outcomes(reserve("a", tea=6).again()) == ["out-of-stock"]
    assert await inventory.outcomes(reserve("b", tea=6)) == ["done"]
    assert await inventory.effects("a", "b") == {"b": "partial"}


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (authorise("a", customer="eve"), "unknown-account"),
        (authorise("a", amount="100.01"), "insufficient-funds"),
        (capture("a"), "unknown-hold"),
        (
            Ask(AuthorisePayment(hold_id="a", customer_id="ada", amount=Decimal(1), currency="USD"), "a/payment/do"),
            "wrong-currency",
        ),
    ],
)
async def test_a_payment_is_refused_for_a_reason(payment: Replica, ask: Ask, code: str) -> None:
    assert await payment.outcomes(ask) == [code]
    assert await payment.effects("a") == {}
    assert await payment.findings() == []


async def test_an_account_can_be_spent_to_the_last_cent(payment: Replica) -> None:
    asked = authorise("a", "99.9999"), authorise("b", "0.0002"), authorise("c", "0.0001")
    assert await payment.outcomes(*asked) == ["done", "insufficient-funds", "done"]
    [ada, _] = await rows_of(payment.database, Account.table)
    assert (ada.balance, ada.held) == (Decimal(0), FUNDS)
    assert await payment.findings() == []


async def test_a_pending_order_is_locked_by_its_placement(order: Replica) -> None:
    assert await order.outcomes(open_order("a", "o-1"), open_order("b", "o-1")) == ["done", "duplicate-order"]
    assert await order.outcomes(confirm("b", "o-1")) == ["foreign-order"]
    assert await order.outcomes(reject("a", "o-1"), open_order("c", "o-1")) == ["done", "done"]
    assert await order.outcomes(confirm("c", "o-1"), confirm("a", "o-1")) == ["done", "foreign-order"]
    [row] = await rows_of(order.database, Order.table)
    assert (row.placement_id, row.status, row.total) == ("c", "confirmed", Decimal("3.30"))


# --- undo --------------------------------------------------------------------------------------------------------


@each_participant
async def test_a_do_that_comes_after_its_undo_is_refused(replica: Replica, role: Role) -> None:
    do, undo, _ = TRIPLES[role]
    undone = await replica.answer(undo("a"))
    assert (outcome(undone), undone.type) == ("done", f"{role}.nothing-to-undo")
    assert await replica.outcomes(do("a"), do("a").again(), undo("a").again()) == ["undone", "undone", "done"]
    assert (await replica.effects("a"), await replica.events()) == ({}, [])


@each_participant
async def test_undo_and_do_in_one_batch_end_with_nothing_in_either_order(replica: Replica, role: Role) -> None:
    do, undo, _ = TRIPLES[role]
    before = await rows_of(replica.database, Account.table) if role == "payment" else None
    assert codes(await replica.carry_out(undo("a"), do("a"))) == [(undo("a").id, "done"), (do("a").id, "undone")]
    assert codes(await replica.carry_out(do("b"), undo("b"))) == [(do("b").id, "done"), (undo("b").id, "done")]
    assert await replica.effects("a", "b") == {"b": "none"}
    assert await replica.findings() == []
    if role == "payment":
        assert await rows_of(replica.database, Account.table) == before
    if role == "inventory":
        assert await stock(replica) == {"tea": (5, 0, 0), "pot": (5, 0, 0)}


@each_participant
async def test_the_undo_of_a_refused_do_calls_no_handler(replica: Replica, role: Role) -> None:
    """Each do is refused because another saga's is there under the same id: the handler would undo that one."""
    do, undo, _ = TRIPLES[role]
    assert await replica.outcomes(do("a")) == ["done"]
    theirs = Ask(do("a").command, "b/stolen/do")
    their_undo = Ask(undo("a").command, "b/stolen/undo", undoes=theirs.id)
    [refused] = await replica.outcomes(theirs)
    assert refused.startswith("duplicate-")
    undone = await replica.answer(their_undo)
    assert (outcome(undone), undone.type) == ("done", f"{role}.nothing-to-undo")
    assert await replica.effects("a") == {"a": "partial"}
    assert len(await replica.events()) == 1


@each_participant
async def test_what_is_final_is_not_undone(replica: Replica, role: Role) -> None:
    do, undo, finish = TRIPLES[role]
    assert await replica.outcomes(do("a"), finish("a")) == ["done", "done"]
    [refused] = await replica.outcomes(undo("a"))
    assert refused in ("order-confirmed", "reservation-ended", "hold-ended")
    assert await replica.effects("a") == {"a": "applied"}
    assert await replica.findings() == []


# --- two replicas at once ----------------------------------------------------------------------------------------


class Meeting(CommandProcessor):
    """Waits, the first time, until the other replica has read the inbox as well: neither has written anything yet."""

    def __init__(self, replica: Replica, barrier: asyncio.Barrier) -> None:
        super().__init__(PARTICIPANTS[replica.role], replica.database)
        self._barrier: asyncio.Barrier | None = barrier

    async def _answered(self, unit: UnitOfWork, calls: Sequence[Call]) -> dict[str, Answer]:
        known = await super()._answered(unit, calls)
        barrier, self._barrier = self._barrier, None
        if barrier is not None:
            await barrier.wait()
        return known


async def at_once(nats: EmbeddedNats, one: Replica, other: Replica, *asks: Ask) -> list[Envelope]:
    """Each replica takes one of two messages from the broker; both read before either writes. Returns the replies."""
    inlet, barrier = command_inlet(one.role, timedelta(minutes=10)), asyncio.Barrier(2)
    async with courier(nats.url, inlet) as broker:
        for ask in asks:
            await send(broker.jetstream, ask.command.subject(), ask.envelope)
        subscription = await broker.jetstream.pull_subscribe_bind(inlet.durable, inlet.stream)
        messages = [(await subscription.fetch(1, timeout=20))[0] for _ in asks]
        await subscription.unsubscribe()
        intake = Intake(NatsPullSubscription(nats.url, inlet, name="unused"))
        pumps = [Pump(intake, replica.outbox, Meeting(replica, barrier)) for replica in (one, other)]
        handled = [pump.handle([Delivery(message)]) for pump, message in zip(pumps, messages, strict=True)]
        await asyncio.gather(*handled)

        async def are_settled() -> bool:
            return await unsettled(broker.jetstream, inlet) == 0

        await eventually(are_settled, "both messages are acknowledged")
    rows = await rows_of(one.database, one.outbox.tables.outbox)
    return [Envelope.model_validate_json(row.body) for row in rows if row.subject.startswith("saga.reply.")]


@each_participant
async def test_an_undo_and_its_do_at_once_leave_nothing(
    on_postgresql: OpenReplica, nats: EmbeddedNats, role: Role
) -> None:
    one, other = await on_postgresql(role), await on_postgresql(role)
    do, undo, _ = TRIPLES[role]
    replies = {reply.answers: outcome(reply) for reply in await at_once(nats, one, other, undo("a"), do("a"))}
    assert replies[undo("a").id] == "done"
    assert replies[do("a").id] in ("done", "undone")
    assert (await one.effects("a")).get("a", "none") == "none"
    assert await one.findings() == []


@each_participant
async def test_the_same_command_at_once_is_applied_once(
    on_postgresql: OpenReplica, nats: EmbeddedNats, role: Role
) -> None:
    one, other = await on_postgresql(role), await on_postgresql(role)
    do, _, _ = TRIPLES[role]
    replies = await at_once(nats, one, other, do("a"), do("a").again())
    assert codes(replies) == [(do("a").id, "done")] * 2
    assert await one.effects("a") == {"a": "partial"}
    assert len(await one.events()) == 1
    assert await one.findings() == []


async def test_the_last_piece_goes_to_one_of_two(on_postgresql: OpenReplica, nats: EmbeddedNats) -> None:
    one, other = await on_postgresql("inventory"), await on_postgresql("inventory")
    replies = await at_once(nats, one, other, reserve("a", tea=SUPPLY), reserve("b", tea=1))
    assert sorted(map(outcome, replies)) == ["done", "out-of-stock"]
    winner = next(reply.subject for reply in replies if reply.outcome == "done")
    assert await one.effects("a", "b") == {winner: "partial"}
    assert await one.findings() == []


async def test_the_last_money_is_spent_once(on_postgresql: OpenReplica, nats: EmbeddedNats) -> None:
    one, other = await on_postgresql("payment"), await on_postgresql("payment")
    replies = await at_once(nats, one, other, authorise("a", "60"), authorise("b", "60"))
    assert sorted(map(outcome, replies)) == ["done", "insufficient-funds"]
    assert await one.findings() == []


async def test_many_batches_of_two_replicas_at_once_keep_the_stock(open_replica: OpenReplica) -> None:
    replicas = [await open_replica("inventory"), await open_replica("inventory")]
    asked = [reserve(f"s-{number}", tea=1, pot=1) for number in range(20)]
    batches = [replicas[start // 4 % 2].outcomes(*asked[start : start + 4]) for start in range(0, 20, 4)]
    outcomes = [outcome for batch in await asyncio.gather(*batches) for outcome in batch]
    assert (outcomes.count("done"), outcomes.count("out-of-stock")) == (SUPPLY, 20 - SUPPLY)
    assert await replicas[0].findings() == []


# --- through the broker ------------------------------------------------------------------------------------------


@each_participant
async def test_a_service_answers_commands_and_tells_events(replica: Replica, nats: EmbeddedNats, role: Role) -> None:
    do, undo, finish = TRIPLES[role]
    asked = [do("a"), finish("a"), undo("b"), do("b"), do("c"), undo("c"), do("a").again()]
    service = Service(
        role,
        courier=NatsCourier(nats.url, role),
        inlets={command_inlet(role): replica.processor},
        outbox=replica.outbox,
    )
    async with courier(nats.url) as broker, serving(service):
        for ask in asked:
            await send(broker.jetstream, ask.command.subject(), ask.envelope)

        async def answers() -> dict[str, str]:
            replies = [event for one in await stored(broker.jetstream, REPLY_STREAM) for event in one.events]
            found = {reply.message_id: outcome(reply) for reply in replies}
            return found if len(found) == len(asked) else {}

        answered = await eventually(answers, "all are answered")
        events = [event.type for one in await stored(broker.jetstream, EVENTS) for event in one.events]
    assert answered.pop(f"{do('b').id}/reply:1") == "undone"
    assert {*answered.values()} == {"done"}
    probe = Replica(role, replica.database)
    assert await probe.effects("a", "b", "c") == {"a": "applied", "c": "none"}
    assert len(events) == 4


# --- any sequence ------------------------------------------------------------------------------------------------

SAGAS = ("a", "b", "c")
STEPS = st.tuples(st.sampled_from(SAGAS), st.sampled_from(["do", "undo", "finish"]), st.integers(1, 3))
SEQUENCES = st.lists(st.lists(STEPS, min_size=1, max_size=6), min_size=1, max_size=8)


GREEDY: dict[Role, tuple[Callable[[str], Ask], Callable[[str], Ask], Callable[[str], Ask]]] = {
    "order": (lambda saga: open_order(saga, "o"), lambda saga: reject(saga, "o"), lambda saga: confirm(saga, "o")),
    "inventory": (lambda saga: reserve(saga, tea=2, pot=1), release, sell),
    "payment": (lambda saga: authorise(saga, "40.01"), void, capture),
}
"""There is enough for two sagas (one, of orders), and not for the third."""


def ask_for(role: Role, saga: str, what: str, attempt: int) -> Ask:
    do, undo, finish = GREEDY[role]
    ask = {"do": do, "undo": undo, "finish": finish}[what](saga)
    return Ask(ask.command, ask.id, attempt, ask.undoes)


def expected_effects(role: Role, answered: dict[str, tuple[str, str]]) -> dict[str, str]:
    """What the answers promise: answered is command id -> outcome, type of the reply."""
    effects = {}
    for saga in SAGAS:
        do, undo, finish = (answered.get(ask_for(role, saga, what, 1).id) for what in ("do", "undo", "finish"))
        if do is None or do[0] != "done":
            continue
        if finish is not None and finish[0] == "done":
            effects[saga] = "applied"
        elif undo is not None and undo[0] == "done" and not undo[1].endswith("nothing-to-undo"):
            effects[saga] = "none"
        else:
            effects[saga] = "partial"
    return effects


@each_participant
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=SEQUENCES)
async def test_after_any_sequence_the_books_balance_and_the_answers_are_true(
    replica: Replica, role: Role, batches: list[list[tuple[str, str, int]]]
) -> None:
    await replica.forget_everything()
    await supply(replica)
    answered: dict[str, tuple[str, str]] = {}
    for batch in batches:
        for reply in await replica.carry_out(*(ask_for(role, *step) for step in batch)):
            answer = outcome(reply), reply.type
            assert answered.setdefault(str(reply.answers), answer) == answer, "a command has one answer for ever"
        assert await replica.findings() == []
    effects = await replica.effects(*SAGAS)
    if role == "order":  # one order, held by the last placement that opened it
        effects = {**dict.fromkeys(set(expected_effects(role, answered)), "none"), **effects}
    assert effects == expected_effects(role, answered)
    applied = {id for id, (outcome, type) in answered.items() if outcome == "done" and "nothing-to-undo" not in type}
    assert {event.partition("/event/0 ")[0] for event in await replica.events()} == applied
    assert len(await replica.events()) == len(applied)


# --- seeds -------------------------------------------------------------------------------------------------------


async def test_seeding_stock_twice_changes_nothing_and_more_adds(inventory: Replica) -> None:
    await inventory.carry_out(reserve("a", tea=2), reserve("b", tea=1), sell("b"))
    await seed_stock(inventory.database, {"tea": SUPPLY})
    assert (await stock(inventory))["tea"] == (2, 2, 1)
    await seed_stock(inventory.database, {"tea": 9, "cup": 1})
    assert await stock(inventory) == {"tea": (6, 2, 1), "pot": (5, 0, 0), "cup": (1, 0, 0)}
    assert await inventory.findings() == []


async def test_seeding_less_than_is_taken_is_refused_as_a_whole(inventory: Replica) -> None:
    await inventory.carry_out(reserve("a", tea=2), reserve("b", tea=1), sell("b"))
    with pytest.raises(NotEnoughStock, match="article tea: 2 reserved and 1 sold are more than 2"):
        await seed_stock(inventory.database, {"pot": 50, "tea": 2})
    assert await stock(inventory) == {"tea": (2, 2, 1), "pot": (5, 0, 0)}
    await seed_stock(inventory.database, {"tea": 3})
    assert (await stock(inventory))["tea"] == (0, 2, 1)


async def test_seeding_accounts_twice_changes_nothing_and_more_adds(payment: Replica) -> None:
    await payment.carry_out(authorise("a", "30"), capture("a"), authorise("b", "20"))
    postings = await rows_of(payment.database, Posting.table)
    await seed_accounts(payment.database, {"ada": FUNDS, "bob": FUNDS}, "EUR")
    assert await rows_of(payment.database, Posting.table) == postings
    for amount in ("150", "120", "150"):
        await seed_accounts(payment.database, {"ada": Decimal(amount)}, "EUR")
    [ada, bob] = await rows_of(payment.database, Account.table)
    assert (ada.balance, ada.held, bob.balance) == (Decimal(100), Decimal(20), FUNDS)
    assert await payment.findings() == []


async def test_seeding_an_account_against_what_happened_is_refused_as_a_whole(payment: Replica) -> None:
    await payment.carry_out(authorise("a", "30"))
    with pytest.raises(AccountConflict, match="account ada has already spent more than 29"):
        await seed_accounts(payment.database, {"bob": Decimal(5), "ada": Decimal(29)}, "EUR")
    with pytest.raises(AccountConflict, match="account ada is in EUR, not in USD"):
        await seed_accounts(payment.database, {"ada": FUNDS}, "USD")
    [ada, bob] = await rows_of(payment.database, Account.table)
    assert (ada.balance, bob.balance) == (Decimal(70), FUNDS)
    assert await payment.findings() == []
