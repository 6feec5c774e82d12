"""What other sagas see, and what an undo may build on: a saga has no isolation but what its order gives it. No I/O."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any, Final

from orchestrator.calls import MOST_ITEMS
from orchestrator.definition import Action, Kind, StepSpec
from orchestrator.lint.subject import Hazard, Subject

SHORT_LIST: Final = 20
"""So many items may well be asked all at once."""


def undo_reads_a_reply(subject: Subject) -> Iterator[Hazard]:
    """Fields that are set by the step's own answer, or a later one, and by none before."""
    stages = subject.stages_before_the_pivot
    for number, stage in enumerate(stages):
        settled = _supplied(subject, stages[:number])
        unsettled = _supplied(subject, stages[number:]) - settled - _required(subject)
        for spec in stage:
            for name in sorted(subject.fields_read(spec.undo) & unsettled):
                yield subject.hazard(
                    "A006",
                    spec.name,
                    f"its undo reads `{name}`, which only a reply supplies: a step that stays without an answer is "
                    "undone all the same, and there has been no reply",
                    "name what is undone by an id that the saga has from the beginning, such as `saga_id`",
                )


def _supplied(subject: Subject, stages: list[tuple[StepSpec, ...]]) -> frozenset[str]:
    return frozenset().union(*(subject.fields_supplied(spec) for stage in stages for spec in stage))


def _required(subject: Subject) -> set[str]:
    return {name for name, field in subject.definition.data.model_fields.items() if field.is_required()}


def each_without_limit(subject: Subject) -> Iterator[Hazard]:
    """Lists that are short by their own declaration are let pass."""
    for spec in subject.steps:
        if spec.items is not None and spec.limit is None and (most := _most_items(subject, spec)) > SHORT_LIST:
            yield subject.hazard(
                "A013",
                spec.name,
                f"it has no limit: up to {most:,} commands go to {spec.participant} at the same moment, and others "
                "wait behind them",
                f"give it a limit, as in limit=10, or its list a max_length of at most {SHORT_LIST}",
            )


def _most_items(subject: Subject, spec: StepSpec) -> int:
    fields = [subject.definition.data.model_fields[name] for name in subject.fields_read(spec.items)]
    lengths = [getattr(bound, "max_length", None) for field in fields for bound in field.metadata]
    return (
        min((length for length in lengths if length is not None), default=MOST_ITEMS)
        if len(fields) == 1
        else MOST_ITEMS
    )


def same_aggregate(subject: Subject) -> Iterator[Hazard]:
    """Steps of one parallel group that name the same thing of the same participant."""
    for stage in subject.definition.stages:
        for one, other in combinations((spec for spec in stage if spec.do and not spec.child), 2):
            thing = _aggregate(one)
            if thing is not None and one.participant == other.participant and thing == _aggregate(other):
                yield subject.hazard(
                    "A014",
                    other.name,
                    f"it runs in parallel with {one.name}, and both change the same thing of {one.participant} "
                    f"({thing[0]}={thing[1]}): which comes first is chance, and one waits for the other's rows",
                    "let one come after the other, or make one command of the two",
                )


def _aggregate(spec: StepSpec) -> tuple[str, str] | None:
    """The first id of a step's command, and the expression that makes it; None when the source does not tell."""
    ids = [name for name in (spec.command.model_fields if spec.command else ()) if name == "id" or name.endswith("_id")]
    call = _built(spec.do) if ids and spec.do and spec.items is None else None
    values = {} if call is None else {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    return (ids[0], values[ids[0]]) if ids and ids[0] in values else None


def _built(build: Callable[..., Any]) -> ast.Call | None:
    """The call in `return SomeCommand(…)`, with the first argument called `data`."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(build)))
    except (OSError, TypeError, SyntaxError):
        return None
    function = tree.body[0]
    if not isinstance(function, ast.FunctionDef) or not function.args.args:
        return None
    first = function.args.args[0].arg
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and node.id == first:
            node.id = "data"
    returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
    only = returned[0] if len(returned) == 1 else None
    return only if isinstance(only, ast.Call) else None


def held_while_waiting(subject: Subject) -> Iterator[Hazard]:
    """A wait between what it does not need and the pivot."""
    stages = subject.stages_before_the_pivot
    shown = frozenset().union(*(subject.fields_read(query) for query in subject.definition.queries))
    for number, stage in enumerate(stages):
        for spec in (one for one in stage if _is_slow(one)):
            needs = shown.union(*(subject.fields_read(function) for _, function in spec.functions))
            held = [one for before in stages[:number] for one in before if one.undo is not None]
            if held and not any(needs & subject.fields_supplied(one) for one in held):
                yield _held(subject, spec, held)


def _held(subject: Subject, spec: StepSpec, held: list[StepSpec]) -> Hazard:
    names = ", ".join(one.name for one in held)
    return subject.hazard(
        "A015",
        spec.name,
        f"while it lasts, what {names} did is held and seen by others, and may have to be undone at the end of it: "
        "sagas have no isolation, and this is the longest they go without",
        f"put {spec.name} before {held[0].name}, for it needs nothing that they supply; or, when it is about that, let "
        "its `when` or a query of the saga read it",
    )


def _is_slow(spec: StepSpec) -> bool:
    inner = () if spec.child is None else spec.child.steps.values()
    return spec.action is not Action.COMMAND or any(_is_slow(one) for one in inner)


def lock_lifted_early(subject: Subject) -> Iterator[Hazard]:
    """Whoever is asked first has marked something as pending, and should hear last that it is not."""
    commands = list(subject.commands)
    first = next((spec for spec in commands if spec.kind is Kind.REVERSIBLE), None)
    last = [
        spec for spec in commands if spec.kind is Kind.RETRIABLE and first and spec.participant == first.participant
    ]
    if first is None or not last:
        return
    pending = {spec.participant for spec in commands if spec.kind is Kind.REVERSIBLE}
    after = [spec.name for spec in commands if spec.stage > last[-1].stage and spec.participant in pending]
    if after:
        yield subject.hazard(
            "A016",
            last[-1].name,
            f"{first.participant} is asked first ({first.name}) and hears of the end before {', '.join(after)}: what "
            "was marked as pending looks settled while the saga still works on it",
            f"put {last[-1].name} last, so that the mark stays until everything is done",
        )
