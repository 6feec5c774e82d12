"""`saga dlq` as a person or a script meets it: every command a process of its own, on dead letters that are real."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from nats.aio.client import Client

from tests.support.cli import Background, Saga

RUBBISH: Final = b"{"
UNKNOWN: Final = {
    "specversion": "1.0", "id": "s1/burn-stock/do", "source": "/test", "type": "inventory.burn-stock",
    "subject": "s1", "time": "2026-01-01T00:00:00Z", "datacontenttype": "application/json", "data": {},
    "replyto": "saga.reply.inventory",
}  # fmt: skip


@pytest.fixture
def saga(tmp_path: Path) -> Saga:
    return Saga(tmp_path)


@pytest.fixture
def dev(saga: Saga) -> Iterator[Background]:
    with saga.dev() as process:
        yield process


def publish(saga: Saga, *bodies: bytes) -> None:
    """Send the inventory what it cannot handle."""

    async def send() -> None:
        client = Client()
        await client.connect(json.loads((saga.data_dir / "dev.json").read_text())["nats_url"])
        for body in bodies:
            await client.jetstream().publish("saga.cmd.inventory.burn-stock", body)
        await client.close()

    asyncio.run(send())


def listed(saga: Saga, *options: str) -> list[Any]:
    result = saga("dlq", "ls", "--json", *options)
    assert (result.code, result.err) == (0, "")
    return list(result.json())


def number_of(saga: Saga, count: int) -> bool:
    return len(listed(saga)) == count


def execute(saga: Saga, statement: str) -> list[Any]:
    with closing(sqlite3.connect(saga.data_dir / "inventory.db")) as connection:
        return connection.execute(statement).fetchall()


def test_dead_letters_are_listed_shown_redriven_and_dropped(saga: Saga, dev: Background) -> None:
    assert saga("dlq", "ls").err == "no dead letters\n"
    publish(saga, RUBBISH, json.dumps(UNKNOWN).encode())
    dev.until(partial(number_of, saga, 2), "both are buried")

    unknown, rubbish = sorted(listed(saga), key=lambda letter: str(letter["message_id"]), reverse=True)
    assert {unknown["id"], rubbish["id"]} == {"inventory/1", "inventory/2"}
    assert (unknown["message_id"], unknown["cannot_be_redriven"]) == ("s1/burn-stock/do", None)
    assert rubbish["cannot_be_redriven"].startswith("it cannot be read (it is not JSON")
    assert listed(saga, "--role", "order") == []
    assert [one["id"] for one in listed(saga, "--saga", "s1")] == [unknown["id"]]
    assert [one["id"] for one in listed(saga, "--because", "JSON", "--newer-than", "1h")] == [rubbish["id"]]
    printed = saga("dlq", "ls")
    assert "inventory has no handler for inventory.burn-stock" in printed.out
    assert printed.err == "in all: 2 of inventory\n"
    assert [one["letters"] for one in listed(saga, "--by-reason")] == [1, 1]

    shown = saga("dlq", "show", unknown["id"])
    assert "has no handler" in shown.out
    assert '  "type": "inventory.burn-stock"' in shown.out
    assert json.loads(saga("dlq", "show", unknown["id"], "--json").json()["body"])["id"] == UNKNOWN["id"]

    tried = saga("dlq", "redrive", "--all", "--reason", "to see", "--dry-run")
    assert (tried.code, tried.out.split()) == (4, [unknown["id"]])
    refused = saga("dlq", "redrive", rubbish["id"], "--reason", "to see")
    assert (refused.code, refused.out) == (4, "")
    assert "; --force sends it all the same" in refused.err
    redriven = saga("dlq", "redrive", rubbish["id"], "--reason", "to see", "--by", "grace", "--force", "--json")
    assert (redriven.code, redriven.json()["outcome"]) == (0, "redriven")
    dev.until(partial(number_of, saga, 2), "it is buried again")

    dropped = saga("dlq", "drop", "--role", "inventory", "--reason", "from a test", "--by", "grace")
    assert (dropped.code, len(dropped.out.split()), dropped.err) == (0, 2, "2 dropped\n")
    assert listed(saga) == []
    log = execute(saga, "SELECT action, by, why FROM dead_letter_log ORDER BY id")
    assert log == [("redriven", "grace", "to see"), *[("dropped", "grace", "from a test")] * 2]
    assert saga("dlq", "drop", "--all", "--reason", "again").code == 3


@pytest.mark.parametrize(
    ("command", "code", "problem"),
    [
        ("show lamp/1", 2, "their ids are like order/12"),
        ("show order/x", 2, "their ids are like order/12"),
        ("show order/99999999999999999999", 2, "their ids are like order/12"),
        ("redrive --reason x", 2, "which dead letters?"),
        ("redrive order/1 --all --reason x", 2, "which dead letters?"),
        ("drop order/1 --role order --reason x", 2, "which dead letters?"),
        ("drop order/1", 2, "--reason"),
        ("drop order/1 --reason …", 2, "say why"),
        ("ls --role bakery", 2, "there is orchestrator, order"),
        ("ls", 7, "there is no database"),
        ("show order/1", 7, "there is no database"),
        ("drop order/1 --reason x", 7, "there is no database"),
    ],
)
def test_a_mistake_is_answered_with_a_sentence(saga: Saga, command: str, code: int, problem: str) -> None:
    result = saga("dlq", *command.split())
    assert (result.code, result.out) == (code, "")
    assert problem in result.err


def test_letters_of_the_databases_that_can_be_reached_are_listed(saga: Saga, dev: Background) -> None:
    publish(saga, RUBBISH)
    dev.until(partial(number_of, saga, 1), "it is buried")
    result = saga("dlq", "ls", "--json", SAGA_ORDER_DATABASE_URL="postgresql://nobody@127.0.0.1:1/order")
    assert (result.code, len(result.json())) == (7, 1)
    assert "not looked at: the database postgresql://nobody@127.0.0.1:1/order is out of reach" in result.err


@pytest.mark.parametrize(("point", "left"), [("before-commit", (1, 0)), ("committed", (0, 1))])
def test_a_redrive_that_is_killed_has_done_all_of_it_or_nothing(
    saga: Saga, dev: Background, point: str, left: tuple[int, int]
) -> None:
    publish(saga, RUBBISH)
    dev.until(partial(number_of, saga, 1), "it is buried")
    assert dev.terminate().code == 0
    killed = saga("dlq", "redrive", "--all", "--force", "--reason", "x", SAGA_CRASH_AT=f"inventory.{point}")
    assert killed.code == -9
    counted = "SELECT (SELECT count(*) FROM dead_letters), (SELECT count(*) FROM outbox)"
    assert execute(saga, counted) == [left]
