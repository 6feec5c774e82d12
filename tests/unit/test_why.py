"""From facts to a sentence: every cause that there is, which of several counts, and what is then to be done."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, get_args

import pytest
from nats.js.api import ConsumerConfig, ConsumerInfo, SequenceInfo

from orchestrator.definition import Action
from orchestrator.why import Cause, Facts, cause_of, diagnose
from orchestrator.why.causes import BUSY, RANK
from orchestrator.why.facts import Failing, Letter, Listeners, OpenStep, Paused, Queue, Relative, Stuck
from orchestrator.why.witness import is_at_work
from outbox.contracts import kebab_case
from outbox.intake import QUEUE_MESSAGES
from outbox.moments import moment
from tests.unit.test_how_to import parse

NOW: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOON, AGO = NOW + timedelta(seconds=9), NOW - timedelta(seconds=30)
CALM: Final = {"inventory": Listeners("inventory"), "replies": Listeners("orchestrator")}
STEP: Final = OpenStep(
    "reserve-stock", Action.COMMAND, "inventory", asked=2, attempts=6, since=AGO, last_asked_at=AGO, due_at=SOON
)
LETTER: Final = Letter("inventory/3", "no such shelf")


def facts(**changes: Any) -> Facts:
    known = Facts("01ABC", "place-order", 1, "f00", "running", NOW, steps=(STEP,), services=CALM)
    return replace(known, **changes)


def at_step(**changes: Any) -> Facts:
    return facts(steps=(replace(STEP, **changes),))


def at_service(name: str, is_answered: bool | None = None, **changes: Any) -> Facts:
    role = "orchestrator" if name == "replies" else name
    return replace(at_step(is_answered=is_answered), services={**CALM, name: Listeners(role, **changes)})


FACTS: Final[dict[str, tuple[Facts, str, str, str]]] = {
    "it has ended": (
        facts(status="compensated", failure="reserve-stock was refused: none left", ended_at=AGO),
        "ended",
        "it is compensated, because reserve-stock was refused: none left, and nothing moves it any more.",
        "get 01ABC",
    ),
    "paused": (
        facts(paused=Paused("grace", "to look at it", AGO)),
        "is-paused",
        "It was paused by grace since {ago} (to look at it), and goes on when it is resumed.",
        "resume 01ABC --reason …",
    ),
    "stuck": (
        facts(stuck=Stuck("capture-payment", "no answer to 6 attempts", ("retry", "01ABC", "--reason", "…"))),
        "is-stuck",
        "It is stuck at capture-payment, and a person must act: no answer to 6 attempts.",
        "retry 01ABC --reason …",
    ),
    "stuck, for a dead letter": (
        facts(stuck=Stuck("capture-payment", "no answer", (), Letter("payment/1", "no handler"))),
        "is-stuck",
        "no answer; what was sent is the dead letter payment/1 (no handler).",
        "dlq redrive payment/1 --reason …",
    ),
    "not loaded": (
        facts(is_loaded=False),
        "not-loaded",
        "place-order v1 (f00), which is not among",
        "definitions check",
    ),
    "later": (facts(queue=Queue(SOON)), "begins-later", "It is to begin at {soon}, in 9 s.", "get 01ABC"),
    "queued": (
        facts(queue=Queue(AGO, 3, 5, 5)),
        "queued",
        "It waits to begin, behind 3 others of place-order; 5 of at most 5 are under way.",
        "ls --type place-order --status running",
    ),
    "queued by the installation": (
        facts(queue=Queue(AGO, in_flight=7000, at_work=5000, window=5000)),
        "queued",
        "It waits to begin, the next of place-order; 5,000 are at work, and no more may be (SAGA_MAX_IN_FLIGHT).",
        "ls --type place-order --status running",
    ),
    "nobody lets it begin, although the installation has room": (
        facts(queue=Queue(AGO, in_flight=7000, at_work=4999, window=5000)),
        "overdue",
        "It has been due for 30 s, and no",
        "run orchestrator",
    ),
    "queued by a rate": (
        facts(queue=Queue(AGO, next_at=SOON)),
        "queued",
        "It waits to begin, the next of place-order; its rate lets the next one begin in 9 s.",
        "ls --type place-order --status running",
    ),
    "nobody lets it begin": (
        facts(queue=Queue(AGO)),
        "overdue",
        "It has been due for 30 s, and no",
        "run orchestrator",
    ),
    "nobody fires its timer": (at_step(due_at=AGO), "overdue", "It has been due for 30 s, and no", "run orchestrator"),
    "nobody looks at its deadline": (facts(deadline_at=AGO), "overdue", "It has been due for 30 s", "run orchestrator"),
    "its deadline has passed, and NATS is away": (
        facts(deadline_at=AGO, broker="NATS at nats://one is out of reach (no answer)"),
        "nats-is-away",
        "and NATS at nats://one is out of reach (no answer): it goes on when NATS is back.",
        "config show",
    ),
    "its delay is over, and NATS is away": (
        facts(steps=(replace(STEP, action=Action.DELAY, participant=None, due_at=AGO),), broker="NATS does not answer"),
        "nats-is-away",
        "It has been due for 30 s, and NATS does not answer: it goes on when NATS is back.",
        "config show",
    ),
    "its time to wait for a signal is over, and NATS is away": (
        facts(steps=(replace(STEP, action=Action.WAIT, participant=None, due_at=AGO),), broker="NATS does not answer"),
        "nats-is-away",
        "It has been due for 30 s, and NATS does not answer: it goes on when NATS is back.",
        "config show",
    ),
    "its deadline has passed at a delay, and NATS is away": (
        replace(at_step(action=Action.DELAY, participant=None), deadline_at=AGO, broker="NATS does not answer"),
        "nats-is-away",
        "It has been due for 30 s, and NATS does not answer: it goes on when NATS is back.",
        "config show",
    ),
    "it is to be asked again after a refusal, and NATS is away": (
        replace(at_step(refusal="the shelf is locked", due_at=AGO), broker="NATS does not answer"),
        "nats-is-away",
        "It has been due for 30 s, and NATS does not answer: it goes on when NATS is back.",
        "config show",
    ),
    "nothing is open": (facts(steps=()), "moving", "it goes on at this moment.", "log 01ABC --follow"),
    "the command is a dead letter": (
        at_step(letter=LETTER),
        "command-is-dead-letter",
        "inventory could not handle the command of step reserve-stock: it is the dead letter inventory/3 "
        "(no such shelf); it is asked again in 9 s (attempt 3 of 6).",
        "dlq redrive inventory/3 --reason …",
    ),
    "every attempt is a dead letter": (
        at_step(letter=replace(LETTER, alike=11)),
        "command-is-dead-letter",
        "it is the dead letter inventory/3 (no such shelf), like 11 others; it is asked again in 9 s",
        "dlq redrive --saga 01ABC --reason …",
    ),
    "its handler fails": (
        at_step(failing=Failing(7, 8, "handling failed: no such table\n[SQL: SELECT 1]\n(see https://example.org)")),
        "handling-fails",
        "inventory fails at the command of step reserve-stock (handling failed: no such table; tried 7 times of 8 "
        "before it is buried): it tries again by itself, and goes on when the cause is gone.",
        "log 01ABC --follow",
    ),
    "the orchestrator fails at the answer": (
        at_step(is_answered=True, answer_failing=Failing(1, 8, "handling failed: KeyError")),
        "handling-fails",
        "orchestrator fails at the answer to step reserve-stock (handling failed: KeyError; tried 1 time of 8 before",
        "log 01ABC --follow",
    ),
    "redriving it is useless": (
        at_step(letter=replace(LETTER, useless=True)),
        "command-is-dead-letter",
        "it is the dead letter inventory/3",
        "dlq show inventory/3",
    ),
    "the answer is a dead letter": (
        at_step(is_answered=True, answer_letter=Letter("orchestrator/7", "it cannot be read")),
        "answer-is-dead-letter",
        "inventory has answered step reserve-stock, and the answer could not be taken: it is the dead letter "
        "orchestrator/7 (it cannot be read)",
        "dlq redrive orchestrator/7 --reason …",
    ),
    "waits for a signal": (
        at_step(name="approval", action=Action.WAIT, signal=("signal", "01ABC", "approval")),
        "waits-for-signal",
        "It waits for the signal approval since {ago}, until {soon}.",
        "signal 01ABC approval",
    ),
    "NATS is away": (
        facts(broker="NATS does not answer"),
        "nats-is-away",
        "Step reserve-stock waits for inventory, and NATS does not answer: it goes on when NATS is back.",
        "config show",
    ),
    "NATS is away, and it is that of saga dev": (
        facts(broker="NATS does not answer", broker_command=("dev",)),
        "nats-is-away",
        "Step reserve-stock waits for inventory, and NATS does not answer: it goes on when NATS is back.",
        "dev",
    ),
    "nobody listens": (
        at_service("inventory", listeners=0, waiting=412, is_at_work=True),
        "nobody-listens",
        "Nobody listens for the commands to inventory, where 412 messages must wait: step reserve-stock goes on when "
        "inventory runs, and its database lets it work (its log and /readyz tell).",
        "run inventory",
    ),
    "nobody listens, perhaps for want of a database": (
        at_service("inventory", listeners=0, waiting=0, in_hand=2, database="the database X is out of reach"),
        "nobody-listens",
        "where 2 messages must wait, and as seen from here the database X is out of reach: step reserve-stock goes on",
        "run inventory",
    ),
    "nobody listens, and it is none of ours": (
        at_service("inventory", waiting=None, is_ours=False),
        "nobody-listens",
        "Nobody listens for the commands to inventory: step",
        "log 01ABC --follow",
    ),
    "there is no consumer": (
        at_service("inventory", waiting=None),
        "nobody-listens",
        "Nobody listens for the commands to inventory: step",
        "run inventory",
    ),
    "nobody listens for the answer": (
        at_service("replies", is_answered=True, listeners=0, waiting=1),
        "nobody-listens",
        "Nobody listens for the answers to orchestrator, where 1 message must wait",
        "run orchestrator",
    ),
    "its command was not published": (
        at_step(unpublished_since=AGO),
        "not-published",
        "The command of step reserve-stock is in the outbox of orchestrator since {ago} and was not published",
        "run orchestrator",
    ),
    "its answer was not published": (
        at_step(is_answered=True, is_answer_unpublished=True),
        "not-published",
        "The answer of step reserve-stock is in the outbox of inventory and was not published",
        "run inventory",
    ),
    "a database is away": (
        at_service("inventory", database="the database is out of reach."),
        "database-is-away",
        "and as seen from here the database is out of reach: if inventory sees the same, that is why.",
        "config show",
    ),
    "a child": (
        at_step(name="ship", participant="orchestrator", child=Relative("01DEF", "stuck")),
        "child-not-done",
        "Step ship waits for the saga 01DEF that it has started, which is stuck.",
        "why 01DEF",
    ),
    "a backlog": (
        at_service("inventory", waiting=400, in_hand=12),
        "backlog",
        "Step reserve-stock waits for inventory, which has 412 messages waiting or in hand; it is asked again in 9 s",
        "log 01ABC --follow",
    ),
    "refused, and asked again": (
        at_step(refusal="the shelf is locked", undo=True),
        "refused-and-asked-again",
        "The undo of reserve-stock was refused by inventory (the shelf is locked) and must succeed; it is asked again "
        "in 9 s (attempt 3 of 6).",
        "log 01ABC --follow",
    ),
    "answered, and lost": (
        at_step(is_answered=True),
        "answer-lost",
        "inventory has answered step reserve-stock, and the answer has not come; it is asked again in 9 s "
        "(attempt 3 of 6), and the same answer is given.",
        "log 01ABC --follow",
    ),
    "not answered": (
        at_step(),
        "not-answered",
        "Step reserve-stock was asked 2 times, 30 s ago, and inventory has not answered; it is asked again in 9 s "
        "(attempt 3 of 6).",
        "log 01ABC --follow",
    ),
    "asked for the last time": (
        at_step(asked=6, last_asked_at=None),
        "not-answered",
        "has not answered; that was the last of 6 attempts, and it is waited for 9 s more.",
        "log 01ABC --follow",
    ),
    "a delay": (
        at_step(name="cool-off", action=Action.DELAY, participant=None, due_at=NOW + timedelta(days=3)),
        "delayed",
        "It lets time pass at cool-off until ",
        "log 01ABC --follow",
    ),
}


@pytest.mark.parametrize("what", FACTS)
def test_facts_are_told_in_one_sentence_with_a_command(what: str) -> None:
    known, cause, sentence, command = FACTS[what]
    found = diagnose(known)
    local = {name: moment(at) for name, at in (("ago", AGO), ("soon", SOON))}
    assert found.cause == cause
    assert sentence.format(**local) in found.sentence
    assert found.sentence.endswith(".")
    assert "\n" not in found.sentence
    assert " ".join(found.command) == command
    parse(f"saga {command.replace('…', 'x')}")


def test_every_cause_is_told() -> None:
    assert {type(cause_of(known)) for known, *_ in FACTS.values()} == set(get_args(Cause))


def test_the_page_for_people_has_a_row_for_every_cause() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "find-out-why-a-saga-does-not-move.md").read_text()
    table = page.partition("|---|---|---|\n")[2]
    rows = "".join(re.findall(r"^\| (`[a-z-]+`(?:, `[a-z-]+`)*) \|", table, re.MULTILINE))
    assert sorted(re.findall(r"`([a-z-]+)`", rows)) == sorted(kebab_case(cause.__name__) for cause in get_args(Cause))


def test_every_cause_of_a_step_has_its_place() -> None:
    of_steps = {cause for cause in get_args(Cause) if "step" in cause.__dataclass_fields__}
    assert of_steps <= set(RANK)
    assert len(RANK) == len(set(RANK))


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"letter": LETTER}, {"action": Action.DELAY}),
        ({"unpublished_since": AGO}, {"action": Action.WAIT}),
        ({"action": Action.WAIT}, {"is_answered": True}),
    ],
)
def test_of_several_open_steps_the_most_telling_counts(first: dict[str, Any], then: dict[str, Any]) -> None:
    one, other = replace(STEP, **first), replace(STEP, **then)
    assert cause_of(facts(steps=(one, other))) == cause_of(facts(steps=(other, one))) == cause_of(facts(steps=(one,)))


def test_what_an_earlier_delivery_left_behind_does_not_count_when_the_command_has_an_answer() -> None:
    left = at_step(letter=LETTER, failing=Failing(3, 8, "handling failed: KeyError"))
    assert diagnose(left).cause == "command-is-dead-letter"
    assert diagnose(at_step(is_answered=True, letter=LETTER, failing=left.steps[0].failing)).cause == "answer-lost"


def test_a_replica_that_is_busy_is_not_taken_for_nobody() -> None:
    assert BUSY == QUEUE_MESSAGES
    busy = at_service("inventory", listeners=0, in_hand=BUSY, is_at_work=True)
    assert diagnose(busy).cause == "backlog"
    idle = at_service("inventory", listeners=0, in_hand=BUSY - 1, is_at_work=True)
    assert diagnose(idle).cause == "nobody-listens"


@pytest.mark.parametrize("action", [Action.DELAY, Action.WAIT])
def test_what_is_not_due_does_not_wait_for_nats(action: Action) -> None:
    step = replace(STEP, action=action, participant=None)
    there, away = facts(steps=(step,)), facts(steps=(step,), broker="NATS does not answer")
    assert cause_of(there) == cause_of(away)


def test_a_deadline_does_not_count_for_what_is_being_undone() -> None:
    late = replace(at_step(undo=True), deadline_at=AGO, is_compensating=True)
    assert diagnose(late).cause == "not-answered"


def test_what_the_dead_had_in_hand_is_nobodys() -> None:
    left = at_service("inventory", listeners=0, in_hand=100 * BUSY)
    assert diagnose(left).cause == "nobody-listens"
    assert "where 6,400 messages must wait" in diagnose(left).sentence


def consumer(given: int = 64, heard: int = 0, in_hand: int = 64, **ago: float) -> ConsumerInfo:
    """A look at one with an ack_wait of 30 s. `ago`: seconds since it `gave` a message, and since it `took` note."""
    at = {what: NOW - timedelta(seconds=seconds) for what, seconds in ago.items()}
    config = ConsumerConfig(ack_wait=30.0)
    delivered, ack_floor = SequenceInfo(given, given, at.get("gave")), SequenceInfo(heard, heard, at.get("took"))
    return ConsumerInfo("inventory", "SAGA_COMMANDS", config, NOW, delivered, ack_floor, in_hand)


@pytest.mark.parametrize(
    ("looks", "moves"),
    [
        ([consumer(gave=29.0)] * 4, True),
        ([consumer(gave=31.0)] * 4, False),
        ([consumer(gave=31.0, took=29.0)] * 4, True),
        ([consumer(gave=-5.0)] * 4, True),
        ([consumer()] * 4, False),
        ([consumer(gave=999.0), consumer(gave=999.0, given=65)], True),
        ([consumer(gave=999.0), consumer(gave=999.0, heard=1)], True),
        ([consumer(gave=999.0), consumer(gave=999.0, in_hand=63)], True),
    ],
)
def test_a_consumer_is_at_work_when_it_moves_or_has_moved_within_its_ack_wait(
    looks: list[ConsumerInfo], moves: bool
) -> None:
    assert is_at_work(looks, NOW) is moves
