"""`/healthz` and `/readyz` of running processes, asked as a container's runtime asks them."""

import json
import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError

import pytest

from orchestrator.embedded.nats_server import EmbeddedNats
from tests.support.cli import Background, Saga

ANYWHERE: Final = "127.0.0.1:0"


@pytest.fixture
def saga(tmp_path: Path, nats: EmbeddedNats) -> Saga:
    folder = tmp_path / "own"
    folder.mkdir()
    saga = Saga(folder, SAGA_NATS_URL=nats.url, SAGA_LOG_FORMAT="json", SAGA_HEALTH_ADDRESS=ANYWHERE)
    assert saga("db", "upgrade").code == 0
    return saga


@contextmanager
def starting(saga: Saga, *roles: str) -> Iterator[Background]:
    """Processes that may not be ready yet, and are asked already."""
    with saga.background("run", *roles) as process:
        process.until(lambda: url_of(process, "readyz"), "it says where it answers")
        yield process


def url_of(process: Background, name: str) -> str:
    lines = [json.loads(line) for line in process.err.splitlines() if line.endswith("}")]
    return next((str(line[name]) for line in lines if name in line), "")


def ask(process: Background, name: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url_of(process, name), timeout=10) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def answers(process: Background, status: int) -> bool:
    return ask(process, "readyz")[0] == status


def test_readiness_comes_and_goes_with_nats_and_says_why_while_the_process_stays_healthy(
    saga: Saga, nats: EmbeddedNats
) -> None:
    nats.stop()
    with starting(saga, "orchestrator", "order") as process:
        process.until(partial(says, process, "NATS is out of reach since "), "both roles wait for NATS")
        assert ask(process, "healthz") == (200, {"alive": True, "problems": []})
        nats.start()
        process.until(partial(answers, process, 200), "both are ready")
        ready = ask(process, "readyz")[1]
        assert (ready["ready"], [role["role"] for role in ready["roles"]]) == (True, ["orchestrator", "order"])
        assert [(role["ready"], role["problems"], role["unpublished"]) for role in ready["roles"]] == [
            (True, [], 0)
        ] * 2
        nats.kill()
        process.until(partial(says, process, f"the connection to {nats.url} is lost"), "both have noticed")
        assert ask(process, "healthz")[0] == 200
        nats.start()
        process.until(partial(answers, process, 200), "both are ready again")
        assert process.terminate().code == 0


def says(process: Background, words: str) -> bool:
    status, told = ask(process, "readyz")
    return status == 503 and all(words in " ".join(role["problems"]) for role in told["roles"])


def test_without_an_address_nobody_answers_and_a_bad_one_is_refused(saga: Saga) -> None:
    with saga.running("order", SAGA_HEALTH_ADDRESS="") as process:
        assert url_of(process, "readyz") == ""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = saga("run", "order", SAGA_HEALTH_ADDRESS=address)
    assert (refused.code, refused.out) == (2, "")
    assert f"SAGA_HEALTH_ADDRESS='{address}': nobody can listen there: Address already in use" in refused.err
    assert "'8080': write host:port, as in 127.0.0.1:8080" in saga("run", "order", SAGA_HEALTH_ADDRESS="8080").err
    assert saga("run", "order", SAGA_HEALTH_ADDRESS="127.0.0.1:99999").code == 2
    assert saga("run", "order", SAGA_HEALTH_ADDRESS="127.0.0.1:-1").code == 2
    unknown = saga("run", "order", SAGA_HEALTH_ADDRESS="nowhere.invalid:0")
    assert unknown.code == 2
    assert "nobody can listen there: " in unknown.err
    assert "Unknown error" not in unknown.err


def test_a_process_that_is_frozen_does_not_answer(saga: Saga) -> None:
    with starting(saga, "order") as process:
        process.until(partial(answers, process, 200), "it is ready")
        os.kill(process.pid, 19)
        try:
            with pytest.raises(TimeoutError), urllib.request.urlopen(url_of(process, "healthz"), timeout=1):
                pass
        finally:
            os.kill(process.pid, 18)
        process.until(partial(answers, process, 200), "it is ready again")
