"""Dead letters: sent once more or dropped, in one transaction, and what was applied before is not applied again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

import pytest

from orchestrator.composition import PARTICIPANTS
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.letters import Letters, UnknownLetter
from outbox.broker import Broker
from outbox.courier import NatsCourier
from outbox.database import Database
from outbox.dead_letters import Act, DeadLetters, Order, Wanted
from outbox.errors import DatabaseOutOfReach
from outbox.reasons import first_line, in_common
from outbox.service import Service
from outbox.topology import COMMANDS, command_inlet
from outbox.unit_of_work import MAX_MESSAGE_BYTES, DeadLetter
from participants.inventory.contracts import ReserveStock, StockLine
from participants.inventory.models import Reservation
from participants.inventory.seed import seed_stock
from participants.runtime.processor import CommandProcessor
from tests.support.messaging import (
    Journal,
    Killed,
    asks,
    count,
    courier,
    envelope,
    messaging,
    opened,
    outbox_on,
    rows_of,
    send,
    serving,
    stored_ids,
)
from tests.support.servers import DatabaseUrls
from tests.support.waiting import eventually

INLET = command_inlet("inventory")
SUBJECT = "saga.cmd.inventory.note"
TABLES = messaging("inventory")
RESERVE = asks(ReserveStock(reservation_id="r", lines=(StockLine(sku="tea", quantity=1),)), "r/do")


@pytest.fixture
async def database(database_urls: DatabaseUrls) -> AsyncIterator[Database]:
    async with opened(database_urls) as open_one:
        yield await open_one("inventory")


def letter(
    body: str, *, subject: str = SUBJECT, id: str | None = "r/do", reason: str = "no tea on 7 May"
) -> DeadLetter:
    return DeadLetter(subject, id, reason, body, 3)


GOOD = letter(RESERVE.encode())


@dataclass
class Desk:
    """The dead letters of the inventory, and a person who looks after them."""

    database: Database
    journal: Journal
    orchestrator: Callable[[], Database]
    """Opens the orchestrator's, which knows what a person has answered for."""

    @property
    def letters(self) -> DeadLetters:
        return DeadLetters("inventory", outbox_on(self.database, "inventory", faults=self.journal))

    async def bury(self, *letters: DeadLetter) -> None:
        async with outbox_on(self.database, "inventory").unit_of_work() as unit:
            for one in letters:
                unit.bury(one)

    async def order(self, act: Act, *, force: bool = False, dry_run: bool = False) -> list[str | None]:
        """For all that there are. Returns why not, or None, for each."""
        numbers = await self.letters.numbers(Wanted())
        outcomes = await self.letters.carry_out(Order(act, "grace", "tea is back", force, dry_run), numbers)
        return [outcome.why_not for outcome in outcomes]

    async def left(self) -> tuple[int, int, int]:
        """Letters, rows of the outbox, and lines of the log."""
        tables = (TABLES.dead_letters, TABLES.outbox, TABLES.dead_letter_log)
        letters, outgoing, log = [await count(self.database, table) for table in tables]
        return letters, outgoing, log


@pytest.fixture
async def desk(database: Database, database_urls: DatabaseUrls) -> Desk:
    return Desk(database, Journal(), partial(Database, await database_urls.migrated("orchestrator")))


# --- one transaction ---------------------------------------------------------------------------------------------


async def test_redriving_moves_the_letter_to_the_outbox_and_notes_who_and_why(desk: Desk) -> None:
    await desk.bury(GOOD)
    assert await desk.order("redriven") == [None]
    assert await desk.left() == (0, 1, 1)
    [sent] = await rows_of(desk.database, TABLES.outbox)
    assert (sent.subject, sent.body) == (SUBJECT, RESERVE.encode())
    assert RESERVE.message_id not in sent.message_id
    [noted] = await rows_of(desk.database, TABLES.dead_letter_log)
    assert (noted.action, noted.message_id, noted.by, noted.why) == ("redriven", "r/do", "grace", "tea is back")


async def test_dropping_notes_who_and_why(desk: Desk) -> None:
    await desk.bury(GOOD, letter("rubbish", id=None))
    assert await desk.order("dropped") == [None, None]
    assert await desk.left() == (0, 0, 2)
    assert {row.action for row in await rows_of(desk.database, TABLES.dead_letter_log)} == {"dropped"}


