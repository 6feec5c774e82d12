"""The explorer sees everything that can happen to a saga, and finds every mistake that is planted in the machine."""

import pytest

from orchestrator import machine
from orchestrator.definition import Saga, reversible, step
from orchestrator.explorer import Bounds, Explorer
from orchestrator.sagas import DEFINITIONS
from orchestrator.sagas.place_order import PlaceOrder, capture_payment, confirm_order, open_order, reject_order
from tests.mutants.catalogue import MUTANTS, Mutant, planted
from tests.mutants.shapes import BOUNDS, SMALL

TINY = Saga(
    name="tiny",
    data=PlaceOrder,
    reversible=(reversible(open_order, undo=reject_order),),
    pivot=step(capture_payment),
    retriable=(step(confirm_order),),
)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_no_way_through_a_saga_breaks_a_promise(name: str) -> None:
    found = Explorer(DEFINITIONS[name], Bounds(attempts=2, retries=0)).explore()
    assert found.counterexample is None
    assert found.exhausted
    assert found.ends["completed"] > 0
    assert found.ends["compensated"] > 0


def test_parallel_branches_and_a_persons_retry_break_no_promise() -> None:
    found = Explorer(SMALL, Bounds(attempts=1, retries=1)).explore()
    assert found.counterexample is None
    assert found.exhausted
    assert found.states > 1000


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_mistake_is_found(mutant: Mutant) -> None:
    with planted(mutant):
        found = Explorer(SMALL, BOUNDS).explore()
    assert found.counterexample is not None
    assert found.counterexample.path


def test_a_planted_mistake_is_taken_out_again() -> None:
    before = dict(vars(machine)), dict(vars(machine._Decider))
    for mutant in MUTANTS:
        with planted(mutant):
            pass
    assert (dict(vars(machine)), dict(vars(machine._Decider))) == before


def test_the_counterexample_is_a_shortest_one() -> None:
    unknown_is_not_undone = next(mutant for mutant in MUTANTS if mutant.name == "an unknown step is not undone")
    with planted(unknown_is_not_undone):
        found = Explorer(TINY, Bounds(attempts=1, retries=0)).explore()
    assert found.counterexample is not None
    assert found.counterexample.path == ("S/open-order/do is done", "the timer of S/open-order/do fires")


def test_the_bound_of_states_is_told() -> None:
    found = Explorer(SMALL, Bounds(attempts=2, retries=1, states=100)).explore()
    assert not found.exhausted
    assert found.counterexample is None
