"""The state machine, drawn from the very tables that it runs by: nobody can forget to draw a change. No I/O."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final

from orchestrator.graph.palette import COLOURS
from orchestrator.machine import PHASES, TRANSITIONS
from orchestrator.model import ENDED, Phase, StepStatus

BY_HAND: Final = "-by-hand"
"""How log entries end in which a person answers for a step."""

Arrow = tuple[StrEnum, str, StrEnum]
"""(before, log entry, after)."""


def phases(table: Mapping[tuple[Phase, str], Phase] = PHASES) -> str:
    """The phases of a saga, as a Mermaid state diagram."""
    arrows = [(before, entry, after) for (before, entry), after in table.items()]
    return _diagram(arrows, (Phase.WAITING, Phase.RUNNING), ENDED)


def steps(table: Mapping[tuple[StepStatus, str], StepStatus] = TRANSITIONS) -> str:
    """The statuses of a step and what changes them, but for a person's word, as a Mermaid state diagram."""
    arrows = [(before, entry, after) for (before, entry), after in table.items() if not entry.endswith(BY_HAND)]
    return _diagram(arrows, (StepStatus.PENDING,), ())


def by_hand(table: Mapping[tuple[StepStatus, str], StepStatus] = TRANSITIONS) -> str:
    """What a person's word makes of a step, as a Markdown table."""
    found: dict[tuple[str, StepStatus], list[StepStatus]] = {}
    for (before, entry), after in table.items():
        if entry.endswith(BY_HAND):
            found.setdefault((entry, after), []).append(before)
    rows = (f"| {', '.join(found[entry, after])} | `{entry}` | {after} |" for entry, after in found)
    return "\n".join(["| a step that is | with the log entry | becomes |", "|---|---|---|", *rows]) + "\n"


def _diagram(arrows: Sequence[Arrow], first: Iterable[StrEnum], last: Collection[StrEnum]) -> str:
    states = dict.fromkeys(state for before, _, after in arrows for state in (before, after))
    lines = [
        *(f'state "{state}" as {_word(state)}' for state in states),
        *(f"[*] --> {_word(state)}" for state in first),
        *_labelled(arrows),
        *(f"{_word(state)} --> [*]" for state in states if state in last),
        *(line for state in states for line in _coloured(state)),
    ]
    return "".join(["stateDiagram-v2\n", *(f"    {line}\n" for line in lines)])


def _labelled(arrows: Sequence[Arrow]) -> Iterator[str]:
    """One arrow for all entries that lead from one state to the same other."""
    labels: dict[tuple[StrEnum, StrEnum], list[str]] = {}
    for before, entry, after in arrows:
        labels.setdefault((before, after), []).append(entry)
    return (f"{_word(before)} --> {_word(after)}: {' or '.join(found)}" for (before, after), found in labels.items())


def _coloured(state: StrEnum) -> Iterator[str]:
    colour = COLOURS[state.value]
    yield f"classDef is_{_word(state)} fill:{colour.fill},stroke:{colour.line},color:{colour.ink}"
    yield f"class {_word(state)} is_{_word(state)}"


def _word(state: StrEnum) -> str:
    """A name that Mermaid takes for one word."""
    return state.value.replace("-", "_")
