"""Times that do not fit together: policies, delays, the deadline, and what the broker does meanwhile. No I/O."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from orchestrator.definition import Policy
from orchestrator.durations import in_words, patience
from orchestrator.lint.subject import Hazard, Subject

MANY: Final = 10
"""More copies of one command than this, before the broker itself brings the first again, are a storm."""


def retries_outlast_the_deadline(subject: Subject) -> Iterator[Hazard]:
    """What the steps before the pivot may take, one stage after the other."""
    deadline = subject.definition.deadline
    stages = subject.stages_before_the_pivot
    slowest = [max(patience(spec, subject.delays) or timedelta(0) for spec in stage) for stage in stages]
    whole = sum(slowest, timedelta(0))
    if deadline is None or whole <= deadline or _delayed(subject) >= deadline:
        return
    worst = max(stages[slowest.index(max(slowest))], key=lambda spec: patience(spec, subject.delays) or timedelta(0))
    yield subject.hazard(
        "A001",
        "",
        f"the steps before the pivot may take {in_words(whole)} until they are answered or given up, most of it "
        f"{worst.name}, and the deadline is {in_words(deadline)}: it turns the saga back while a step that would "
        "have been answered is still asked for",
        f"lengthen the deadline to {in_words(whole)} or more, or give {worst.name} a shorter timeout or fewer attempts",
    )


def delays_outlast_the_deadline(subject: Subject) -> Iterator[Hazard]:
    """Delays that are always longer than the saga may take."""
    deadline, delayed = subject.definition.deadline, _delayed(subject)
    if deadline is not None and delayed >= deadline:
        yield subject.hazard(
            "A002",
            "",
            f"the delays before the pivot last {in_words(delayed)} and the deadline is {in_words(deadline)}: no saga "
            "that is delayed can ever complete",
            "lengthen the deadline, or shorten the delays",
        )


def _delayed(subject: Subject) -> timedelta:
    lasting: dict[int, timedelta] = {}
    for spec in subject.before_the_pivot:
        if spec.name in subject.delays:
            lasting[spec.stage] = max(lasting.get(spec.stage, timedelta(0)), subject.delays[spec.name])
    return sum(lasting.values(), timedelta(0))


def given_up_before_redelivery(subject: Subject) -> Iterator[Hazard]:
    """Policies that do not outlive one restart of a participant."""
    again = subject.broker.ack_wait
    for spec, what, policy in subject.policies:
        if policy.longest is not None and policy.longest < again:
            yield subject.hazard(
                "A003",
                spec.name,
                f"{what} is given up after {in_words(policy.longest)}, and what a participant held when it died comes "
                f"to the next one after {in_words(again)}: a mere restart is taken for silence",
                f"give it more attempts or a longer timeout, so that it is waited for longer than {in_words(again)}",
            )


def asked_too_often(subject: Subject) -> Iterator[Hazard]:
    """Policies that ask faster than anybody can answer."""
    again = subject.broker.ack_wait
    for spec, what, policy in subject.policies:
        copies = _askings_within(policy, again)
        if copies > MANY:
            yield subject.hazard(
                "A004",
                spec.name,
                f"{what} is asked {copies} times in the {in_words(again)} after which the broker itself brings the "
                "first asking again: a participant that is only slow is buried under copies",
                "lengthen the timeout, or let it grow with a factor of 2",
            )


def _askings_within(policy: Policy, stretch: timedelta) -> int:
    wait, left, askings = policy.timeout.total_seconds(), stretch.total_seconds(), 1
    while wait < left and not policy.is_spent(askings) and askings < 1000:
        left, wait, askings = left - wait, min(policy.cap.total_seconds(), wait * policy.factor), askings + 1
    return askings


def outlasts_the_memory(subject: Subject) -> Iterator[Hazard]:
    """A policy that goes on for ever counts by its longest wait between two askings."""
    kept = subject.broker.kept_for
    for spec, what, policy in subject.policies:
        longest = policy.longest or (policy.cap if policy.factor > 1 else policy.timeout)
        if longest > kept:
            yield subject.hazard(
                "A005",
                spec.name,
                f"{what} may still be asked again after {in_words(longest)}, and the id of a command is remembered for "
                f"little more than the {in_words(kept)} that the broker keeps messages: it would be applied again",
                f"give it fewer attempts or shorter waits, so that it is given up within {in_words(kept)}",
            )
