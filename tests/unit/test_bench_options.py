"""What the benchmark can be asked for: nonsense is refused in a sentence, and orders are what the options say."""

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from benchmarks.errors import BadOptions
from benchmarks.options import DATABASES, Options
from benchmarks.orders import SPREAD, inputs, is_refused, size_of
from benchmarks.sagas import Link, chain, reference
from orchestrator.definition import Saga
from orchestrator.door import MAX_INPUT_BYTES, read_request
from orchestrator.sagas.place_order import place_order

SAGA_ID = "01K00000000000000000000000"


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("--database", {"database": "oracle"}),
        ("--orders", {"orders": 0}),
        ("--steps", {"steps": 0}),
        ("--steps", {"steps": 301}),
        ("--in-flight", {"in_flight": 0}),
        ("--in-flight", {"in_flight": 100_001}),
        ("--rate", {"rate": 0.0}),
        ("--rate", {"rate": float("nan")}),
        ("--rate", {"rate": float("inf")}),
        ("--refused", {"refused": -1.0}),
        ("--refused", {"refused": 100.5}),
        ("--refused", {"refused": 10.0, "steps": 4}),
        ("--replicas", {"replicas": 0}),
        ("--replicas", {"replicas": 2, "database": "sqlite"}),
        ("--payload", {"payload": -1}),
        ("--payload", {"payload": 30_001}),
        ("--payload", {"payload": MAX_INPUT_BYTES + 1, "steps": 3}),
        ("--waiting", {"waiting": -1}),
        ("--history", {"history": -1}),
    ],
)
def test_nonsense_is_refused_by_the_name_of_the_option(option: str, given: dict[str, Any]) -> None:
    with pytest.raises(BadOptions, match=f"^{option}: "):
        Options(**given)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"steps": 1},
        {"steps": 300, "refused": 100.0},
        {"refused": 30.0},
        {"rate": 0.5},
        {"replicas": 4},
        {"payload": MAX_INPUT_BYTES, "steps": 3},
        {"payload": 30_000},
        *({"database": database} for database in DATABASES),
    ],
)
def test_what_makes_sense_is_accepted(given: dict[str, Any]) -> None:
    assert Options(**given).warm_up > 0


def test_the_roof_is_for_postgresql_and_can_be_left_out() -> None:
    assert Options().wants_roof
    assert not Options(database="sqlite").wants_roof
    assert not Options(roof=False).wants_roof


@pytest.mark.parametrize(("percent", "orders"), [(0.0, 50), (30.0, 1000), (33.3, 997), (100.0, 12), (0.1, 999)])
def test_so_many_orders_are_refused_as_the_share_says_and_at_even_distances(percent: float, orders: int) -> None:
    refused = [number for number in range(orders) if is_refused(number, percent)]
    assert len(refused) == Options(orders=orders, refused=percent).refusals
    assert len({right - left for left, right in pairwise(refused)}) <= 2


@pytest.mark.parametrize("steps", [None, 5])
def test_orders_are_spread_evenly_and_no_two_have_the_same_id(steps: int | None) -> None:
    made = list(inputs(Options(steps=steps), "order", 2 * SPREAD))
    assert len({one["order_id"] for one in made}) == 2 * SPREAD
    skus = Counter(one["sku"] if steps else one["lines"][0]["sku"] for one in made)
    customers = Counter(one["customer_id"] for one in made)
    assert set(skus.values()) == set(customers.values()) == {2}
    assert len(skus) == len(customers) == SPREAD


@pytest.mark.parametrize("refused", [0.0, 100.0])
@pytest.mark.parametrize(
    ("steps", "payload"),
    [*((steps, payload) for steps in (None, 3) for payload in (0, 1024, 16 * 1024, 30_000)), (3, MAX_INPUT_BYTES)],
)
def test_an_order_is_padded_to_the_payload_and_the_door_takes_it(
    steps: int | None, refused: float, payload: int
) -> None:
    options = Options(steps=steps, payload=payload, refused=refused)
    definition: Saga[Any] = place_order if steps is None else chain(steps)
    for one in inputs(options, "order", 3):
        read_request(definition, one)
        if payload:
            assert payload - 100 < size_of(one) <= payload


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 30])
def test_a_chain_has_so_many_steps_that_go_round_the_services_each_with_its_undo(steps: int) -> None:
    saga = chain(steps)
    participants = [spec.participant for spec in saga.steps.values()]
    assert participants == (["order", "inventory", "payment"] * 10)[:steps]
    assert all(spec.undo_command is not None for spec in saga.steps.values())
    assert saga.pivot is None


def test_the_steps_of_a_chain_have_references_of_their_own_which_their_undos_name() -> None:
    data = Link(saga_id=SAGA_ID, order_id="order-1", customer_id="customer-0001", sku="article-0001")
    seen = set()
    for spec in chain(9).steps.values():
        assert spec.do is not None
        assert spec.undo is not None
        done, undone = spec.do(data).model_dump(), spec.undo(data).model_dump()
        assert undone.items() <= done.items()
        seen.add((spec.participant, *sorted(undone.values())))
    assert len(seen) == 9
    assert [reference(SAGA_ID, number) for number in (1, 3, 4)] == [SAGA_ID, SAGA_ID, f"{SAGA_ID}/4"]


def test_only_the_last_payment_of_a_chain_is_one_that_may_be_refused() -> None:
    [refused] = inputs(Options(steps=6, refused=100.0), "order", 1)
    data = Link(saga_id=SAGA_ID, **refused)
    payments = [spec.do(data) for spec in chain(6).steps.values() if spec.participant == "payment" and spec.do]
    amounts = [payment.model_dump()["amount"] for payment in payments]
    assert (amounts[0], amounts[1] > 10**9) == (1, True)
