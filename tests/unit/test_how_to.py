"""What the how-to pages say can be done: their commands parse, their code and its tests run, their links lead there."""

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
import typer.main
from typer.exceptions import TyperException

from orchestrator.cli.main import app

FOLDER: Final = Path(__file__).parents[2] / "docs" / "how-to"
PAGES: Final = {page.name: page.read_text() for page in sorted(FOLDER.glob("*.md"))}
SAGA: Final[Any] = typer.main.get_command(app)
INDEX: Final = "README.md"
OTHERS: Final = [FOLDER.parents[1] / "README.md", *sorted(FOLDER.parent.glob("*.md"))]
"""Pages that tell to type something as well."""


def blocks(text: str, language: str) -> list[str]:
    """The blocks of code of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Every `saga …` that a page tells to type, as it stands there."""
    texts = (*PAGES.values(), *(page.read_text() for page in OTHERS))
    lines = [line for text in texts for block in blocks(text, "console") for line in block.splitlines()]
    return list(dict.fromkeys(line.removeprefix("$ ") for line in lines if line.startswith("$ saga ")))


def parse(line: str) -> None:
    """Read a command line as the program does, and carry nothing out. Raises TyperException."""
    command, arguments = SAGA, shlex.split(line, comments=True)[1:]
    while hasattr(command, "resolve_command"):
        _, command, arguments = command.resolve_command(command.make_context("saga", list(arguments)), arguments)
    command.make_context("saga", list(arguments))


def every(command: Any) -> Iterator[Any]:
    """A command, and all below it."""
    yield command
    for one in getattr(command, "commands", {}).values():
        yield from every(one)


def options(line: str) -> set[str]:
    return set(re.findall(r"(?<!\S)--[a-z-]+", line))


# --- commands ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", commands())
def test_a_command_that_is_to_be_typed_is_one_that_the_program_takes(line: str) -> None:
    parse(line)


@pytest.mark.parametrize(
    "line",
    [
        "saga begin x",
        "saga retry ID",
        "saga retry ID --reason x --soon",
        "saga schedule add x",
        "saga get",
        "saga ls x",
    ],
)
def test_a_command_that_there_is_not_would_be_noticed(line: str) -> None:
    with pytest.raises(TyperException):
        parse(line)


def test_every_command_and_option_that_the_text_names_is_there() -> None:
    taken = {name for one in every(SAGA) for parameter in one.params for name in parameter.opts}
    for name, text in PAGES.items():
        spoken = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))
        named = {words.split()[1] for words in spoken if words.startswith("saga ")}
        assert named <= set(SAGA.commands), name
        assert {option for words in spoken for option in options(words)} <= taken, name


def test_prompts_are_only_before_what_can_be_run() -> None:
    for name, text in PAGES.items():
        lines = [line for block in blocks(text, "console") for line in block.splitlines()]
        assert [line for line in lines if not re.match(r"\$ (saga|export|zcat) ", line)] == [], name


# --- code ----------------------------------------------------------------------------------------------------------


def page_as_module(name: str, folder: Path) -> ModuleType:
    """All Python of a page, one block after the other, imported as a person would: definitions are checked by that."""
    file = folder / f"{Path(name).stem.replace('-', '_')}.py"
    file.write_text("\n\n".join(blocks(PAGES[name], "python")))
    spec = importlib.util.spec_from_file_location(f"how_to_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if blocks(text, "python")])
def test_the_code_of_a_page_runs_and_the_tests_in_it_pass(name: str, tmp_path: Path) -> None:
    module = page_as_module(name, tmp_path)
    for test in [value for key, value in vars(module).items() if key.startswith("test_")]:
        test()


# --- links ---------------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """What a heading can be linked by."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[name]):
        path, _, anchor = target.partition("#")
        page = FOLDER / path
        assert page.exists(), target
        assert not anchor or anchor in anchors(page.read_text()), target


def test_the_index_names_every_page_by_its_title() -> None:
    listed = re.findall(r"^\| \[([^\]]+)\]\(([^)]+)\)", PAGES[INDEX], re.MULTILINE)
    titles = {name: text.partition("\n")[0].removeprefix("# ") for name, text in PAGES.items() if name != INDEX}
    assert {name: title for title, name in listed} == titles
