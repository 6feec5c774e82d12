"""The definitions that a process has: several versions of a saga side by side, and where they come from."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.definition import InvalidDefinition, Saga, SagaData, child, reversible, step
from orchestrator.registry import Definitions
from outbox.contracts import Command, Reply


class Ok(Reply):
    pass


class Do(Command[Ok], participant="anyone"):
    pass


class Nothing(SagaData):
    pass


def do(data: Nothing) -> Do:
    return Do()


def do_more(data: Nothing) -> Do:
    return Do()


def undo(data: Nothing) -> Do:
    return Do()


def saga(name: str = "one", version: int = 1, *others: Any) -> Saga[Nothing]:
    return Saga(name, Nothing, (reversible(do_more, undo=undo), *others), step(do), version=version)


# --- versions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(1, 2, 10), (10, 2, 1), (2, 10, 1)])
def test_a_new_saga_begins_on_the_highest_version(order: tuple[int, ...]) -> None:
    versions = {number: saga(version=number) for number in order}
    definitions = Definitions(versions.values())
    assert definitions["one"] is versions[10]
    assert (list(definitions), len(definitions)) == (["one"], 1)


def test_a_saga_stays_on_the_version_that_its_fingerprint_names() -> None:
    old, new = saga(version=1), saga(version=2)
    definitions = Definitions([old, new])
    assert definitions.by_fingerprint == {old.fingerprint: old, new.fingerprint: new}


def test_every_version_is_listed_by_name_the_newest_first() -> None:
    definitions = Definitions([saga("b"), saga("a", 1), saga("a", 2), saga("a", 10)])
    assert [(one.name, one.version) for one in definitions.every] == [("a", 10), ("a", 2), ("a", 1), ("b", 1)]


def test_two_definitions_of_the_same_version_are_refused() -> None:
    other = Saga("one", Nothing, (), step(do))
    with pytest.raises(InvalidDefinition) as caught:
        Definitions([saga(), other])
    assert str(caught.value) == "saga one: there are two definitions of version 1; give one of them another"


def test_the_same_definition_twice_is_one() -> None:
    one = saga()
    assert Definitions([one, one]).every == [one]


def test_a_name_that_is_not_there_is_a_key_error() -> None:
    definitions = Definitions([saga()])
    assert "two" not in definitions
    with pytest.raises(KeyError):
        definitions["two"]


# --- children ----------------------------------------------------------------------------------------------------


def nothing(data: Nothing) -> Nothing:
    return data


def test_children_and_their_children_are_there_without_being_named() -> None:
    grandchild = Saga("grandchild", Nothing, (reversible(do, undo=undo),), None)
    middle = Saga("middle", Nothing, (child(grandchild, nothing),), None)
    parent = saga("parent", 1, child(middle, nothing))
    assert Definitions([parent]).every == [grandchild, middle, parent]
    assert Definitions([grandchild, parent]).every == [grandchild, middle, parent]


def test_a_child_and_a_saga_of_the_same_name_and_version_are_refused() -> None:
    inner = Saga("inner", Nothing, (reversible(do, undo=undo),), None)
    with pytest.raises(InvalidDefinition, match="there are two definitions of version 1"):
        Definitions([saga("parent", 1, child(inner, nothing)), saga("inner")])


# --- modules -----------------------------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], str]]:
    """Writes a module of this name, and makes it one that can be imported."""
    written: list[str] = []

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        written.append(name)
        return name

    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    for name in written:
        sys.modules.pop(name, None)


def test_the_sagas_of_a_module_are_those_at_its_top_level() -> None:
    definitions = Definitions.of_modules(["orchestrator.sagas.place_order"])
    assert list(definitions) == ["place-order"]


def test_a_saga_that_two_modules_name_is_one(module: Callable[[str, str], str]) -> None:
    again = module("sagas_again", "from orchestrator.sagas.place_order import place_order\n")
    definitions = Definitions.of_modules(["orchestrator.sagas.place_order", again])
    assert len(definitions.every) == 1


def test_a_module_without_a_saga_is_refused() -> None:
    with pytest.raises(InvalidDefinition) as caught:
        Definitions.of_modules(["outbox.contracts"])
    assert str(caught.value) == "the module outbox.contracts has no saga at its top level"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import no_such_module_at_all\n", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("def (\n", "SyntaxError"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_cannot_be_imported_says_why(module: Callable[[str, str], str], text: str, why: str) -> None:
    name = module("ill_sagas", text)
    with pytest.raises(InvalidDefinition, match=f"the module {name} cannot be imported: {why}"):
        Definitions.of_modules([name])


@pytest.mark.parametrize("name", ["", ".", "no.such.module", "sagas.py:place_order", "a b"])
def test_what_is_no_module_is_refused(name: str) -> None:
    with pytest.raises(InvalidDefinition, match="cannot be imported"):
        Definitions.of_modules([name])


def test_an_invalid_definition_in_a_module_speaks_for_itself(module: Callable[[str, str], str]) -> None:
    text = "from orchestrator.definition import Policy\nPolicy(attempts=0)\n"
    with pytest.raises(InvalidDefinition, match=r"^a policy needs attempts >= 1"):
        Definitions.of_modules([module("invalid_sagas", text)])
