"""Drawings that are made from the code: of a definition, of one saga with its progress, of the state machine. No I/O.

`picture` says what there is to see; `text`, `mermaid` and `svg` only say how it looks. So the three always agree.
"""

from orchestrator.graph.mermaid import mermaid
from orchestrator.graph.picture import Line, Node, Picture, Progress, Shape, picture
from orchestrator.graph.svg import svg
from orchestrator.graph.text import lines, text

__all__ = ["Line", "Node", "Picture", "Progress", "Shape", "lines", "mermaid", "picture", "svg", "text"]
