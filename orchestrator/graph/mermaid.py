"""A saga as a Mermaid flowchart: forward with solid arrows, backward with dotted ones that name the undo. No I/O."""

from collections.abc import Iterator, Sequence
from typing import Final

from orchestrator.definition import Kind
from orchestrator.graph.palette import COLOURS, Colour
from orchestrator.graph.picture import Node, Picture, Shape

BRACKETS: Final = {
    Shape.COMMAND: ('["', '"]'),
    Shape.WAIT: ('{{"', '"}}'),
    Shape.DELAY: ('(["', '"])'),
    Shape.CHILD: ('[["', '"]]'),
}


def mermaid(seen: Picture) -> str:
    """The text of the flowchart."""
    return "\n".join(_lines(seen)) + "\n"


def _lines(seen: Picture) -> Iterator[str]:
    yield "---"
    yield f"title: {_title(seen)}"
    yield "---"
    yield "flowchart TB"
    yield '    begins((" "))'
    names = _names(seen)
    for number, stage in enumerate(seen.stages):
        yield from _stage(stage, number, names)
    yield '    completed(["completed"])'
    yield from _forward(seen, names)
    yield from _backward(seen, names)
    yield from _classes(seen, names)


def _title(seen: Picture) -> str:
    return " ".join(part for part in (seen.title, seen.saga_id, seen.status) if part)


def _names(seen: Picture) -> dict[str, str]:
    """Step -> a name that is no word of Mermaid's."""
    return {node.name: f"s{number}" for number, node in enumerate(seen.nodes)}


def _stage(stage: Sequence[Node], number: int, names: dict[str, str]) -> Iterator[str]:
    if len(stage) == 1:
        yield f"    {_node(stage[0], names)}"
        return
    yield f'    subgraph g{number}["in parallel"]'
    for node in stage:
        yield f"        {_node(node, names)}"
    yield "    end"
    yield f'    j{number}((" "))'


def _node(node: Node, names: dict[str, str]) -> str:
    opening, closing = BRACKETS[node.shape]
    rows = [f"<b>{_escaped(node.name)}</b>", *(_escaped(row) for row in _rows(node))]
    return f"{names[node.name]}{opening}{'<br/>'.join(rows)}{closing}"


def _rows(node: Node) -> Iterator[str]:
    if node.by:
        yield node.by
    if node.kind is Kind.PIVOT:
        yield "the point of no return"
    yield from node.notes
    if node.progress is not None:
        yield "stuck: " * node.progress.stuck + node.progress.words
        if node.progress.trouble:
            yield node.progress.trouble


def _forward(seen: Picture, names: dict[str, str]) -> Iterator[str]:
    here = "begins"
    for stage, exit in zip(seen.stages, _exits(seen, names), strict=True):
        members = " & ".join(names[node.name] for node in stage)
        yield f"    {here} --> {members}"
        if exit != members:
            yield f"    {members} --> {exit}"
        here = exit
    yield f"    {here} --> completed"


def _backward(seen: Picture, names: dict[str, str]) -> Iterator[str]:
    if any(node.undo for node in seen.nodes):
        yield '    compensated(["compensated"])'
    for stage, above in zip(seen.stages, ["compensated", *_exits(seen, names)], strict=False):
        for node in stage:
            if node.undo:
                yield f'    {names[node.name]} -. "{_escaped(node.undo)}" .-> {above}'


def _exits(seen: Picture, names: dict[str, str]) -> list[str]:
    """Where each stage ends: in its step, or where its steps join."""
    return [names[stage[0].name] if len(stage) == 1 else f"j{number}" for number, stage in enumerate(seen.stages)]


def _classes(seen: Picture, names: dict[str, str]) -> Iterator[str]:
    used: dict[str, list[str]] = {}
    for node in seen.nodes:
        used.setdefault(_class(node), []).append(names[node.name])
    for name, members in used.items():
        yield f"    classDef {_word(name)} {_style(COLOURS[name], name)}"
        yield f"    class {','.join(members)} {_word(name)}"
    if groups := [f"g{number}" for number, stage in enumerate(seen.stages) if len(stage) > 1]:
        yield "    classDef is_group fill:#ffffff00,stroke:#94a3b8,stroke-dasharray:3 3"
        yield f"    class {','.join(groups)} is_group"


def _class(node: Node) -> str:
    if node.progress is not None:
        return "stuck" if node.progress.stuck else node.progress.status.value
    return node.kind.value if node.kind else "pending"


def _word(name: str) -> str:
    return f"is_{name.replace('-', '_')}"


def _style(colour: Colour, name: str) -> str:
    width = 3 if name == Kind.PIVOT else 1
    return f"fill:{colour.fill},stroke:{colour.line},color:{colour.ink},stroke-width:{width}px"


def _escaped(text: str) -> str:
    """Everything that Mermaid or HTML could take for its own, as an entity."""
    return "".join(one if one.isalnum() or one in " -_.,:/()'" else f"#{ord(one)};" for one in text)
