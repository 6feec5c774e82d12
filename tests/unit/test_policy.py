"""How long a saga waits for an answer, and how often it asks."""

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.definition import Policy
from tests.support.parcel_story import refusal

# --- how long it waits -------------------------------------------------------------------------------------------


def seconds(policy: Policy, tries: int, seed: str = "seed") -> float:
    return policy.wait(tries, seed).total_seconds()


def test_waits_grow_up_to_the_cap() -> None:
    policy = Policy(timeout=timedelta(seconds=1), factor=3, cap=timedelta(seconds=20), jitter=0)
    assert [seconds(policy, tries) for tries in range(1, 6)] == [1, 3, 9, 20, 20]


@pytest.mark.parametrize("factor", [1.001, 2.0, 1e9])
def test_the_cap_is_reached_and_kept_however_often_it_is_asked(factor: float) -> None:
    policy = Policy(timeout=timedelta(seconds=1), attempts=None, factor=factor, jitter=0)
    assert seconds(policy, 100_000) == 60


def test_jitter_spreads_the_waits_within_its_range() -> None:
    policy = Policy(timeout=timedelta(seconds=10), jitter=0.2)
    waits = [seconds(policy, 1, f"saga-{number}") for number in range(300)]
    assert min(waits) >= 8
    assert max(waits) <= 12
    assert min(waits) < 8.5
    assert max(waits) > 11.5


def test_jitter_is_the_same_for_the_same_seed_and_another_for_the_next_try() -> None:
    policy = Policy(factor=1, jitter=0.2)
    assert policy.wait(1, "seed") == policy.wait(1, "seed")
    assert policy.wait(1, "seed") != policy.wait(2, "seed")


def test_a_policy_without_an_end_is_never_spent() -> None:
    assert not Policy(attempts=None).is_spent(10**9)
    assert [Policy(attempts=3).is_spent(tries) for tries in (1, 2, 3, 4)] == [False, False, True, True]


def test_what_was_refused_is_left_alone_for_a_delay_of_its_own() -> None:
    policy = Policy(timeout=timedelta(seconds=30), first_delay=timedelta(seconds=1), factor=3, jitter=0)
    assert [policy.pause(tries, "seed").total_seconds() for tries in range(1, 6)] == [1, 3, 9, 27, 60]
    assert policy.wait(1, "seed") == timedelta(seconds=30)


def test_without_a_delay_of_its_own_it_is_the_timeout() -> None:
    assert Policy(jitter=0).pause(2, "seed") == Policy(jitter=0).wait(2, "seed") == timedelta(seconds=10)


def test_the_longest_that_a_policy_takes_is_all_its_waits_with_the_most_jitter() -> None:
    policy = Policy(timeout=timedelta(seconds=1), attempts=4, factor=3, cap=timedelta(seconds=20), jitter=0.5)
    assert policy.longest == timedelta(seconds=1.5 * (1 + 3 + 9 + 20))
    assert Policy(attempts=None).longest is None


@pytest.mark.parametrize("tries", range(1, 7))
def test_no_wait_is_longer_than_the_longest(tries: int) -> None:
    assert Policy().wait(tries, "seed") <= (Policy().longest or timedelta(0))


# --- policies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": timedelta(0)},
        {"timeout": timedelta(seconds=-1)},
        {"timeout": timedelta(seconds=10), "cap": timedelta(seconds=9)},
    ],
)
def test_a_policy_waits_for_some_time_and_at_most_for_its_cap(wrong: dict[str, Any]) -> None:
    assert refusal(lambda: Policy(**wrong)).startswith("a policy needs 0 < timeout <= cap, not timeout=")


@pytest.mark.parametrize("delay", [timedelta(0), timedelta(seconds=-1), timedelta(seconds=61)])
def test_a_delay_of_its_own_is_some_time_and_at_most_the_cap(delay: timedelta) -> None:
    said = refusal(lambda: Policy(first_delay=delay))
    assert said == f"a policy needs 0 < first_delay <= cap, not {delay}, cap=0:01:00"


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"attempts": -1}, {"factor": 0.9}, {"jitter": -0.1}, {"jitter": 1.0}]
)
def test_a_policy_asks_at_least_once_and_does_not_shrink_its_waits(wrong: dict[str, Any]) -> None:
    expected = "a policy needs attempts >= 1, factor >= 1 and 0 <= jitter < 1"
    assert refusal(lambda: Policy(**wrong)) == expected
