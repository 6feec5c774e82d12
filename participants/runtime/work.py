"""What a handler sees. Handlers are pure functions over rows that were read, and locked, for them.

A handler names the rows that it needs, gets immutable entities, and puts changed copies back. What it puts lands in an
overlay: when the handler refuses, or raises, the overlay is dropped and nothing of it is left, while its neighbours in
the batch go on (rule 9) without a savepoint each. Because the runtime knows the keys of a whole batch it reads
them with one query per table, locks them in key order (so replicas cannot deadlock), and writes with one
statement per table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

from sqlalchemy import Table

from outbox.contracts import Event


class Entity(Protocol):
    """A frozen dataclass whose fields are the columns of `table`, one of them its primary key, a string."""

    table: ClassVar[Table]


E = TypeVar("E", bound=Entity)


class Key(NamedTuple):
    """Which row of which kind."""

    kind: type[Any]
    value: str


@dataclass(slots=True)
class Work:
    """The work of one command: its rows, its changes, its domain events."""

    rows: Mapping[Key, Any]
    """What the batch knows: entities, or None for a key that has no row."""

    changes: dict[Key, Any] = field(default_factory=dict)
    additions: list[Any] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def get(self, kind: type[E], key: str) -> E | None:
        """The row, or None when there is none. Raises LookupError for a row that the handler did not ask for."""
        wanted = Key(kind, key)
        if wanted in self.changes:
            found: E = self.changes[wanted]
            return found
        if wanted not in self.rows:
            raise LookupError(f"{kind.__name__} {key!r} was not read: name it in the handler's `needs`")
        known: E | None = self.rows[wanted]
        return known

    def put(self, entity: Entity) -> None:
        """Insert or change a row that the handler asked for."""
        key = key_of(entity)
        if key not in self.rows:
            raise LookupError(f"{key.kind.__name__} {key.value!r} was not read: name it in the handler's `needs`")
        self.changes[key] = entity

    def add(self, entity: Entity) -> None:
        """Insert a row whose key is new because the command's own id is in it: nothing needs to be read for it."""
        self.additions.append(entity)

    def publish(self, event: Event) -> None:
        """Tell the world, if and when this work is committed."""
        self.events.append(event)


def key_of(entity: Entity) -> Key:
    """The key of a row."""
    return Key(type(entity), getattr(entity, entity.table.primary_key.columns[0].name))
