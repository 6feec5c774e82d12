"""The definitions that this process has: several versions of one saga side by side. No I/O.

A new saga begins on the highest version of its definition and stays on the one it began with, which its fingerprint
names.
"""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from orchestrator.definition import InvalidDefinition, Saga


class Definitions(Mapping[str, Saga[Any]]):
    """By name: the newest version of each saga. By fingerprint: every one.

    Child sagas are here too, whether they were named or not. Raises InvalidDefinition when two definitions have the
    same name and version, and are not the same.
    """

    def __init__(self, sagas: Iterable[Saga[Any]]) -> None:
        self.by_fingerprint: dict[str, Saga[Any]] = {}
        self._newest: dict[str, Saga[Any]] = {}
        versions: dict[tuple[str, int], Saga[Any]] = {}
        for saga in _with_children(sagas):
            twin = versions.setdefault((saga.name, saga.version), saga)
            if twin is not saga:
                raise InvalidDefinition(
                    f"saga {saga.name}: there are two definitions of version {saga.version}; give one of them another"
                )
            self.by_fingerprint[saga.fingerprint] = saga
            newest = self._newest.get(saga.name)
            if newest is None or newest.version < saga.version:
                self._newest[saga.name] = saga

    def __getitem__(self, name: str) -> Saga[Any]:
        return self._newest[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._newest)

    def __len__(self) -> int:
        return len(self._newest)

    @property
    def every(self) -> list[Saga[Any]]:
        """Every version of every saga, by name, the newest first."""
        return sorted(self.by_fingerprint.values(), key=lambda saga: (saga.name, -saga.version))

    @classmethod
    def of_modules(cls, modules: Iterable[str]) -> "Definitions":
        """All sagas that stand at the top level of these modules. Raises InvalidDefinition when one cannot be imported,
        or has none.
        """
        found: dict[int, Saga[Any]] = {}
        for name in modules:
            try:
                module = importlib.import_module(name)
            except InvalidDefinition:
                raise
            except Exception as error:  # whatever a module does when it is imported
                raise InvalidDefinition(
                    f"the module {name} cannot be imported: {type(error).__name__}: {error}"
                ) from error
            sagas = [value for value in vars(module).values() if isinstance(value, Saga)]
            if not sagas:
                raise InvalidDefinition(f"the module {name} has no saga at its top level")
            found |= {id(saga): saga for saga in sagas}
        return cls(found.values())


def _with_children(sagas: Iterable[Saga[Any]]) -> list[Saga[Any]]:
    found: dict[int, Saga[Any]] = {}
    todo = list(sagas)
    while todo:
        saga = todo.pop(0)
        if id(saga) not in found:
            found[id(saga)] = saga
            todo.extend(spec.child for spec in saga.steps.values() if spec.child is not None)
    return list(found.values())
