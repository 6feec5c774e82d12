"""Hazards in a definition that its construction lets pass: it can run, and one day it will hurt. No I/O.

Each check knows one thing about sagas in production. What cannot be told from the definition's own words and sources
is not claimed: so a clean lint is no promise, and a hazard is always worth a look. A hazard's code stays its own for
ever, for people search for it.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from orchestrator.definition import Saga
from orchestrator.lint.endings import (
    child_without_deadline,
    never_turns_back,
    refused_for_ever,
    undo_gives_up,
    waits_for_ever,
    what_must_succeed_gives_up,
)
from orchestrator.lint.isolation import (
    each_without_limit,
    held_while_waiting,
    lock_lifted_early,
    same_aggregate,
    undo_reads_a_reply,
)
from orchestrator.lint.subject import Broker, Hazard, Subject
from orchestrator.lint.times import (
    asked_too_often,
    delays_outlast_the_deadline,
    given_up_before_redelivery,
    outlasts_the_memory,
    retries_outlast_the_deadline,
)

__all__ = ["CHECKS", "Broker", "Hazard", "lint"]

CHECKS: Final[dict[str, Callable[[Subject], Iterator[Hazard]]]] = {
    "A001": retries_outlast_the_deadline,
    "A002": delays_outlast_the_deadline,
    "A003": given_up_before_redelivery,
    "A004": asked_too_often,
    "A005": outlasts_the_memory,
    "A006": undo_reads_a_reply,
    "A007": undo_gives_up,
    "A008": what_must_succeed_gives_up,
    "A009": refused_for_ever,
    "A010": never_turns_back,
    "A011": waits_for_ever,
    "A012": child_without_deadline,
    "A013": each_without_limit,
    "A014": same_aggregate,
    "A015": held_while_waiting,
    "A016": lock_lifted_early,
}
"""Every check by the code of the hazard that it finds."""


def lint(definition: Saga[Any], broker: Broker) -> list[Hazard]:
    """All hazards of a definition, by code and then in the order of its steps."""
    subject = Subject(definition, broker)
    return [hazard for check in CHECKS.values() for hazard in check(subject)]
