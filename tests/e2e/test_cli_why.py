"""`saga why` as a person meets it: a process of its own, also when nothing runs."""

from pathlib import Path

import pytest

from tests.support.cli import Saga
from tests.support.world import an_order


@pytest.fixture
def saga(tmp_path: Path) -> Saga:
    return Saga(tmp_path)


def test_why_answers_with_a_sentence_and_a_command_or_with_json(saga: Saga) -> None:
    with saga.dev():
        placed = saga.start(an_order(), options=["--wait", "--key", "first"])
        saga_id = placed.out.strip()
        told = saga("why", "first", "--data-dir", str(saga.data_dir))
        sentence, command = told.out.splitlines()
        assert (told.code, told.err) == (0, "")
        assert sentence.startswith("It ended at ")
        assert "it is compensated, because reserve-stock was refused: " in sentence
        assert command == f"  saga get {saga_id} --data-dir {saga.data_dir}"
        seen = saga("why", saga_id, "--json").json()
        assert (seen["saga_id"], seen["cause"], seen["sentence"]) == (saga_id, "ended", sentence)
        assert (seen["command"], seen["facts"]["status"]) == (f"saga get {saga_id}", "compensated")
        assert saga("why", "0NOSUCHSAGA").code == 3


def test_why_tells_what_is_out_of_reach_when_nothing_runs(saga: Saga) -> None:
    assert saga("db", "upgrade").code == 0
    nowhere = {"SAGA_NATS_URL": "nats://127.0.0.1:1"}
    saga_id = saga.start(an_order(), **nowhere).out.strip()
    seen = saga("why", saga_id, "--json", **nowhere, SAGA_ORDER_DATABASE_URL="postgresql://x@127.0.0.1:1/x").json()
    assert (seen["cause"], seen["command"]) == ("nats-is-away", "saga config show")
    assert "Step open-order waits for order, and NATS at nats://127.0.0.1:1 is out of reach (" in seen["sentence"]
    assert "127.0.0.1:1/x is out of reach" in seen["facts"]["services"]["order"]["database"]
    here = saga("why", saga_id, "--json").json()
    assert (here["cause"], here["command"]) == ("nats-is-away", "saga dev"), "nobody has named a NATS"
    away = saga("why", saga_id, SAGA_ORCHESTRATOR_DATABASE_URL="postgresql://x@127.0.0.1:1/x")
    assert (away.code, away.out) == (7, "")
