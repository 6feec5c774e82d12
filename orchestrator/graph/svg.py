"""A saga as an SVG picture: down the left side it goes forward, up the right side it goes back. No I/O.

Bands tell the three parts of the theory apart: what can be undone, the point of no return, what must go through.
First everything is given its place, then it is drawn: bands, lines, cards.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Final

from orchestrator.definition import Kind
from orchestrator.graph.canvas import INK, MUTED, Box, Canvas, text_width
from orchestrator.graph.palette import COLOURS, GREEN, GREY, VIOLET, Colour
from orchestrator.graph.picture import BACKWARD, Node, Picture, Shape

EDGE: Final = 32.0
BAND_EDGE: Final = 24.0
GAP: Final = 30.0
GAP_IN_GROUP: Final = 12.0
LINE: Final = 18.0
BETWEEN_LANES: Final = 72.0
LETTERS: Final = 46
"""Of a reason, on one line."""

BANDS: Final = {
    Kind.REVERSIBLE: ("REVERSIBLE", "can be undone"),
    Kind.PIVOT: ("PIVOT", "the point of no return"),
    Kind.RETRIABLE: ("RETRIABLE", "must go through"),
    None: ("STEPS", ""),
}


@dataclass(frozen=True, slots=True)
class _Card:
    node: Node
    box: Box
    undo: Box | None


@dataclass(frozen=True, slots=True)
class _Stage:
    cards: tuple[_Card, ...]
    box: Box
    undo: Box | None


@dataclass(frozen=True, slots=True)
class _Band:
    kind: Kind | None
    box: Box


@dataclass(slots=True)
class _Sheet:
    """Where everything stands."""

    seen: Picture
    card: float
    undo: float
    head: list[str] = field(default_factory=list)
    y: float = EDGE
    stages: list[_Stage] = field(default_factory=list)
    bands: list[_Band] = field(default_factory=list)
    begin: float = 0
    end: float = 0

    @property
    def left(self) -> float:
        return EDGE + BAND_EDGE

    @property
    def lane(self) -> float:
        """Where the undos begin."""
        return self.left + self.card + BETWEEN_LANES

    @property
    def forward(self) -> float:
        return self.left + self.card / 2

    @property
    def backward(self) -> float:
        return self.lane + self.undo / 2

    @property
    def has_undos(self) -> bool:
        return self.undo > 0

    @property
    def width(self) -> float:
        right = self.lane + self.undo if self.has_undos else self.left + self.card
        return right + BAND_EDGE + EDGE


def svg(seen: Picture) -> str:
    """The whole file."""
    sheet = _placed(seen)
    canvas = Canvas(" ".join([seen.title, *([seen.status] if seen.status else [])]))
    _draw_head(canvas, sheet)
    for band in sheet.bands:
        _draw_band(canvas, band, sheet.forward)
    _draw_forward(canvas, sheet)
    if sheet.has_undos:
        _draw_backward(canvas, sheet)
    for stage in sheet.stages:
        _draw_stage(canvas, stage)
    return canvas.finished(sheet.width, sheet.y + EDGE)


# --- places ------------------------------------------------------------------------------------------------------


def _placed(seen: Picture) -> _Sheet:
    undos = [text_width(node.undo, 13, bold=True) + 40 for node in seen.nodes if node.undo]
    sheet = _Sheet(seen, max(240, *map(_card_width, seen.nodes)), max(undos, default=0))
    sheet.card += max(0, text_width(seen.title, 20) + 180 - sheet.width)  # the title needs room, too
    letters = int((sheet.width - 2 * EDGE) / text_width(" ", 13))
    texts = (seen.saga_id, seen.reason, "; ".join(seen.facts))
    sheet.head = [line for text in texts if text for line in textwrap.wrap(text, letters)]
    sheet.y += 22 + LINE * len(sheet.head) + 26
    sheet.begin = sheet.y
    sheet.y += GAP
    for kind, stages in groupby(seen.stages, lambda stage: stage[0].kind):
        _place_band(sheet, kind, list(stages))
    sheet.end = sheet.y + 4
    sheet.y += 12
    return sheet


def _place_band(sheet: _Sheet, kind: Kind | None, stages: Sequence[Sequence[Node]]) -> None:
    top = sheet.y
    sheet.y += 44
    for stage in stages:
        sheet.stages.append(_place_stage(sheet, stage))
        sheet.y += GAP
    sheet.y += BAND_EDGE - GAP
    sheet.bands.append(_Band(kind, Box(EDGE, top, sheet.width - 2 * EDGE, sheet.y - top)))
    sheet.y += GAP


def _place_stage(sheet: _Sheet, stage: Sequence[Node]) -> _Stage:
    grouped = len(stage) > 1
    sheet.y += 26 if grouped else 0
    cards = []
    for node in stage:
        box = Box(sheet.left, sheet.y, sheet.card, 26 + LINE * (1 + len(_rows(node))))
        undo = Box(sheet.lane, box.centre - 19, sheet.undo, 38) if node.undo else None
        cards.append(_Card(node, box, undo))
        sheet.y += box.height + GAP_IN_GROUP
    sheet.y -= GAP_IN_GROUP
    outer = _around([card.box for card in cards], grouped)
    undos = [card.undo for card in cards if card.undo]
    sheet.y = outer.bottom
    return _Stage(tuple(cards), outer, _around(undos, grouped) if undos else None)


def _around(boxes: Sequence[Box], grouped: bool) -> Box:
    first, last = boxes[0], boxes[-1]
    whole = Box(first.x, first.y, first.width, last.bottom - first.y)
    if not grouped:
        return whole
    framed = whole.grown(12)
    return Box(framed.x, framed.y - 14, framed.width, framed.height + 14)


def _card_width(node: Node) -> float:
    badge = text_width(node.progress.words, 11, bold=True) + 40 if node.progress else 0
    rows = [text_width(row, 12) for row, _ in _rows(node)]
    return max(text_width(node.name, 14, bold=True) + badge, *rows, 0) + 44


def _rows(node: Node) -> list[tuple[str, str]]:
    """The lines under the name, each with its ink."""
    rows = [(row, MUTED) for row in (node.by, *node.notes) if row]
    if node.progress is not None and node.progress.trouble:
        ink = _colour(node).ink
        rows += [(line, ink) for line in textwrap.wrap(node.progress.trouble, LETTERS)[:4]]
    return rows


# --- drawing -----------------------------------------------------------------------------------------------------


def _draw_head(canvas: Canvas, sheet: _Sheet) -> None:
    seen = sheet.seen
    canvas.text(EDGE, EDGE + 14, seen.title, size=20, ink=INK, bold=True)
    if seen.status is not None:
        box = Box(EDGE + text_width(seen.title, 20) + 16, EDGE - 5, text_width(seen.status, 12, bold=True) + 22, 24)
        _draw_badge(canvas, box, seen.status, COLOURS[seen.status])
    for number, line in enumerate(sheet.head, 1):
        canvas.text(EDGE, EDGE + 18 + LINE * number, line, size=13)


def _draw_badge(canvas: Canvas, box: Box, text: str, colour: Colour) -> None:
    canvas.rectangle(box, fill=colour.fill, line=colour.line, radius=box.height / 2)
    canvas.text(box.middle, box.centre + 4, text, size=11.5, ink=colour.ink, bold=True, anchor="middle")


def _draw_band(canvas: Canvas, band: _Band, forward: float) -> None:
    colour = GREY if band.kind is None else COLOURS[band.kind.value]
    canvas.rectangle(band.box, fill=colour.fill, line=colour.line, radius=14, stroke_opacity="0.35")
    name, meaning = BANDS[band.kind]
    canvas.text(band.box.x + BAND_EDGE, band.box.y + 26, name, size=11, ink=colour.ink, bold=True)
    if meaning:
        canvas.text(forward + 14, band.box.y + 26, meaning, size=11.5, ink=colour.ink)


def _draw_forward(canvas: Canvas, sheet: _Sheet) -> None:
    x = sheet.forward
    stops = [(sheet.begin, sheet.begin), *((s.box.y, s.box.bottom) for s in sheet.stages), (sheet.end, sheet.end)]
    for (_, here), (there, _) in pairwise(stops):
        canvas.path([(x, here), (x, there - 9 if there == sheet.end else there - 1)])
    canvas.circle(x, sheet.begin, 7, GREY)
    canvas.circle(x, sheet.end, 8, GREEN)
    canvas.text(x + 18, sheet.end + 5, "completed", size=13, ink=GREEN.ink, bold=True)


def _draw_backward(canvas: Canvas, sheet: _Sheet) -> None:
    x = sheet.backward
    above = sheet.begin
    for stage in sheet.stages:
        if stage.undo is None:
            continue
        canvas.path([(x, stage.undo.y), (x, above + (9 if above == sheet.begin else 1))], backward=True)
        above = stage.undo.bottom
    canvas.circle(x, sheet.begin, 8, VIOLET)
    canvas.text(x + 18, sheet.begin + 5, "compensated", size=13, ink=VIOLET.ink, bold=True)
    for card in _turning(sheet):
        _draw_turn(canvas, card, x, above)


def _turning(sheet: _Sheet) -> Iterator[_Card]:
    """What may be refused, and has no undo of its own: the pivot, and waits before it."""
    return (
        card
        for stage in sheet.stages
        for card in stage.cards
        if card.node.kind is Kind.PIVOT or (card.node.kind is Kind.REVERSIBLE and card.node.shape is Shape.WAIT)
    )


def _draw_turn(canvas: Canvas, card: _Card, x: float, lowest: float) -> None:
    y = card.box.centre
    if y > lowest:
        canvas.path([(card.box.right, y), (x, y), (x, lowest + 1)], backward=True)
    else:
        canvas.path([(card.box.right, y), (x - 1, y)], backward=True)
    canvas.text(card.box.right + 12, y - 6, "refused", size=11, ink=VIOLET.ink)


def _draw_stage(canvas: Canvas, stage: _Stage) -> None:
    if len(stage.cards) > 1:
        for box in (stage.box, stage.undo):
            if box is not None:
                canvas.rectangle(
                    box, fill="#ffffff", line="#94a3b8", radius=12, fill_opacity="0.6", stroke_dasharray="2 3"
                )
        canvas.text(stage.box.x + 12, stage.box.y + 17, "in parallel", size=11, ink=MUTED, bold=True)
    for card in stage.cards:
        _draw_card(canvas, card)


def _draw_card(canvas: Canvas, card: _Card) -> None:
    node, box, colour = card.node, card.box, _colour(card.node)
    for offset in (8, 4) if node.many else ():
        behind = Box(box.x + offset, box.y + offset, box.width, box.height)
        canvas.rectangle(behind, fill="#ffffff", line=colour.line, stroke_opacity="0.5")
    _draw_shape(canvas, node, box, colour)
    canvas.text(box.x + 22, box.y + 26, node.name, size=14, ink=INK, bold=True)
    for number, (row, ink) in enumerate(_rows(node), 1):
        canvas.text(box.x + 22, box.y + 26 + LINE * number, row, ink=ink)
    if node.progress is not None:
        words = "stuck" if node.progress.stuck else node.progress.words
        width = text_width(words, 11, bold=True) + 18
        _draw_badge(canvas, Box(box.right - width - 16, box.y + 11, width, 20), words, colour)
    if card.undo is not None and node.undo:
        _draw_undo(canvas, card, card.undo, node.undo)


def _draw_shape(canvas: Canvas, node: Node, box: Box, colour: Colour) -> None:
    fill = colour.fill if node.progress else "#ffffff"
    width = "2.5" if node.kind is Kind.PIVOT else "1.5"
    if node.shape is Shape.WAIT:
        canvas.hexagon(box, fill=fill, line=colour.line, stroke_width=width)
        return
    radius = {Shape.DELAY: box.height / 2, Shape.CHILD: 4.0}.get(node.shape, 8.0)
    canvas.rectangle(box, fill=fill, line=colour.line, radius=radius, stroke_width=width)
    if node.shape is Shape.CHILD:
        canvas.rectangle(box.grown(-4), fill="none", line=colour.line, radius=2, stroke_opacity="0.6")


def _draw_undo(canvas: Canvas, card: _Card, box: Box, name: str) -> None:
    under_way = card.node.progress is not None and card.node.progress.status in BACKWARD
    colour = _colour(card.node) if under_way else VIOLET
    canvas.path([(card.box.right + (8 if card.node.many else 0), box.centre), (box.x - 1, box.centre)], backward=True)
    fill, dashes = (colour.fill, "none") if under_way else ("#ffffff", "5 4")
    canvas.rectangle(box, fill=fill, line=colour.line, stroke_width="1.5", stroke_dasharray=dashes)
    canvas.text(box.middle, box.centre + 4.5, name, size=13, ink=colour.ink, bold=True, anchor="middle")


def _colour(node: Node) -> Colour:
    if node.progress is None:
        return COLOURS[node.kind.value] if node.kind else GREY
    return COLOURS["stuck" if node.progress.stuck else node.progress.status.value]
