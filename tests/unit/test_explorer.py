"""The explorer sees everything that can happen to a saga, and finds every mistake that is planted in the machine."""

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator import machine
from orchestrator.cli.exits import Exit
from orchestrator.cli.explore import explore
from orchestrator.definition import Saga
from orchestrator.events import Event
from orchestrator.explorer import Bounds, Counterexample, Exploration, Explorer, as_test, can_end, skeleton
from orchestrator.explorer.moves import Move
from orchestrator.model import Saga as State
from orchestrator.sagas import DEFINITIONS
from orchestrator.testing import given
from tests.mutants.catalogue import MUTANTS, Mutant, planted
from tests.mutants.planting import MODULES, Decider
from tests.mutants.shapes import APPROVED, LIMITED, OPTIONAL, PARTS, SHAPES, SMALL, TINY

BY_NAME = {mutant.name: mutant for mutant in MUTANTS}


def explored(definition: Saga[Any], bounds: Bounds) -> Exploration:
    """An exploration that has seen everything and found nothing wrong."""
    found = Explorer(definition, bounds).explore()
    assert found.counterexample is None
    assert found.exhausted
    return found


def hunted(mutant: Mutant) -> Counterexample:
    """How a mutant is found."""
    with planted(mutant):
        found = Explorer(mutant.shape, mutant.bounds).explore().counterexample
    assert found is not None, "it survives"
    return found


# --- the right machine ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEFINITIONS)
def test_no_way_through_a_saga_breaks_a_promise(name: str) -> None:
    found = explored(DEFINITIONS[name], Bounds(attempts=2, orders=1))
    assert found.ends["completed"] > 0
    assert found.ends["compensated"] > 0


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_nothing_that_a_saga_can_have_breaks_a_promise(shape: Saga[Any]) -> None:
    found = explored(shape, Bounds(attempts=2, orders=1))
    assert {*found.ends} == {"completed", "compensated"}


@pytest.mark.parametrize("shape", [TINY, APPROVED, OPTIONAL, LIMITED], ids=lambda shape: shape.name)
def test_two_orders_of_people_break_no_promise(shape: Saga[Any]) -> None:
    assert explored(shape, Bounds(attempts=1, orders=2)).states > explored(shape, Bounds(attempts=1, orders=1)).states


def test_three_items_break_no_promise() -> None:
    explored(LIMITED, Bounds(attempts=1, orders=0, items=3))


def test_the_same_exploration_is_the_same_to_the_last_state() -> None:
    assert explored(PARTS, Bounds(attempts=1)) == explored(PARTS, Bounds(attempts=1))


# --- everything is looked at ---------------------------------------------------------------------------------------


def happened_to(definition: Saga[Any], bounds: Bounds) -> set[tuple[str, str]]:
    """(kind of event, status that it met) of all that the machine was asked to decide."""
    met: set[tuple[str, str]] = set()

    def decide(skeleton: Saga[Any], saga: State, event: Event, now: datetime) -> machine.Decision:
        met.add((type(event).__name__, saga.status))
        return machine.decide(skeleton, saga, event, now)

    Explorer(definition, bounds, decide).explore()
    return met


def test_everything_happens_in_every_status() -> None:
    met = happened_to(APPROVED, Bounds(attempts=1, orders=2)) | happened_to(PARTS, Bounds(attempts=1))
    always = {"Answered", "Signalled", "Cancelled", "PauseOrdered", "UndoRequested"}
    for status in ("running", "compensating", "stuck", "paused", "completed", "compensated"):
        assert always <= {kind for kind, met_in in met if met_in == status}, status
    assert {("Admitted", "waiting"), ("Signalled", "waiting"), ("Cancelled", "waiting")} <= met
    assert {("Retried", "stuck"), ("Resolved", "stuck"), ("ResumeOrdered", "paused"), ("TimedOut", "paused")} <= met
    assert {("DeadlinePassed", "running"), ("DeadlinePassed", "paused"), ("DeadlinePassed", "completed")} <= met


def test_conditions_go_both_ways_and_lists_are_empty_too() -> None:
    skipped = hunted(BY_NAME["a skipped step is undone"])
    assert any("its condition does not hold" in label for label in skipped.path)
    nothing = skeleton(PARTS)
    given(nothing).started(items={"one-of-many": 0}).then_asks("first")
    given(skeleton(LIMITED)).started(items={"one-of-many": 0}).then_asks("pivot")
    given(skeleton(LIMITED)).started().then_asks("one-of-many[0]")


def test_the_bound_of_states_is_told() -> None:
    found = Explorer(SMALL, Bounds(states=100)).explore()
    assert not found.exhausted
    assert found.counterexample is None


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    found = Explorer(SMALL, Bounds(attempts=1, orders=1)).explore(lambda *counts: told.append(counts))
    assert told[0][0] == 0
    assert len(told) == 1 + (found.states - 1) // 1000


# --- mutants -------------------------------------------------------------------------------------------------------


