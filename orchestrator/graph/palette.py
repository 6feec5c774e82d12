"""The colours of kinds and statuses, shared by every drawing: dark enough to be read on white. No I/O."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Colour:
    """A light ground, a line around it, and ink that can be read on the ground."""

    fill: str
    line: str
    ink: str


BLUE: Final = Colour("#eff6ff", "#3b82f6", "#1e40af")
AMBER: Final = Colour("#fffbeb", "#f59e0b", "#92400e")
GREEN: Final = Colour("#f0fdf4", "#22c55e", "#166534")
TEAL: Final = Colour("#f0fdfa", "#14b8a6", "#115e59")
VIOLET: Final = Colour("#f5f3ff", "#8b5cf6", "#5b21b6")
ORANGE: Final = Colour("#fff7ed", "#f97316", "#9a3412")
RED: Final = Colour("#fef2f2", "#ef4444", "#991b1b")
GREY: Final = Colour("#f8fafc", "#94a3b8", "#475569")

COLOURS: Final = {
    "reversible": BLUE,
    "pivot": AMBER,
    "retriable": TEAL,
    "pending": GREY,
    "skipped": GREY,
    "asked": BLUE,
    "done": GREEN,
    "refused": ORANGE,
    "unknown": ORANGE,
    "undoing": VIOLET,
    "undo-refused": RED,
    "undone": VIOLET,
    "stuck": RED,
    "paused": GREY,
    "waiting": GREY,
    "running": BLUE,
    "compensating": VIOLET,
    "completed": GREEN,
    "compensated": VIOLET,
}
"""By kind, step status, or saga status."""
