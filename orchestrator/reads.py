"""What a definition's function reads of the saga's data, and what it adds to it: read from its source. No I/O.

Functions of a definition are pure and small, so their source tells: `data.total` reads `total`, and
`data.model_copy(update={"code": reply.code})` adds `code`. Where the source cannot be had or does not tell (a computed
key, a helper that is handed the whole data) the answer is None: nothing is known, and nothing is claimed.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from orchestrator.steps import SagaData


def supplied_fields(data: type[SagaData]) -> frozenset[str]:
    """The fields that are no input: a step's `then` supplies them."""
    marked = {
        name
        for name, field in data.model_fields.items()
        if isinstance(extra := field.json_schema_extra, dict) and extra.get("supplied")
    }
    return frozenset(marked)


def reads(function: Callable[..., Any], data: type[SagaData]) -> frozenset[str] | None:
    """The fields of `data` that `function` reads of its first argument, those of the properties it uses included."""
    return _reads(function, data, frozenset())


def supplies(then: Callable[..., Any]) -> frozenset[str] | None:
    """The fields that a `then` sets."""
    tree = _tree(then)
    arguments = None if tree is None else _arguments(tree)
    if tree is None or not arguments or any(_is_handed_on(node, arguments[0]) for node in ast.walk(tree)):
        return None
    found: set[str] = set()
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        for keyword in call.keywords:
            if keyword.arg != "update":
                continue
            if not isinstance(keyword.value, ast.Dict):
                return None
            for key in keyword.value.keys:
                if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
                    return None
                found.add(key.value)
    return frozenset(found) or None


def _reads(function: Callable[..., Any], data: type[SagaData], seen: frozenset[str]) -> frozenset[str] | None:
    tree = _tree(function)
    arguments = None if tree is None else _arguments(tree)
    if tree is None or not arguments:
        return None
    first = arguments[0]
    if any(_is_handed_on(node, first) for node in ast.walk(tree)):
        return None
    found: set[str] = set()
    for name in _attributes(tree, first):
        if name in data.model_fields:
            found.add(name)
            continue
        getter = getattr(inspect.getattr_static(data, name, None), "fget", None)
        if getter is None or name in seen:
            continue
        found |= _reads(getter, data, seen | {name}) or frozenset()
    return frozenset(found)


def _tree(function: Callable[..., Any]) -> ast.AST | None:
    try:
        source = textwrap.dedent(inspect.getsource(function))
        tree = ast.parse(source)
    except (OSError, TypeError, SyntaxError):  # a lambda in the middle of a call is no module of its own
        return None
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Lambda)]
    return functions[0] if len(functions) == 1 else None


def _arguments(tree: ast.AST) -> list[str]:
    assert isinstance(tree, ast.FunctionDef | ast.Lambda)
    return [argument.arg for argument in (*tree.args.posonlyargs, *tree.args.args)]


def _attributes(tree: ast.AST, variable: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == variable:
            yield node.attr


def _is_handed_on(node: ast.AST, variable: str) -> bool:
    """Whether the whole data goes somewhere else, where we do not follow it."""
    if not isinstance(node, ast.Call):
        return False
    handed = [*node.args, *(keyword.value for keyword in node.keywords)]
    return any(isinstance(one, ast.Name) and one.id == variable for one in handed)
