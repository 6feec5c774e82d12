"""How long the parts of a saga last, and how a person says it. No I/O."""

from datetime import timedelta
from typing import Any, Final

from orchestrator.definition import Action, Saga, StepSpec
from orchestrator.steps import Delay, Parallel

UNITS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"), (1, "ms"))


def in_words(lasting: timedelta) -> str:
    """`2 d`, `1 h 30 min`, `1 s 500 ms`: the two largest units that it has."""
    rest = round(lasting / timedelta(milliseconds=1))
    parts: list[str] = []
    for size, unit in UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "no time"


def fixed_delays(definition: Saga[Any]) -> dict[str, timedelta]:
    """The delays whose length does not depend on the data, by name."""
    written = (*definition.reversible, *definition.retriable)
    steps = [one for item in written for one in (item.steps if isinstance(item, Parallel) else (item,))]
    return {one.name: one.lasting for one in steps if isinstance(one, Delay) and isinstance(one.lasting, timedelta)}


def patience(spec: StepSpec, fixed: dict[str, timedelta]) -> timedelta | None:
    """How long a step takes at most until it is answered or given up; None: nobody knows, or for ever."""
    match spec.action:
        case Action.COMMAND:
            return spec.policy.longest
        case Action.WAIT:
            return spec.timeout
        case Action.DELAY:
            return fixed.get(spec.name)
