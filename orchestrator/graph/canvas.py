"""A sheet of SVG: a few shapes that are drawn with care, escaped by the XML library. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree

from orchestrator.graph.palette import Colour

SANS: Final = "Inter, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
INK: Final = "#0f172a"
MUTED: Final = "#64748b"
WIDEST: Final = 0.62
"""Of a letter, in its size, on average: fonts differ, so this is generous."""


@dataclass(frozen=True, slots=True)
class Box:
    """A place on the sheet."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """Halfway across."""
        return self.x + self.width / 2

    @property
    def centre(self) -> float:
        """Halfway down."""
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        """The right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.y + self.height

    def grown(self, by: float) -> "Box":
        """With a margin on every side."""
        return Box(self.x - by, self.y - by, self.width + 2 * by, self.height + 2 * by)


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """How wide a text is at most, about."""
    return len(text) * size * (WIDEST + (0.04 if bold else 0))


class Canvas:
    """What is drawn later lies on top."""

    def __init__(self, title: str) -> None:
        self._root = ElementTree.Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")
        self._root.set("font-family", SANS)
        ElementTree.SubElement(self._root, "title").text = _printable(title)
        definitions = ElementTree.SubElement(self._root, "defs")
        for name, colour in (("forward", MUTED), ("backward", "#8b5cf6")):
            marker = ElementTree.SubElement(
                definitions, "marker", id=name, viewBox="0 0 8 8", refX="7", refY="4", markerWidth="7", markerHeight="7"
            )
            marker.set("orient", "auto-start-reverse")
            ElementTree.SubElement(marker, "path", d="M0,0.5 L8,4 L0,7.5 Z", fill=colour)

    def rectangle(self, box: Box, *, fill: str, line: str = "none", radius: float = 8, **more: str) -> None:
        """With round corners."""
        self._add("rect", box, fill=fill, stroke=line, rx=_number(radius), **more)

    def hexagon(self, box: Box, *, fill: str, line: str, **more: str) -> None:
        """Pointed to the left and to the right."""
        cut, top, bottom = 14.0, box.y, box.bottom
        points = [(box.x + cut, top), (box.right - cut, top), (box.right, box.centre)]
        points += [(box.right - cut, bottom), (box.x + cut, bottom), (box.x, box.centre)]
        shown = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
        self._element("polygon", points=shown, fill=fill, stroke=line, **more)

    def circle(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """For beginnings and ends."""
        self._element(
            "circle", cx=_number(x), cy=_number(y), r=_number(radius), fill=colour.line, stroke=colour.ink,
            **{"stroke-width": "1.5"},
        )  # fmt: skip

    def path(self, points: Sequence[tuple[float, float]], *, backward: bool = False, arrow: bool = True) -> None:
        """Straight pieces with an arrow at the end. The way back is dashed."""
        shown = "M" + " L".join(f"{_number(x)},{_number(y)}" for x, y in points)
        name, colour = ("backward", "#8b5cf6") if backward else ("forward", MUTED)
        more = {"stroke-width": "1.5", "stroke-linejoin": "round"}
        more |= {"stroke-dasharray": "5 4"} if backward else {}
        more |= {"marker-end": f"url(#{name})"} if arrow else {}
        self._element("path", d=shown, fill="none", stroke=colour, **more)

    def text(
        self, x: float, y: float, text: str, *, size: float = 12, ink: str = MUTED, bold: bool = False, anchor: str = ""
    ) -> None:
        """On one line, with its baseline at `y`."""
        more = {"font-weight": "600"} if bold else {}
        more |= {"text-anchor": anchor} if anchor else {}
        element = self._element("text", x=_number(x), y=_number(y), fill=ink, **more)
        element.set("font-size", _number(size))
        element.text = _printable(text)

    def finished(self, width: float, height: float) -> str:
        """The whole file, on white paper: it looks the same on a dark page."""
        self._root.set("viewBox", f"0 0 {_number(width)} {_number(height)}")
        self._root.set("width", _number(width))
        self._root.set("height", _number(height))
        paper = ElementTree.Element("rect", width="100%", height="100%", rx="12", fill="#ffffff")
        self._root.insert(2, paper)
        ElementTree.indent(self._root)
        return ElementTree.tostring(self._root, encoding="unicode") + "\n"

    def _add(self, tag: str, box: Box, **attributes: str) -> None:
        place = {"x": box.x, "y": box.y, "width": box.width, "height": box.height}
        self._element(tag, **{name: _number(value) for name, value in place.items()}, **attributes)

    def _element(self, tag: str, **attributes: str) -> ElementTree.Element:
        return ElementTree.SubElement(self._root, tag, {k.replace("_", "-"): v for k, v in attributes.items()})


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _printable(text: str) -> str:
    """Without what XML 1.0 cannot hold."""
    return "".join(
        one if one >= " " and one not in "\ufffe\uffff" and not "\ud800" <= one <= "\udfff" else " " for one in text
    )
