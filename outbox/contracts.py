"""The base of every published language: commands, their replies, and domain events. Pydantic only.

A participant's `contracts.py` subclasses these. A command type names the participant that carries it out
and the type of its reply, so that a saga definition can be checked by mypy:

    class StockReserved(Reply): ...
    class ReserveStock(Command[StockReserved], participant="inventory"): ...

`ReserveStock.type` is then `"inventory.reserve-stock"`, and `ReserveStock.reply` is `StockReserved`.
"""

import re
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict


def kebab_case(name: str) -> str:
    """`ReserveStock` or `reserve_stock` -> `reserve-stock`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).replace("_", "-").lower()


class Message(BaseModel):
    """Whatever travels as the data of an envelope: immutable, and tolerant of fields it does not know."""

    model_config = ConfigDict(frozen=True)

    type: ClassVar[str]


class Reply(Message):
    """The answer *done* to a command. A business "no" is not a reply type: see `Refused`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.type = kebab_case(cls.__name__)


R = TypeVar("R", bound=Reply)


class Command(Message, Generic[R]):
    """An instruction to one participant, answered by exactly one type of reply."""

    participant: ClassVar[str]
    reply: ClassVar[type[Reply]]

    def __init_subclass__(cls, *, participant: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if participant is None:
            return  # Command[Something], on the way to a real command type
        cls.participant = participant
        cls.type = f"{participant}.{kebab_case(cls.__name__)}"
        cls.reply = _reply_type(cls)

    @classmethod
    def subject(cls) -> str:
        """The NATS subject that carries this command: `saga.cmd.<participant>.<command>`."""
        return f"saga.cmd.{cls.type}"


class Event(Message):
    """A domain event: something that happened in a participant, told to whom it may concern.

    Its name on the wire is given with the class: `class OrderCreated(Event, type="order.created")`.
    """

    def __init_subclass__(cls, *, type: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.type = type

    @classmethod
    def subject(cls) -> str:
        """The NATS subject that carries this event: `saga.event.<type>`."""
        return f"saga.event.{cls.type}"


class Refused(Exception):
    """A participant's business answer "no". It leaves nothing behind, and it is remembered.

    `code` is for programs (`out-of-stock`), `reason` is a sentence for people.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def _reply_type(command: type[Command[Any]]) -> type[Reply]:
    for base in command.__mro__:
        arguments = base.__dict__.get("__pydantic_generic_metadata__", {}).get("args", ())
        for argument in arguments:
            if isinstance(argument, type) and issubclass(argument, Reply):
                return argument
    raise TypeError(f"{command.__name__} does not name its reply: subclass Command[SomeReply]")
