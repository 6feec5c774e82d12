"""What can happen to a step and to a saga, and what each status means for what comes next. No I/O."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from orchestrator.model import Phase, StepStatus

TRANSITIONS: Final[Mapping[tuple[StepStatus, str], StepStatus]] = MappingProxyType(
    {
        (StepStatus.PENDING, "skipped"): StepStatus.SKIPPED,
        (StepStatus.PENDING, "asked"): StepStatus.ASKED,
        (StepStatus.ASKED, "asked"): StepStatus.ASKED,
        (StepStatus.ASKED, "done"): StepStatus.DONE,
        (StepStatus.ASKED, "refused"): StepStatus.REFUSED,
        (StepStatus.ASKED, "given-up"): StepStatus.UNKNOWN,
        (StepStatus.REFUSED, "asked"): StepStatus.ASKED,  # only where it must succeed
        (StepStatus.ASKED, "undo-asked"): StepStatus.UNDOING,  # a branch that is out when the saga turns back
        (StepStatus.DONE, "undo-asked"): StepStatus.UNDOING,
        (StepStatus.UNKNOWN, "undo-asked"): StepStatus.UNDOING,
        (StepStatus.UNDOING, "undo-asked"): StepStatus.UNDOING,
        (StepStatus.UNDOING, "undone"): StepStatus.UNDONE,
        (StepStatus.UNDOING, "undo-refused"): StepStatus.UNDO_REFUSED,
        (StepStatus.UNDO_REFUSED, "undo-asked"): StepStatus.UNDOING,
        # a wait or a delay: there is nothing to undo but time
        (StepStatus.ASKED, "dropped"): StepStatus.UNDONE,
        (StepStatus.DONE, "dropped"): StepStatus.UNDONE,
        # a person answers for it
        (StepStatus.PENDING, "done-by-hand"): StepStatus.DONE,
        (StepStatus.ASKED, "done-by-hand"): StepStatus.DONE,
        (StepStatus.REFUSED, "done-by-hand"): StepStatus.DONE,
        (StepStatus.ASKED, "undone-by-hand"): StepStatus.UNDONE,
        (StepStatus.DONE, "undone-by-hand"): StepStatus.UNDONE,
        (StepStatus.UNKNOWN, "undone-by-hand"): StepStatus.UNDONE,
        (StepStatus.UNDOING, "undone-by-hand"): StepStatus.UNDONE,
        (StepStatus.UNDO_REFUSED, "undone-by-hand"): StepStatus.UNDONE,
    }
)
"""(status, log entry) -> status. What is not in this table cannot happen to a step."""

PHASES: Final[Mapping[tuple[Phase, str], Phase]] = MappingProxyType(
    {
        (Phase.WAITING, "begun"): Phase.RUNNING,
        (Phase.WAITING, "compensation-started"): Phase.COMPENSATING,
        (Phase.RUNNING, "compensation-started"): Phase.COMPENSATING,
        (Phase.RUNNING, "completed"): Phase.COMPLETED,
        (Phase.COMPENSATING, "compensated"): Phase.COMPENSATED,
        (Phase.COMPLETED, "compensation-started"): Phase.COMPENSATING,  # only a child without a pivot
    }
)
"""(phase, log entry) -> phase. What is not in this table cannot happen to a saga."""


OUT: Final = frozenset({StepStatus.ASKED, StepStatus.UNDOING})
TO_ASK_AGAIN: Final = frozenset({StepStatus.REFUSED, StepStatus.UNDO_REFUSED})
OWES_UNDO: Final = frozenset({StepStatus.ASKED, StepStatus.DONE, StepStatus.UNKNOWN})
DO_UNDER_WAY: Final = frozenset({StepStatus.ASKED, StepStatus.REFUSED})
UNDO_UNDER_WAY: Final = frozenset({StepStatus.UNDOING, StepStatus.UNDO_REFUSED})
PAST: Final = frozenset({StepStatus.DONE, StepStatus.SKIPPED})
FAILED: Final = frozenset({StepStatus.REFUSED, StepStatus.UNKNOWN})