async def test_an_id_names_one_letter_for_ever(desk: Desk) -> None:
    seen = []
    for number in range(3):
        await desk.bury(letter(f"{number}"))
        seen += await desk.letters.numbers(Wanted())
        await desk.order("dropped")
    assert seen == sorted(set(seen))
    log = await rows_of(desk.database, TABLES.dead_letter_log)
    assert [row.letter_id for row in log] == seen


@pytest.mark.parametrize(("dies_at", "left"), [("before-commit", (1, 0, 0)), ("committed", (0, 1, 1))])
@pytest.mark.parametrize("act", ["redriven"])
async def test_a_crash_leaves_all_of_it_done_or_nothing(
    desk: Desk, act: Act, dies_at: str, left: tuple[int, int, int]
) -> None:
    await desk.bury(GOOD)
    desk.journal.dies_at = dies_at
    with pytest.raises(Killed):
        await desk.order(act)
    assert await desk.left() == left


async def test_a_dry_run_changes_nothing(desk: Desk) -> None:
    await desk.bury(GOOD, letter("rubbish"))
    for act, told in (("redriven", [True, False]), ("dropped", [True, True])):
        assert [why is None for why in await desk.order(act, dry_run=True)] == told  # type: ignore[arg-type]
    assert await desk.left() == (2, 0, 0)


# --- what cannot be sent -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["{", "[7]", '{"id": "x"}', f"[{RESERVE.encode()},7]"])
async def test_what_cannot_be_read_is_redriven_only_by_force(desk: Desk, body: str) -> None:
    await desk.bury(letter(body))
    [why] = await desk.order("redriven")
    assert why is not None
    assert why.startswith("it cannot be read (it is not ")
    assert await desk.left() == (1, 0, 0)
    assert await desk.order("redriven", force=True) == [None]
    assert await desk.left() == (0, 1, 1)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (letter("x" * (MAX_MESSAGE_BYTES + 1)), "it has 921,601 bytes, and 921,600 is the limit"),
        (letter(RESERVE.encode(), subject="saga.cmd.inventory."), "nothing can be published on its subject"),
        (letter(RESERVE.encode(), subject="saga.cmd.order.note"), "does not lead to inventory"),
    ],
)
async def test_what_would_never_arrive_is_not_redriven_by_force_either(desk: Desk, bad: DeadLetter, why: str) -> None:
    await desk.bury(bad, GOOD)
    refused, done = await desk.order("redriven", force=True)
    assert (why in str(refused), done) == (True, None)
    assert await desk.left() == (1, 1, 1)


# --- what comes of it --------------------------------------------------------------------------------------------


@pytest.fixture
async def broker(nats: EmbeddedNats) -> AsyncIterator[Broker]:
    async with courier(nats.url, INLET) as connected:
        yield connected


@pytest.fixture
async def inventory(desk: Desk, nats: EmbeddedNats, broker: Broker, database_urls: DatabaseUrls) -> AsyncIterator[None]:
    """The inventory runs, and has tea."""
    await seed_stock(desk.database, {"tea": 10})
    own = Database(database_urls("inventory"))  # the service closes it
    processor = CommandProcessor(PARTICIPANTS["inventory"], own)
    parts = {"courier": NatsCourier(nats.url, "inventory"), "inlets": {INLET: processor}}
    async with serving(Service("inventory", **parts, outbox=outbox_on(own, "inventory"))):  # type: ignore[arg-type]
        yield


async def until_sent(desk: Desk) -> None:
    async def is_sent() -> bool:
        return (await desk.left())[1] == 0

    await eventually(is_sent, "the outbox is empty")


@pytest.mark.usefixtures("inventory")
async def test_a_message_that_is_redriven_is_handled_and_its_second_copy_is_not(desk: Desk, broker: Broker) -> None:
    for _ in range(2):  # within the window in which the broker remembers ids
        await desk.bury(GOOD)
        assert await desk.order("redriven") == [None]
        await until_sent(desk)

    async def are_both_there() -> bool:
        return await stored_ids(broker.jetstream, COMMANDS) == [RESERVE.message_id] * 2

    async def is_applied() -> bool:
        return [row.reservation_id for row in await rows_of(desk.database, Reservation.table)] == ["r"]

    await eventually(are_both_there, "the broker has not dropped the second one")
    await eventually(is_applied, "the stock is reserved, once")


