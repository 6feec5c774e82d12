"""A counterexample as a test that is ready to be pasted, in the language of the test kit. No I/O.

It speaks of the skeleton of the definition: the promise is the machine's, and the definition's functions play no part.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from orchestrator.definition import Saga
from orchestrator.explorer.moves import DONE, REFUSED_FOR_GOOD, Move, quoted, short
from orchestrator.explorer.search import Counterexample
from orchestrator.explorer.skeleton import NEVER, Choice
from orchestrator.explorer.world import Bounds

MODULES: Final = (
    ("datetime", ("timedelta",)),
    ("orchestrator.events", ("Answered",)),
    ("orchestrator.explorer", ("can_end", "skeleton")),
    ("orchestrator.machine", ("Terms", "replay")),
)
"""Where the names come from that are not the test kit's."""

KIT: Final = (
    "Happening", "admitted", "answered", "cancelled", "deadline", "given", "paused", "resolved", "resumed", "retried",
    "signal_refused", "signalled", "silence", "timer", "undo_requested",
)  # fmt: skip


def as_test(definition: Saga[Any], bounds: Bounds, found: Counterexample) -> str:
    """The source of a test that fails as long as the promise is broken, with its imports."""
    module, variable = _home(definition)
    body = "\n".join(f"    {line}" for line in _body(variable, bounds, found))
    sources = [*MODULES, ("orchestrator.testing", KIT), (module, (variable,))]
    lines = [
        f"from {source} import {', '.join(used)}"
        for source, names in sorted(sources)
        if (used := sorted(name for name in names if re.search(rf"\b{name}\b", body)))
    ]
    return "\n".join([*lines, "", "", f"def {_name(found)}() -> None:", body, ""])


def _home(definition: Saga[Any]) -> tuple[str, str]:
    """The module and the name by which a definition can be imported, if it has one."""
    written_in = [sys.modules.get(function.__module__) for spec in definition.steps.values() if (function := spec.do)]
    for module in (*written_in, *sys.modules.values()):
        for name, value in vars(module).copy().items() if module else ():
            if value is definition and module is not None:
                return module.__name__, name
    return "your.sagas", definition.name.replace("-", "_")


def _name(found: Counterexample) -> str:
    return "test_" + re.sub(r"\W+", "_", found.broken.promise.lower()).strip("_")


def _body(variable: str, bounds: Bounds, found: Counterexample) -> Iterator[str]:
    first, *others = found.moves
    chosen = dict.fromkeys([*(choice for move in found.moves for choice in move.chosen), *found.broken.supposing])
    shape = f"{variable}, attempts={bounds.attempts}" + (f", items={bounds.items}" if bounds.items != 2 else "")
    yield f"it = given(skeleton({shape})).{_begin(first, chosen, bounds)}"
    for move in others:
        yield from _LINES.get(move.kind, _when)(move)
    yield f"# {found.promise}"
    if found.broken.check:
        yield found.broken.check


def _begin(move: Move, chosen: Iterable[tuple[str, Choice]], bounds: Bounds) -> str:
    made = list(chosen)
    parts = ["Terms(waits=True)"] if move.kind == "accept" else []
    for name, kind in (("conditions", bool), ("items", int)):
        pairs = ", ".join(f"{quoted(step)}: {value}" for step, value in made if type(value) is kind)
        parts += [f"{name}={{{pairs}}}"] if pairs else []
    parts += [f"many={bounds.items}"] if bounds.items != 2 else []
    return f"{'started_on' if move.kind == 'accept' else 'started'}({', '.join(parts)})"


def _late(_move: Move) -> Iterator[str]:
    yield "it.after(timedelta(days=4000))  # the deadline passes, and nobody looks yet"


def _when(move: Move) -> Iterator[str]:
    yield f"it.when({_HAPPENINGS[move.kind](move)})"


def _old_timer(move: Move) -> Iterator[str]:
    yield f"it.after(timedelta(hours=1)).when(timer({quoted(move.name)}, {_attempt(move)} - 1))"


_LINES: Final[Mapping[str, Callable[[Move], Iterator[str]]]] = MappingProxyType(
    {"late": _late, "old-timer": _old_timer}
)


def _attempt(move: Move) -> str:
    return f"it.saga.steps[{quoted(move.name)}].attempt"


def _reply(move: Move) -> str:
    command = quoted(short(move.name))
    if move.outcome == DONE:
        return f"answered({command})"
    code = f", code={quoted(NEVER)}" if move.outcome == REFUSED_FOR_GOOD else ""
    return f'answered({command}, "refused"{code})'


def _foreign_reply(move: Move) -> str:
    return f'Happening("a foreign reply", lambda _: Answered({quoted(f"another/{short(move.name)}")}, "done"))'


def _signal(move: Move) -> str:
    return f"{'signalled' if move.outcome == DONE else 'signal_refused'}({quoted(move.name)})"


_HAPPENINGS: Final[Mapping[str, Callable[[Move], str]]] = MappingProxyType(
    {
        "reply": _reply,
        "foreign-reply": _foreign_reply,
        "timer": lambda move: f"silence({quoted(move.name)})",
        "early-timer": lambda move: f"timer({quoted(move.name)}, {_attempt(move)})",
        "signal": _signal,
        "deadline": lambda _move: "deadline()",
        "admit": lambda _move: "admitted()",
        "undo-all": lambda _move: "undo_requested()",
        "cancel": lambda _move: "cancelled()",
        "cancel-for-sure": lambda _move: "cancelled(pivot_did_not_happen=True)",
        "pause": lambda _move: "paused()",
        "resume": lambda _move: "resumed()",
        "retry": lambda _move: "retried()",
        "done-by-hand": lambda move: f"resolved({quoted(move.name)})",
        "undone-by-hand": lambda move: f"resolved({quoted(move.name)})",
    }
)
"""How each event is written down."""
