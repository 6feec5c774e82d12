"""Paths of SVG, as short as they can be: a page may hold thousands.

Along the x axis a unit is a second of the run, and the browser stretches it: so a plot fits a phone and can be zoomed
into without being drawn again.
"""

from collections.abc import Callable, Sequence
from math import ceil, floor, log10
from typing import Final

from chaos.report.figures import Kind
from chaos.report.timeline import Mark, Window

HEIGHT: Final = 100
"""Of a plot, in units that are stretched as well."""

ROW: Final = 10
"""Of a lane."""

LEAST: Final = 0.1
"""Seconds: a recovery below is drawn there."""


def number(value: float) -> str:
    """`1.50` -> `1.5`, `-0.001` -> `0`."""
    shown = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if shown == "-0" else shown


def area(windows: Sequence[Window], of: Callable[[Window], float], top: float) -> str:
    """From the ground up to the value of each window."""
    if not windows:
        return ""
    steps = (f"V{_height(of(window), top)}H{number(window.until)}" for window in windows)
    return f"M{number(windows[0].at)} {HEIGHT}{''.join(steps)}V{HEIGHT}z"


def struck(mark: Mark, row: int) -> str:
    """How long a fault lasted. One that only lasts a moment is a stroke."""
    return _box(mark.at, mark.until, row * ROW + 1, 8)


def tail(mark: Mark, row: int, end: float) -> str:
    """From when it struck to when sagas ended as before; to the end when they did not."""
    return _box(mark.at, end if mark.recovered is None else mark.recovered, row * ROW + 3, 4)


def decades(kinds: Sequence[Kind]) -> tuple[int, int]:
    """Powers of ten between which all recoveries lie."""
    found = [max(LEAST, took) for kind in kinds for took in kind.recoveries] or [1.0]
    low, high = floor(log10(min(found))), ceil(log10(max(found)))
    return low, max(high, low + 1)


def strip(kind: Kind, between: tuple[int, int]) -> str:
    """A stroke for each recovery, along a logarithmic axis of 100."""
    low, high = between
    places = {number((log10(max(LEAST, took)) - low) / (high - low) * 100) for took in kind.recoveries}
    return "".join(f"M{place} 1v8" for place in sorted(places, key=float))


def median_place(kind: Kind, between: tuple[int, int]) -> str | None:
    """Where the median stands on that axis."""
    low, high = between
    return None if kind.recovery is None else number((log10(max(LEAST, kind.recovery)) - low) / (high - low) * 100)


def share(part: float, whole: float) -> float:
    """In percent."""
    return part / whole * 100 if whole else 0.0


def _height(value: float, top: float) -> str:
    return number(HEIGHT * (1 - min(max(value / top, 0.0), 1.0)))


def _box(at: float, until: float, y: int, height: int) -> str:
    width = number(until - at)
    return f"M{number(at)} {y}h{width}v{height}h-{width}z"
