"""Which faults a run plans, and whether sagas recovered: from a seed and from samples alone."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from chaos.errors import BadOptions
from chaos.faults import STRIKES
from chaos.names import PROCESSES, wires
from chaos.options import Options
from chaos.orders import order, refusal
from chaos.plan import plan
from chaos.record import Fault, Sample
from chaos.recovery import recovered
from chaos.rogue import MANNERS
from chaos.run import reproduce
from chaos.scenarios import SCENARIOS
from orchestrator.sagas.place_order import PlaceOrder

MIX = SCENARIOS["mix"]


def test_the_same_seed_plans_the_same_faults_and_another_plans_others() -> None:
    assert list(plan(MIX, 7, 300)) == list(plan(MIX, 7, 300))
    assert list(plan(MIX, 7, 300)) != list(plan(MIX, 8, 300))


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda one: str(one.name))
def test_every_scenario_plans_each_of_its_faults_against_somebody_whom_there_is(scenario: object) -> None:
    assert scenario in SCENARIOS.values()
    one = next(known for known in SCENARIOS.values() if known is scenario)
    planned = list(plan(one, 1, 40 * one.every))
    assert {fault.kind for fault in planned} == {kind.name for kind in one.kinds}
    assert {fault.kind for fault in planned} <= STRIKES.keys()
    allowed = {kind.name: set() for kind in one.kinds}  # type: dict[str, set[str]]
    for kind in one.kinds:
        allowed[kind.name].update(kind.targets(one.brokers))
    assert all(fault.target in allowed[fault.kind] for fault in planned)
    assert all(later.at > earlier.at for earlier, later in pairwise(planned))
    assert all(fault.at + fault.lasts <= 40 * one.every + 0.01 for fault in planned)


def test_a_mix_has_every_kind_before_any_comes_again_and_then_mostly_kills() -> None:
    planned = list(plan(MIX, 3, 4000, every=2.0))
    first = [fault.kind for fault in planned[: len(MIX.kinds)]]
    assert sorted(first) == sorted(kind.name for kind in MIX.kinds)
    counts = Counter(fault.kind for fault in planned)
    assert counts.most_common(1)[0][0] == "kill"
    assert counts.total() == pytest.approx(2000, rel=0.1)
    assert {fault.target for fault in planned if fault.kind == "kill"} == set(PROCESSES)


def test_a_cluster_has_wires_between_its_servers_too() -> None:
    assert len(wires(1)) == 8 * 2
    assert set(wires(3)) - {
        f"{one}>{two}" for one in PROCESSES for two in ("nats-1", "nats-2", "nats-3", "postgres")
    } == {f"nats-{one}>nats-{two}" for one in (1, 2, 3) for two in (1, 2, 3) if one != two}


def test_of_ten_orders_one_is_refused_by_the_shelf_and_one_by_the_bank_and_all_are_orders() -> None:
    assert Counter(refusal(number) for number in range(100)) == {None: 80, "out-of-stock": 10, "payment-refused": 10}
    assert all(PlaceOrder(saga_id="s", **order(number)).total > 0 for number in range(20))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"duration": 1}, "--duration: from 5"),
        ({"rate": 0}, "--rate"),
        ({"rate": float("nan")}, "--rate"),
        ({"orders": 0}, "--orders: at least one"),
        ({"every": 0.01}, "--every"),
        ({"patience": 0}, "--patience"),
    ],
)
def test_nonsense_is_refused(wrong: dict[str, float], sentence: str) -> None:
    with pytest.raises(BadOptions, match=sentence):
        Options("mix", 1, **wrong)  # type: ignore[arg-type]


def test_the_command_that_reproduces_a_run_says_all_that_shapes_it() -> None:
    assert reproduce(Options("mix", 5, duration=30, rate=12.5, orders=9, every=2)) == (
        "saga chaos run mix --seed 5 --duration 30 --rate 12.5 --orders 9 --every 2"
    )


def test_the_page_on_reliability_says_what_the_faults_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    told = page.partition("What counts as fired")[2]
    assert {fault for one in SCENARIOS.values() for fault in one.faults if f"`{fault}`" not in told} == set()
    assert SCENARIOS["rogue-participants"].faults == sorted(f"answer-{manner}" for manner in MANNERS if manner)


# --- recovery ------------------------------------------------------------------------------------------------------


def samples(*ended: int) -> list[Sample]:
    """One a second, with so many ended by then."""
    return [
        Sample(at=float(at), started=1000, completed=count, compensated=0, stuck=0) for at, count in enumerate(ended)
    ]


def fault_at(at: float) -> Fault:
    return Fault(kind="kill", target="order-1", at=at, until=at + 1)


def steady(seconds: int, start: int = 0, rate: int = 10) -> list[int]:
    return [start + rate * second for second in range(seconds)]


def test_a_fault_that_nobody_noticed_has_recovered_when_it_came() -> None:
    [fault] = recovered([fault_at(20.0)], samples(*steady(40)), 39.0)
    assert fault.recovered_at == 20.0


def test_recovery_is_when_sagas_end_again_half_as_often_as_before() -> None:
    halted = [*steady(21), *[200] * 9, *steady(20, 200)]  # none ends from second 20 to 30
    [fault] = recovered([fault_at(20.0)], samples(*halted), 49.0)
    assert fault.recovered_at == pytest.approx(29.0, abs=2.0)
    assert fault.recovered_at is not None
    assert fault.recovered_at > 26


def test_what_nobody_saw_is_no_recovery() -> None:
    """The database is away: its samples are missing, and drawn between them sagas seem to end all the while."""
    seen = [one for one in samples(*steady(60)) if not 20.0 < one.at < 25.0]
    [fault] = recovered([fault_at(20.5)], seen, 59.0)
    assert fault.recovered_at == 25.0


def test_what_never_came_back_has_no_recovery() -> None:
    [fault] = recovered([fault_at(20.0)], samples(*steady(21), *[200] * 20), 40.0)
    assert fault.recovered_at is None


def test_a_fault_in_the_wake_of_another_is_not_held_to_a_rate_of_nothing() -> None:
    halted = [*steady(21), *[200] * 19, *steady(20, 200)]
    [_, second] = recovered([fault_at(20.0), fault_at(36.0)], samples(*halted), 59.0)
    assert second.recovered_at is not None
    assert second.recovered_at > 37


def test_without_samples_nothing_is_known() -> None:
    [fault] = recovered([fault_at(1.0)], [], 2.0)
    assert fault.recovered_at is None
