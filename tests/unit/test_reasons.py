"""Reasons: what those of one kind share, and how they are found by it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.reasons import first_line, in_common, pattern_of

REASONS = st.text(st.sampled_from("ab1.,:-_ '\"…#*(\\\n"), max_size=30)


@pytest.mark.parametrize(
    ("reason", "common"),
    [
        ("tea: 2 wanted, 1 left", "tea: # wanted, # left"),
        ("order 01ABC-x has no field 'total'", "order # has no field …"),
        ("after 1.5 s, at 12:30", "after # s, at #"),
        ("it is not JSON", "it is not JSON"),
    ],
)
def test_what_reasons_of_one_kind_share(reason: str, common: str) -> None:
    assert in_common(reason) == common


@given(REASONS)
def test_a_reason_is_found_by_itself_and_by_what_it_shares(reason: str) -> None:
    assert re.search(pattern_of(reason), reason)
    assert re.search(pattern_of(in_common(reason)), reason)


@pytest.mark.parametrize(
    ("part", "reason"), [("# left", "none left"), ("…", "no quotation"), (".", "no stop"), ("a", "b")]
)
def test_what_is_not_there_is_not_found(part: str, reason: str) -> None:
    assert not re.search(pattern_of(part), reason)


def test_the_first_line_is_without_the_statement() -> None:
    assert first_line(" it is not there\n[SQL: SELECT 1]") == "it is not there"
