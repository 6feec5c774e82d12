"""Sagas that do not come to their end: given up too early, or never. No I/O."""

from collections.abc import Iterator
from typing import Final

from orchestrator.definition import Action, Kind, Policy, StepSpec
from orchestrator.lint.subject import Hazard, Subject

FEW: Final = 6
"""Fewer askings than this are spent in one bad minute."""


def undo_gives_up(subject: Subject) -> Iterator[Hazard]:
    """An undo that one bad minute defeats."""
    for spec in subject.commands:
        attempts = spec.undo_policy.attempts
        if spec.undo is not None and attempts is not None and attempts < FEW:
            yield subject.hazard(
                "A007",
                spec.name,
                f"its undo is given up after {attempts} attempts: the saga is then stuck halfway back, and a person "
                "must finish it",
                "leave out its undo_policy (12 attempts), or give it more attempts",
            )


def what_must_succeed_gives_up(subject: Subject) -> Iterator[Hazard]:
    """The pivot and what follows it."""
    for spec in subject.commands:
        attempts = spec.policy.attempts
        if spec.kind is not Kind.REVERSIBLE and attempts is not None and attempts < FEW:
            where = (
                "at its pivot, where nobody knows whether it happened" if spec.kind is Kind.PIVOT else "past its pivot"
            )
            yield subject.hazard(
                "A008",
                spec.name,
                f"it must succeed, and is given up after {attempts} attempts: the saga is then stuck {where}",
                "leave out its policy (12 attempts), give it more attempts, or None: it is asked for ever",
            )


def refused_for_ever(subject: Subject) -> Iterator[Hazard]:
    """A refusal that is final, and is not taken for that."""
    for spec in subject.steps:
        if spec.action is not Action.COMMAND:
            continue
        if spec.kind is Kind.RETRIABLE and _is_endless(spec.policy):
            again = "starts a whole saga anew" if spec.child else "is asked again"
            yield _refused(subject, spec, f"it is asked for ever: a refusal that will not change {again}, for ever")
        if spec.undo is not None and spec.child is None and _is_endless(spec.undo_policy):
            yield _refused(subject, spec, "its undo is asked for ever: a refusal that will not change is, too")


def _is_endless(policy: Policy) -> bool:
    return policy.attempts is None and not policy.not_retried


def _refused(subject: Subject, spec: StepSpec, what: str) -> Hazard:
    code = '"compensated"' if spec.child else "the codes of such refusals"
    return subject.hazard(
        "A009",
        spec.name,
        f"{what}, and nobody is told",
        f"name {code} in the policy's not_retried: the saga is then stuck at once and says why; or limit its attempts",
    )


def never_turns_back(subject: Subject) -> Iterator[Hazard]:
    """Silence that nothing ends."""
    for spec in subject.before_the_pivot:
        endless = spec.action is Action.COMMAND and spec.child is None and spec.policy.attempts is None
        if endless and subject.definition.deadline is None:
            yield subject.hazard(
                "A010",
                spec.name,
                "it can be undone, and is asked for ever: while its participant is silent the saga neither goes on nor "
                "turns back, and what was done before stays held",
                "limit its attempts, or give the saga a deadline",
            )


def waits_for_ever(subject: Subject) -> Iterator[Hazard]:
    """A signal that may be forgotten."""
    for spec in subject.before_the_pivot:
        if spec.action is Action.WAIT and spec.timeout is None and subject.definition.deadline is None:
            yield subject.hazard(
                "A011",
                spec.name,
                "it waits for ever: when the signal is forgotten the saga never ends, and what was done before it "
                "stays held",
                "give it a timeout, or the saga a deadline",
            )


def child_without_deadline(subject: Subject) -> Iterator[Hazard]:
    """A child that nothing brings to its end."""
    for spec in subject.steps:
        if spec.child is None or spec.child.deadline is not None:
            continue
        if spec.kind is not Kind.REVERSIBLE or subject.definition.deadline is None:
            yield subject.hazard(
                "A012",
                spec.name,
                f"the child {spec.child.name} has no deadline: this saga waits for as long as it takes, and does not "
                "notice when it hangs",
                f"give {spec.child.name} a deadline" + (", or this saga" if spec.kind is Kind.REVERSIBLE else ""),
            )
