"""The plots: SVG that is the same to the byte whenever it is drawn from the same figures.

They stand on a white card, so that they can be read on a dark page too; their colours are told apart by those who do
not see all colours (Okabe and Ito), and each series has a hatch or a marker of its own besides.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.typing import RcKeyType

from benchmarks.studies import numbers
from benchmarks.studies.runs import Row
from benchmarks.studies.store import FOLDER, Results
from benchmarks.studies.study import Bars, Lines, Panel, Rows, Study, good

INK, MUTED, GRID = "#0f172a", "#475569", "#e2e8f0"
COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
HATCHES: Final = ("", "///", "...", "\\\\\\", "xxx", "---")
MARKERS: Final = ("o", "s", "^", "D", "v", "P")
WIDTH, HEIGHT = 9.0, 4.2
PAD: Final = 0.12
"""Inches between the plot and the edge of its card."""

BARS_WIDTH: Final = 0.84
"""Of the room that a group has, the part that its bars take."""

BAR_WIDTH: Final = 0.92
LEAST_BARS: Final = 3
"""Bars that are alone in their groups are no wider than if they were so many."""

FAILED: Final = "failed"

STYLE: Final[dict[RcKeyType, Any]] = {
    "svg.fonttype": "none",  # text that can be selected and read aloud
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "hatch.color": "white",
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def draw(study: Study, results: Results, docs: Path) -> None:
    """Draw a study that has any figures."""
    if not good(results.rows):
        return
    style: dict[RcKeyType, Any] = {**STYLE, "svg.hashsalt": study.name}
    with rc_context(style):
        figure = Figure(
            figsize=(WIDTH, HEIGHT), layout=ConstrainedLayoutEngine(w_pad=PAD, h_pad=PAD), facecolor="white"
        )
        figure.suptitle(study.what, fontsize=12, fontweight="bold")
        panels = study.picture.panels
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw_panel(axes, study, panel, results.rows)
        _legend(figure)
        file = docs / FOLDER / f"{study.name}.svg"
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Title": study.what})


def _draw_panel(axes: Axes, study: Study, panel: Panel, rows: Rows) -> None:
    picture = study.picture
    axes.set_facecolor("white")
    axes.set_ylabel(panel.axis)
    axes.set_xlabel(picture.axis)
    axes.grid(axis="y", color=GRID)
    if isinstance(picture, Bars):
        _draw_bars(axes, study, picture, panel, rows)
    else:
        _draw_lines(axes, picture, panel, rows)
    axes.tick_params(which="both", length=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_bars(axes: Axes, study: Study, picture: Bars, panel: Panel, rows: Rows) -> None:
    groups = _distinct(rows, picture.group)
    show = _shown_as(study, picture.group)
    axes.set_xticks(range(len(groups)), [show(_with(rows, picture.group, group)[0]) for group in groups])
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.margins(y=0.12)
    if picture.log:
        axes.set_yscale("log")
    for bar in _bars(picture, rows):
        _draw_bar(axes, bar, bar.row.get(panel.key))
        if panel.mark and (mark := bar.row.get(panel.mark)):
            half = bar.width / 2
            axes.hlines(mark, bar.at - half, bar.at + half, colors=INK, linewidth=2, label=picture.marked)
    axes.set_ylim(bottom=1 if picture.log else 0)


@dataclass(frozen=True, slots=True)
class _Bar:
    """A run, and where it stands. `number` is that of its series."""

    row: Row
    at: float
    width: float
    number: int
    name: str | None


def _bars(picture: Bars, rows: Rows) -> Iterator[_Bar]:
    """A bar for each run: one that failed has its place, so that a colour means the same wherever it stands."""
    names = _distinct(rows, picture.series) if picture.series else [None]
    for middle, group in enumerate(_distinct(rows, picture.group)):
        there = _with(rows, picture.group, group)
        room = BARS_WIDTH / max(len(there), LEAST_BARS)
        for place, row in enumerate(there):
            name = row[picture.series] if picture.series else None
            at = middle + (place - (len(there) - 1) / 2) * room
            yield _Bar(row, at, room * BAR_WIDTH, names.index(name), name)


def _draw_bar(axes: Axes, bar: _Bar, value: float | None) -> None:
    if value is None:
        axes.text(bar.at, 0.01, FAILED, transform=axes.get_xaxis_transform(), ha="center", fontsize=8)
        return
    look: dict[str, Any] = {"color": COLOURS[bar.number], "hatch": HATCHES[bar.number], "label": bar.name}
    axes.bar(bar.at, value, bar.width, edgecolor="white", linewidth=0, **look)
    shown = numbers.rate(value)
    axes.annotate(shown, (bar.at, value), (0, 2), textcoords="offset points", ha="center", fontsize=8)


def _draw_lines(axes: Axes, picture: Lines, panel: Panel, rows: Rows) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    for number, name in enumerate(_distinct(rows, picture.series)):
        points = sorted((row[picture.along], row[panel.key]) for row in good(_with(rows, picture.series, name)))
        along, values = [point[0] for point in points], [point[1] for point in points]
        axes.plot(along, values, color=COLOURS[number], marker=MARKERS[number], label=name)
    ticks = _distinct(rows, picture.along)
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))


def _legend(figure: Figure) -> None:
    """Each name once, under all panels."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    if found:
        figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=min(3, len(found)))


def _distinct(rows: Rows, key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


def _with(rows: Rows, key: str, value: Any) -> list[Row]:
    return [row for row in rows if row[key] == value]


def _shown_as(study: Study, key: str) -> Callable[[Row], str]:
    """How the table shows a label."""
    column = next(column for column in study.columns if column.keys == (key,))
    return lambda row: column.show(row, [row])
