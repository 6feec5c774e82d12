"""A saga as a tree for the terminal: the way forward is the trunk, each undo stands beside its step. No I/O."""

from collections.abc import Iterator
from typing import Final

from orchestrator.definition import Kind
from orchestrator.graph.picture import BACKWARD, Line, Node, Picture, Shape

MARKS: Final = {Shape.COMMAND: "", Shape.WAIT: "◇ ", Shape.DELAY: "◷ ", Shape.CHILD: "▣ "}
GAP: Final = "  "


def text(seen: Picture) -> str:
    """The whole tree, plain."""
    return "".join("".join(piece for piece, _ in line).rstrip() + "\n" for line in lines(seen))


def lines(seen: Picture) -> Iterator[Line]:
    """The same, line by line, with the style of each piece: a status, `bold`, `dim`, or none."""
    yield from _head(seen)
    ended = seen.status or "completed"
    yield (("  ● compensated" if ended == "compensated" else "  ○ begins", "dim"),)
    widths = _widths(seen)
    for stage in seen.stages:
        for number, node in enumerate(stage):
            yield _row(node, _rail(stage, number), widths)
            if node.progress and node.progress.trouble:
                style = "stuck" if node.progress.stuck else node.progress.status.value
                yield ((_below(stage, number), "dim"), (node.progress.trouble, style))
    yield (("  ● completed" if ended == "completed" else "  ○ completed", "dim"),)


def _head(seen: Picture) -> Iterator[Line]:
    words = ((seen.title, "bold"), (seen.saga_id or "", ""), (seen.status or "", seen.status or ""))
    yield tuple(piece for word in words if word[0] for piece in (word, (GAP, "")))
    if seen.reason:
        yield ((seen.reason, ""),)
    if seen.facts:
        yield (("; ".join(seen.facts), "dim"),)
    yield ()


def _row(node: Node, rail: str, widths: list[int]) -> Line:
    cells = [(text.ljust(width), style) for (text, style), width in zip(_cells(node), widths, strict=True)]
    filled = [piece for (cell, style), width in zip(cells, widths, strict=True) if width for piece in
              ((cell, style), (GAP, ""))]  # fmt: skip
    return ((rail, "dim"), *filled, ("; ".join(_notes(node)), "dim"))


def _widths(seen: Picture) -> list[int]:
    columns = zip(*(_cells(node) for node in seen.nodes), strict=True)
    return [max(len(text) for text, _ in column) for column in columns]


def _cells(node: Node) -> list[tuple[str, str]]:
    progress = node.progress
    status = "" if progress is None else "stuck: " * progress.stuck + progress.words
    style = "" if progress is None else "stuck" if progress.stuck else progress.status.value
    return [
        (MARKS[node.shape] + node.name, "bold" if node.kind is Kind.PIVOT else ""),
        (status, style),
        (node.by, ""),
        (f"↶ {node.undo}" if node.undo else "", "undone" if _goes_back(node) else "dim"),
    ]


def _goes_back(node: Node) -> bool:
    return node.progress is not None and node.progress.status in BACKWARD


def _notes(node: Node) -> Iterator[str]:
    if node.kind is Kind.PIVOT:
        yield "the point of no return"
    yield from node.notes


def _rail(stage: tuple[Node, ...], number: int) -> str:
    if stage[number].kind is Kind.PIVOT:
        return "  ╪═══ "
    if len(stage) == 1:
        return "  ├─── "
    if number == 0:
        return "  ├─┬─ "
    return "  │ └─ " if number == len(stage) - 1 else "  │ ├─ "


def _below(stage: tuple[Node, ...], number: int) -> str:
    return "  │ │    " if number < len(stage) - 1 else "  │      "