@pytest.mark.usefixtures("inventory")
async def test_what_still_cannot_be_handled_is_buried_again_and_can_be_redriven_again(
    desk: Desk, broker: Broker
) -> None:
    async def is_buried() -> bool:
        return (await desk.left())[0] == 1

    await send(broker.jetstream, SUBJECT, envelope("x", type="inventory.burn-stock"))
    for times in range(3):
        await eventually(is_buried, "it is buried")
        assert await desk.order("redriven") == [None], times
        await until_sent(desk)
    await eventually(is_buried, "it is buried at last")


# --- several roles -------------------------------------------------------------------------------------------------


async def test_letters_are_found_by_reason_saga_and_role_and_counted_by_what_they_have_in_common(desk: Desk) -> None:
    reasons = ["1 of tea wanted", "2 of tea wanted", "it is not JSON", "all of tea wanted"]
    await desk.bury(*(letter(f"{number}", id=f"s{number}/do", reason=one) for number, one in enumerate(reasons)))
    letters = Letters({"inventory": desk.letters}, desk.orchestrator)
    assert [one.reason for one in await letters.find(Wanted(because="it IS"))] == [reasons[2]]
    assert [one.message_id for one in await letters.find(Wanted(saga="s2"))] == ["s2/do"]
    groups = [(one.role, one.reason, one.letters) for one in await letters.groups(Wanted())]
    assert groups == [
        ("inventory", "# of tea wanted", 2),
        ("inventory", "all of tea wanted", 1),
        ("inventory", "it is not JSON", 1),
    ]
    assert [one.reason for one in await letters.find(Wanted(because="# of tea wanted"))] == reasons[1::-1]
    assert await letters.find(Wanted(because=". of tea")) == []
    [first] = await letters.find(Wanted(saga="s0"))
    assert await letters.one("inventory", first.number) == first
    with pytest.raises(UnknownLetter, match="there is no dead letter inventory/99"):
        await letters.one("inventory", 99)


async def test_what_is_found_is_what_has_the_reason_in_common(desk: Desk) -> None:
    """Whichever database looks for it."""
    reasons = [
        "('a' has 3.5 kg) of \"tea\", a [b] {c} $ ^ | \\ ~ & - _ * ? + ü!",
        "…, # and %",
        "handling failed: KeyError('x')\n[SQL: SELECT 1]",
    ]
    await desk.bury(*(letter(f"{number}", id=f"s{number}/do", reason=one) for number, one in enumerate(reasons)))
    letters = Letters({"inventory": desk.letters}, desk.orchestrator)
    for reason in reasons:
        for because in (reason, in_common(reason), first_line(in_common(reason))):
            assert [one.reason for one in await letters.find(Wanted(because=because))] == [reason], because


async def test_a_database_out_of_reach_hides_its_own_letters_and_no_others(desk: Desk) -> None:
    await desk.bury(GOOD)
    nowhere = Database("postgresql://nobody@127.0.0.1:1/order")
    boxes = {"order": DeadLetters("order", outbox_on(nowhere, "order")), "inventory": desk.letters}
    letters = Letters(boxes, desk.orchestrator)
    assert [one.role for one in await letters.find(Wanted())] == ["inventory"]
    assert list(letters.hidden) == ["order"]
    with pytest.raises(DatabaseOutOfReach):
        await letters.count(Wanted())
    await nowhere.close()


async def test_letters_that_two_redrive_at_once_are_sent_once(desk: Desk) -> None:
    await desk.bury(*(letter(RESERVE.encode(), subject=f"{SUBJECT}.{number}") for number in range(120)))

    async def redrive() -> int:
        order = Order("redriven", "grace", "tea is back")
        letters = Letters({"inventory": desk.letters}, desk.orchestrator)
        return sum([len(outcomes) async for outcomes in letters.carry_out(order, Wanted())])

    assert sum(await asyncio.gather(redrive(), redrive())) == 120
    assert await desk.left() == (0, 120, 120)
