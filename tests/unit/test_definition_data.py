"""Data that a step reads must be there: it is input, or an earlier step supplies it."""

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.definition import (
    Saga,
    SagaData,
    SagaEnded,
    child,
    delay,
    parallel,
    reversible,
    step,
    step_each,
    supplied,
    wait_for,
)
from tests.support.parcel_story import (
    WRAP,
    Approval,
    Charge,
    Ok,
    Pack,
    Unpack,
    Wrapping,
    charge,
    refusal,
    send_off,
    wrapping_of,
)

# --- data that nothing supplies ----------------------------------------------------------------------------------


class Tracked(SagaData):
    weight: int = 1
    label: str | None = supplied()
    code: str | None = supplied()

    @property
    def heading(self) -> str:
        return f"{self.label}!"


def put_label(data: Tracked) -> Pack:
    return Pack()


def tear_off(data: Tracked) -> Unpack:
    return Unpack()


def keep_label(data: Tracked, reply: Ok) -> Tracked:
    return data.model_copy(update={"label": "L-1"})


def keep_something(data: Tracked, reply: Ok) -> Tracked:
    return helped(data)


def helped(data: Tracked) -> Tracked:
    return data.model_copy(update={"label": "L-1"})


def send_labelled(data: Tracked) -> Charge:
    return Charge(reference=data.label or "")


def send_headed(data: Tracked) -> Charge:
    return Charge(reference=data.heading)


def is_labelled(data: Tracked) -> bool:
    return data.label is not None


def label_parts(data: Tracked) -> list[str]:
    return list(data.label or "")


def send_part(data: Tracked, part: str) -> Charge:
    return Charge()


def label_time(data: Tracked) -> timedelta:
    return timedelta(days=len(data.label or ""))


def wrapping_of_label(data: Tracked) -> "Wrapping":
    return Wrapping(paper=data.label or "")


LABEL = reversible(put_label, undo=tear_off, then=keep_label)


def missing(part: str, name: str) -> str:
    return (
        f"saga tracked: the `{part}` of step {name} reads `label`, and no step before it supplies that; "
        "give an earlier step a `then` that sets `label`, or make it a field of the input"
    )


READERS: list[tuple[str, str, dict[str, Any]]] = [
    ("do", "send-labelled", {"pivot": step(send_labelled)}),
    ("do", "send-headed", {"pivot": step(send_headed)}),
    ("do", "wrap", {"pivot": child(WRAP, wrapping_of_label)}),
    ("when", "send-off", {"pivot": step(charge), "retriable": (step(send_off, when=is_labelled),)}),
    ("items", "send-part", {"pivot": step(charge), "retriable": (step_each(label_parts, send_part),)}),
    ("lasting", "think", {"pivot": step(charge), "retriable": (delay("think", label_time),)}),
    ("when", "approval", {"pivot": step(charge), "retriable": (wait_for(Approval, when=is_labelled),)}),
]


@pytest.mark.parametrize(("part", "name", "places"), READERS)
def test_what_a_step_reads_must_have_been_supplied(part: str, name: str, places: dict[str, Any]) -> None:
    def build(*before: Any) -> Saga[Tracked]:
        return Saga(**{"name": "tracked", "data": Tracked, "reversible": before, **places})

    assert refusal(build) == missing(part, name)
    assert refusal(lambda: build(reversible(put_label, undo=tear_off))) == missing(part, name)
    assert build(LABEL).steps


def test_what_a_helper_may_supply_is_not_said_to_be_missing() -> None:
    helpful = reversible(put_label, undo=tear_off, then=keep_something)
    assert Saga("tracked", Tracked, (helpful,), step(send_labelled)).steps


def test_what_a_step_of_the_same_stage_supplies_comes_too_late() -> None:
    beside = parallel(LABEL, reversible(send_labelled, undo=tear_off))
    assert refusal(lambda: Saga("tracked", Tracked, (beside,), None)) == missing("do", "send-labelled")


def test_a_signal_or_a_child_may_supply_it() -> None:
    def keep_approved(data: Tracked, approval: Approval) -> Tracked:
        return data.model_copy(update={"label": approval.by})

    def keep_wrapped(data: Tracked, ended: SagaEnded) -> Tracked:
        return data.model_copy(update={"label": ended.saga_id})

    for supplier in (wait_for(Approval, then=keep_approved), child(WRAP, wrapping_of, then=keep_wrapped)):
        assert Saga("tracked", Tracked, (supplier,), step(send_labelled)).steps


def test_an_undo_may_read_what_only_a_reply_supplies_for_it_may_do_without() -> None:
    assert Saga("tracked", Tracked, (reversible(put_label, undo=undo_labelled),), None).steps


def undo_labelled(data: Tracked) -> Unpack:
    return Unpack(label=data.label)


def test_labels_and_priority_are_counted_at_the_start_from_the_input_alone() -> None:
    def labels(data: Tracked) -> dict[str, str]:
        return {"label": data.label or "", "weight": str(data.weight)}

    def priority(data: Tracked) -> int:
        return len(data.heading)

    def weight(data: Tracked) -> int:
        return data.weight

    def build(**parts: Any) -> Saga[Tracked]:
        return Saga("tracked", Tracked, (LABEL,), None, **parts)

    why = "reads `label`, and no step has supplied that when the saga starts; use fields of the input"
    assert refusal(lambda: build(labels=labels)) == f"saga tracked: its `labels` {why}"
    assert refusal(lambda: build(priority=priority)) == f"saga tracked: its `priority` {why}"
    assert build(labels=lambda data: {"weight": str(data.weight)}, priority=weight).steps
