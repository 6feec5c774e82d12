"""The registration of handlers: which function carries out which command, and which rows it needs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import MetaData

from outbox.contracts import Command, Reply
from outbox.tables import MessagingTables, messaging_tables
from participants.runtime.work import Key, Work

C = TypeVar("C", bound=Command[Any])
R = TypeVar("R", bound=Reply)


@dataclass(frozen=True, slots=True)
class Handler:
    """How one type of command is carried out.

    `needs` names the rows that can be told from the command alone. `then_needs`, if there is one, sees those rows and
    names more: a reservation tells which articles it holds.
    """

    command: type[Command[Any]]
    needs: Callable[[Any], Iterable[Key]]
    then_needs: Callable[[Any, Work], Iterable[Key]] | None
    handle: Callable[[Any, Work], Reply]


class Participant:
    """One service: its name, its tables, and what it can do."""

    def __init__(self, name: str, metadata: MetaData) -> None:
        self.name = name
        self.metadata = metadata
        self.messaging: MessagingTables = messaging_tables(metadata)
        self.handlers: dict[str, Handler] = {}

    def handles(
        self,
        command: type[Command[R]],
        *,
        needs: Callable[[Any], Iterable[Key]],
        then_needs: Callable[[Any, Work], Iterable[Key]] | None = None,
    ) -> Callable[[Callable[[C, Work], R]], Callable[[C, Work], R]]:
        """Register a handler. It returns the reply, or raises `Refused`.

        An undo is called only when the command that it undoes was carried out: the runtime answers for an undo that
        comes first, or whose command was refused.
        """
        if command.participant != self.name:
            raise ValueError(f"{command.__name__} is for {command.participant}, not for {self.name}")
        if command.type in self.handlers:
            raise ValueError(f"{command.__name__} has two handlers")

        def register(handle: Callable[[C, Work], R]) -> Callable[[C, Work], R]:
            self.handlers[command.type] = Handler(command, needs, then_needs, handle)
            return handle

        return register
