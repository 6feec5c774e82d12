"""`saga graph` and `saga lint` as a person or a script meets them."""

from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import pytest

from orchestrator.graph import mermaid, picture, svg, text
from orchestrator.sagas.place_order import place_order
from tests.support.cli import Saga
from tests.support.world import an_order

NOBODY: Final = "nats://127.0.0.1:1"
HAZARDOUS: Final = """
from orchestrator.definition import Policy, Saga, SagaData, step
from outbox.contracts import Command, Reply


class Paid(Reply):
    pass


class Pay(Command[Paid], participant="payment"):
    pass


class Debt(SagaData):
    pass


def pay(debt: Debt) -> Pay:
    return Pay()


pay_debt = Saga(name="pay-debt", data=Debt, reversible=(), pivot=step(pay, policy=Policy(attempts=3)))
"""


@pytest.fixture
def saga(tmp_path: Path) -> Saga:
    (tmp_path / "shop.py").write_text(HAZARDOUS)
    return Saga(tmp_path, SAGA_NATS_URL=NOBODY)


def test_a_definition_is_drawn_in_every_format(saga: Saga) -> None:
    seen = picture(place_order)
    for options, expected in (((), text), (("--format", "mermaid"), mermaid), (("--format", "svg"), svg)):
        result = saga("graph", "place-order", *options)
        assert (result.code, result.out, result.err) == (0, expected(seen), "")


def test_a_drawing_goes_to_a_file_in_the_format_of_its_name(saga: Saga) -> None:
    for file, drawn in (("order.svg", svg), ("order.mmd", mermaid), ("order.txt", text)):
        result = saga("graph", "place-order", "--output", file)
        assert (result.code, result.out, result.err) == (0, "", f"{file} is written\n")
        assert (saga.folder / file).read_text() == drawn(picture(place_order))
    result = saga("graph", "place-order", "--output", "nowhere/order.svg")
    assert (result.code, result.err) == (1, "saga: nowhere/order.svg cannot be written: No such file or directory\n")


def test_one_saga_is_drawn_with_its_progress_whether_its_definition_is_loaded_or_not(saga: Saga) -> None:
    assert saga("db", "upgrade").code == 0
    saga_id = saga.start(an_order(), options=("--key", "k-1")).out.strip()
    by_key = saga("graph", "k-1")
    assert by_key.out.startswith(f"place-order v1  {saga_id}  running\n")
    assert "  ├─── open-order         asked    order " in by_key.out
    by_id = saga("graph", saga_id, "--format", "svg")
    assert saga_id in [element.text for element in ElementTree.fromstring(by_id.out).iter()]
    elsewhere = saga("graph", saga_id, SAGA_DEFINITIONS="shop")
    assert "is not loaded here: only the names of its steps are known\n" in elsewhere.out
    assert "  ├─── open-order         asked\n" in elsewhere.out


def test_what_is_not_there_is_not_found(saga: Saga) -> None:
    nothing_yet = saga("graph", "no-such")
    assert (nothing_yet.code, nothing_yet.out) == (3, "")
    assert "there is no database" in nothing_yet.err
    assert saga("db", "upgrade").code == 0
    expected = "saga: there is no saga 'no-such': `saga ls` lists them; and no definition is called 'no-such': "
    assert saga("graph", "no-such").err == f"{expected}there is place-order\n"
    assert saga("graph", "no-such").code == 3
    away = saga("graph", "no-such", SAGA_ORCHESTRATOR_DATABASE_URL="postgresql://somebody@127.0.0.1:1/orders")
    assert (away.code, away.out) == (7, "")


def test_our_own_sagas_have_no_hazards(saga: Saga) -> None:
    result = saga("lint")
    assert (result.code, result.out, result.err) == (0, "", "place-order: no hazards\n")


def test_the_hazards_of_a_module_are_listed_with_their_remedies(saga: Saga) -> None:
    result = saga("lint", "shop")
    assert (result.code, result.err) == (1, "pay-debt: 1 hazard\n")
    head, message, remedy = result.out.splitlines()
    assert head == "A008  pay-debt / pay"
    assert message.strip().startswith("it must succeed, and is given up after 3 attempts")
    assert remedy.strip().startswith("remedy: leave out its policy (12 attempts)")
    found = saga("lint", "shop", "--json")
    assert found.code == 1
    assert [(one["code"], one["step"]) for one in found.json()["hazards"]] == [("A008", "pay")]
    assert set(found.json()["hazards"][0]) == {"code", "saga", "step", "message", "remedy"}


def test_a_module_that_is_no_module_is_an_error_in_a_sentence(saga: Saga) -> None:
    result = saga("lint", "no_such_module")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("saga: the module no_such_module cannot be imported")
