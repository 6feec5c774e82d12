"""What the README says of the program is so."""

import json
import re
from pathlib import Path

import pytest

from orchestrator.cli.exits import Exit
from orchestrator.cli.main import app
from orchestrator.sagas import DEFINITIONS
from orchestrator.sagas.place_order import PlaceOrder
from tests.mutants.catalogue import MUTANTS
from tests.mutants.outside import BUGS

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_exit_codes_are_those_of_the_program() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \| ", README, flags=re.MULTILINE)}
    assert listed == {code.value for code in Exit}
    assert app.info.epilog is not None
    assert {int(code) for code in re.findall(r"\b\d+\b", app.info.epilog)} == listed


def test_the_order_that_it_shows_is_one_that_is_accepted() -> None:
    shown = re.search(r"```json\n(.*?)\n```", README, flags=re.DOTALL)
    assert shown is not None
    order = PlaceOrder.model_validate(json.loads(shown[1]))
    assert str(order.total) == "19.98"


def test_the_saga_that_it_shows_is_the_one_that_runs() -> None:
    shown = re.search(r"place_order = Saga\((.*?)\n\)", README, flags=re.DOTALL)
    assert shown is not None
    named = re.findall(r"(?:reversible|step)\((\w+)", shown[1])
    assert [name.replace("_", "-") for name in named] == list(DEFINITIONS["place-order"].steps)
    undos = re.findall(r"undo=(\w+)", shown[1])
    assert undos == [spec.undo.__name__ for spec in DEFINITIONS["place-order"].steps.values() if spec.undo]


def test_it_counts_the_planted_mistakes_right() -> None:
    told = " ".join(README.split())
    assert f"{len(MUTANTS)} mistakes in the machine and {len(BUGS)} outside of it" in told


def test_the_search_that_it_shows_is_the_one_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["explore", "place-order"], standalone_mode=False) == Exit.OK
    assert f"$ saga explore place-order\n{capsys.readouterr().out}" in README


def test_every_page_that_it_links_to_is_there() -> None:
    root = Path(__file__).parents[2]
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (root / target).exists(), target
