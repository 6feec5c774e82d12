"""What a saga definition may be, and with which sentence every other one is refused."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.definition import (
    MUST_SUCCEED,
    Kind,
    Policy,
    Rate,
    delay,
    parallel,
    reversible,
    reversible_each,
    step,
    wait_for,
)
from orchestrator.steps import Step
from outbox.contracts import Command
from tests.support.parcel_story import (
    CHARGE,
    CHILD,
    DAY,
    PACK,
    PACK_AGAIN,
    SEND_OFF,
    Approval,
    Charge,
    Ok,
    Pack,
    Parcel,
    Unpack,
    boxes,
    charge,
    pack,
    pack_one,
    refusal,
    saga,
    unpack,
    unpack_one,
)

if TYPE_CHECKING:
    from datetime import date


# --- what a good one is ------------------------------------------------------------------------------------------


def test_a_definition_is_read_as_stages_of_named_steps() -> None:
    stages = saga(reversible=(parallel(PACK, PACK_AGAIN),)).stages
    assert [[(spec.name, spec.kind, spec.stage) for spec in stage] for stage in stages] == [
        [("pack", Kind.REVERSIBLE, 0), ("pack-again", Kind.REVERSIBLE, 0)],
        [("charge", Kind.PIVOT, 1)],
        [("send-off", Kind.RETRIABLE, 2)],
    ]


def test_a_step_knows_its_commands_from_the_annotations() -> None:
    steps = saga().steps
    assert (steps["pack"].command, steps["pack"].undo_command) == (Pack, Unpack)
    assert (steps["charge"].command, steps["charge"].undo_command) == (Charge, None)


def test_what_must_go_through_is_asked_more_often_than_what_can_be_undone() -> None:
    steps = saga().steps
    assert [spec.policy for spec in steps.values()] == [Policy(), MUST_SUCCEED, MUST_SUCCEED]
    assert steps["pack"].undo_policy == MUST_SUCCEED
    assert (Policy().attempts, MUST_SUCCEED.attempts) == (6, 12)


def test_a_saga_may_be_nothing_but_its_pivot() -> None:
    assert list(saga(reversible=(), retriable=()).steps) == ["charge"]


# --- what is refused, and why ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "a" * 61, "Send-Parcel", "send_parcel", "send parcel", "-send", "send-", "a--b", "a.b", "é", "a\n"]
)
def test_a_name_is_lower_case_words_joined_by_hyphens(name: str) -> None:
    expected = f"saga name {name!r}: use lower-case words joined by hyphens, at most 60 characters"
    assert refusal(lambda: saga(name=name)) == expected


@pytest.mark.parametrize("name", ["a", "a" * 60, "send-parcel", "send-parcel-2", "3d-print"])
def test_a_good_name_is_accepted(name: str) -> None:
    assert saga(name=name).name == name


def test_a_step_before_the_pivot_needs_an_undo() -> None:
    expected = "saga send-parcel: step send-off cannot stand in `reversible`; "
    expected += "give it an undo with reversible(…, undo=…)"
    assert refusal(lambda: saga(reversible=(SEND_OFF,))) == expected
    assert refusal(lambda: saga(reversible=(parallel(PACK, SEND_OFF),))) == expected


def test_the_pivot_cannot_have_an_undo() -> None:
    expected = "saga send-parcel: step pack cannot stand in `pivot`; use step(…)"
    assert refusal(lambda: saga(pivot=PACK, reversible=())) == expected


def test_a_step_after_the_pivot_cannot_have_an_undo() -> None:
    expected = "saga send-parcel: step pack-again cannot stand in `retriable`; use step(…)"
    assert refusal(lambda: saga(retriable=(PACK_AGAIN,))) == expected
    assert refusal(lambda: saga(retriable=(parallel(SEND_OFF, PACK_AGAIN),))) == expected


def test_there_is_one_pivot() -> None:
    said = refusal(lambda: saga(pivot=parallel(CHARGE, SEND_OFF), retriable=()))
    assert said.startswith("saga send-parcel: the pivot is one step")


@pytest.mark.parametrize("part", ["reversible", "retriable"])
def test_a_parallel_group_has_steps(part: str) -> None:
    expected = "saga send-parcel: a parallel group is empty; give it steps or remove it"
    assert refusal(lambda: saga(**{part: (parallel(),)})) == expected


@pytest.mark.parametrize("nested", [parallel(parallel(PACK)), pack, None, "pack"])
def test_what_is_no_step_at_all_is_refused(nested: Any) -> None:
    assert "cannot stand in `reversible`" in refusal(lambda: saga(reversible=(nested,)))


def test_two_steps_cannot_have_the_same_name() -> None:
    expected = "saga send-parcel: two steps have the same name; "
    expected += "a step is named after its function, so rename one"
    assert refusal(lambda: saga(reversible=(PACK, PACK))) == expected
    assert refusal(lambda: saga(retriable=(CHARGE,))) == expected


class NoParticipant(Command[Ok]):
    pass


def unannotated(parcel):  # type: ignore[no-untyped-def]
    return Pack()


def annotated_with_any(parcel: Parcel) -> Any:
    return Pack()


def annotated_with_the_base(parcel: Parcel) -> Command[Any]:
    return Pack()


def annotated_with_a_reply(parcel: Parcel) -> Ok:
    return Ok()


def annotated_with_two(parcel: Parcel) -> Pack | Unpack:
    return Pack()


def annotated_without_participant(parcel: Parcel) -> NoParticipant:
    return NoParticipant()


@pytest.mark.parametrize(
    "function",
    [
        unannotated,
        annotated_with_any,
        annotated_with_the_base,
        annotated_with_a_reply,
        annotated_with_two,
        annotated_without_participant,
    ],
)
def test_a_function_says_which_command_it_returns(function: Any) -> None:
    name = function.__name__
    expected = f"saga send-parcel: {name} must be annotated with the command type that it returns, "
    expected += f"as in `def {name}(data: Parcel) -> SomeCommand`"
    assert refusal(lambda: saga(pivot=step(function))) == expected
    assert refusal(lambda: saga(reversible=(reversible(pack, undo=function),))) == expected


def test_a_lambda_cannot_say_what_it_returns() -> None:
    assert "<lambda> must be annotated" in refusal(lambda: saga(pivot=step(lambda _: Charge())))


def annotated_in_the_dark(parcel: Parcel, when: "date | None" = None) -> Charge:
    return Charge()


@pytest.mark.parametrize("unreadable", [annotated_in_the_dark, partial(charge)])
def test_annotations_that_cannot_be_read_are_refused(unreadable: Any) -> None:
    said = refusal(lambda: saga(pivot=Step(unreadable, None, Policy())))
    assert said.startswith("saga send-parcel: the annotations of ")
    assert " cannot be read: " in said


def test_an_undo_that_is_left_out_is_refused() -> None:
    undoless = reversible(pack, undo=None)  # type: ignore[arg-type]
    said = refusal(lambda: saga(reversible=(undoless,)))
    assert said.startswith("saga send-parcel: the annotations of None cannot be read")


# --- the fingerprint ---------------------------------------------------------------------------------------------


def renamed_pack(parcel: Parcel) -> Pack:
    return Pack()


def unpack_differently(parcel: Parcel) -> Pack:
    return Pack()


STRUCTURES: list[dict[str, Any]] = [
    {},
    {"name": "send-letter"},
    {"version": 2},
    {"reversible": (PACK, PACK_AGAIN)},
    {"reversible": (PACK_AGAIN, PACK)},
    {"reversible": (parallel(PACK, PACK_AGAIN),)},
    {"reversible": (reversible(renamed_pack, undo=unpack),)},
    {"reversible": (reversible(pack, undo=unpack_differently),)},
    {"reversible": ()},
    {"retriable": ()},
    {"pivot": SEND_OFF, "retriable": (CHARGE,)},
    {"pivot": step(renamed_pack)},
    {"pivot": None, "retriable": ()},
    {"reversible": (reversible(pack, undo=unpack, when=lambda _: True),)},
    {"reversible": (reversible_each(boxes, pack_one, undo=unpack_one),)},
    {"reversible": (wait_for(Approval),)},
    {"reversible": (delay("approval", DAY),)},
    {"reversible": (CHILD,)},
    {"retriable": (CHILD,)},
]


def test_the_fingerprint_changes_with_the_structure() -> None:
    fingerprints = {saga(**changes).fingerprint for changes in STRUCTURES}
    assert len(fingerprints) == len(STRUCTURES)


def reworded() -> tuple[Callable[[Parcel], Pack], Callable[[Parcel], Unpack]]:
    def pack(data: Parcel) -> Pack:
        """The same step, with another body and words."""
        return [Pack()][0]

    def another_name_for_the_same_undo(data: Parcel) -> Unpack:
        return Unpack()

    return pack, another_name_for_the_same_undo


def keep(parcel: Parcel, reply: Ok) -> Parcel:
    return parcel


def test_the_fingerprint_does_not_change_with_the_wording() -> None:
    do, undo = reworded()
    patient = Policy(timeout=timedelta(seconds=30))
    stuck = reversible(do, undo=undo, then=keep, policy=patient, if_unknown="stick")
    same = saga(reversible=[stuck], deadline=DAY, max_in_flight=1, rate=Rate(1), priority=7, labels=lambda _: {})
    assert same.fingerprint == saga().fingerprint


def test_the_fingerprint_is_the_same_tomorrow() -> None:
    assert saga().fingerprint == "a765d81d75e8"
