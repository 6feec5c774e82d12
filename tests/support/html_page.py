"""An HTML page as a reader of it has it: tables by id, text by id, and every element with its attributes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"meta", "input", "br", "link", "img"})


@dataclass
class Element:
    """An element of a page."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    content: list["Element | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(one if isinstance(one, str) else one.text for one in self.content)

    def all(self, tag: str, **attributes: str) -> Iterator["Element"]:
        """What is in it, at any depth; `class_` is one of its classes."""
        for one in self.content:
            if isinstance(one, Element):
                if tag in ("*", one.tag) and one.has(attributes):
                    yield one
                yield from one.all(tag, **attributes)

    def has(self, attributes: dict[str, str]) -> bool:
        """Whether it has these."""
        classes = self.attributes.get("class", "").split()
        return all(
            value in classes if name == "class_" else self.attributes.get(name) == value
            for name, value in attributes.items()
        )

    def by_id(self, name: str) -> "Element":
        """The one with this id."""
        [found] = self.all("*", id=name)
        return found

    def table(self, name: str) -> list[list[str]]:
        """The cells of the body of a table."""
        [body] = self.by_id(name).all("tbody")
        return [[cell.text for cell in row.content if isinstance(cell, Element)] for row in body.all("tr")]


def parse(html: str) -> Element:
    """The page. Fails on a tag that is closed and was not opened, or the other way round."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    assert parser.open == [parser.root], f"{parser.open[-1].tag} is never closed"
    return parser.root


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].content.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> where {self.open[-1].tag} is open"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].content.append(data)