def run(module: Path) -> None:
    """Run a printed test as pytest would."""
    tests: list[Callable[[], None]] = [
        value for name, value in runpy.run_path(str(module)).items() if name.startswith("test_")
    ]
    assert len(tests) == 1
    tests[0]()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_mistake_is_found_and_printed_as_a_test_that_fails_there_and_only_there(
    mutant: Mutant, tmp_path: Path
) -> None:
    module = tmp_path / "test_printed.py"
    module.write_text(as_test(mutant.shape, mutant.bounds, hunted(mutant)))
    run(module)
    with planted(mutant), pytest.raises((AssertionError, KeyError)):
        run(module)


def test_a_planted_mistake_is_taken_out_again() -> None:
    places = [*MODULES, Decider]
    before = [dict(vars(place)) for place in places]
    for mutant in MUTANTS:
        with planted(mutant):
            assert [dict(vars(place)) for place in places] != before, f"{mutant.name} changes nothing"
    assert [dict(vars(place)) for place in places] == before


def test_every_mistake_has_its_own_name() -> None:
    assert len(BY_NAME) == len(MUTANTS) >= 39


def test_the_table_of_mutants_says_how_each_is_found() -> None:
    command = [sys.executable, "-m", "tests.mutants", "machine"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [mutant.name for mutant in MUTANTS if mutant.name not in printed.stdout] == []
    assert "survives" not in printed.stdout
    assert f"{len(MUTANTS)} mutants, 0 survive" in printed.stderr


# --- counterexamples -----------------------------------------------------------------------------------------------


def test_the_counterexample_is_a_shortest_one() -> None:
    mutant = replace(BY_NAME["an unknown step is not undone"], shape=TINY, bounds=Bounds(attempts=1, orders=0))
    found = hunted(mutant)
    assert found.path == ("the saga starts", "the timer of first fires")
    assert found.promise == "compensated means that no effect is there, and none comes: first"


def test_moves_that_are_not_needed_are_taken_out() -> None:
    mutant = BY_NAME["a cancel turns back after the pivot"]
    found = hunted(mutant)
    start, *others = found.moves
    longer = (start, Move("pause"), Move("resume"), *others)
    explorer = Explorer(mutant.shape, Bounds(orders=2))
    with planted(mutant):
        assert explorer.replay(longer) == found.broken
        assert explorer.shrink(Counterexample(found.broken, longer)).moves == found.moves


def test_what_cannot_happen_cannot_be_replayed() -> None:
    explorer = Explorer(TINY)
    assert explorer.replay((Move("start"),)) is None
    with pytest.raises(ValueError, match="a person resumes the saga"):
        explorer.replay((Move("start"), Move("resume")))


def test_a_counterexample_reads_as_a_specification() -> None:
    mutant = replace(BY_NAME["what was done is not undone"], shape=TINY, bounds=Bounds(attempts=1, orders=1))
    found = hunted(mutant)
    assert as_test(TINY, mutant.bounds, found) == (
        "from orchestrator.explorer import skeleton\n"
        "from orchestrator.testing import answered, given\n"
        "from tests.mutants.shapes import TINY\n"
        "\n\n"
        "def test_compensated_means_that_no_effect_is_there_and_none_comes() -> None:\n"
        "    it = given(skeleton(TINY, attempts=1)).started()\n"
        '    it.when(answered("first/do"))\n'
        '    it.when(answered("pivot/do", "refused"))\n'
        "    # compensated means that no effect is there, and none comes: first\n"
        '    assert it.saga.phase != "compensated"\n'
    )


def test_a_saga_that_nobody_can_end_is_told_from_one_that_somebody_can() -> None:
    begun = given(skeleton(TINY)).started()
    assert can_end(begun.definition, begun.saga)
    with planted(BY_NAME["a spent policy is forgotten"]):
        assert can_end(begun.definition, begun.saga)
    with planted(Mutant("nothing ever ends", decider={"_advance": lambda _decider: False})):
        assert not can_end(begun.definition, begun.saga)


# --- the command ---------------------------------------------------------------------------------------------------


def test_saga_explore_says_how_much_it_has_seen(capfd: pytest.CaptureFixture[str]) -> None:
    assert explore("place-order", attempts=1, orders=0, items=2, states=1000) == Exit.OK
    printed = capfd.readouterr()
    assert printed.out.endswith(" completed\n")
    assert printed.err == "no promise is broken\n"


def test_saga_explore_says_when_it_has_not_seen_everything(capfd: pytest.CaptureFixture[str]) -> None:
    assert explore("place-order", attempts=2, orders=1, items=2, states=50) == Exit.ERROR
    assert "there are more than 50 states; lower --attempts or --orders" in capfd.readouterr().err


@pytest.mark.parametrize("as_json", [False, True])
def test_saga_explore_prints_a_broken_promise_as_a_test(
    as_json: bool, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    mutant = BY_NAME["what was done is not undone"]
    with planted(mutant):
        assert explore("place-order", attempts=1, orders=0, items=2, states=1000, json=as_json) == Exit.VIOLATION
    printed = capfd.readouterr()
    assert "broken: compensated means that no effect is there, and none comes: open-order" in printed.err
    test = json.loads(printed.out)["counterexample"]["test"] if as_json else printed.out.partition("\n")[2]
    assert "from orchestrator.sagas.place_order import place_order\n" in test
    module = tmp_path / "test_printed.py"
    module.write_text(test)
    run(module)
    with planted(mutant), pytest.raises(AssertionError):
        run(module)
