"""A message as it was delivered, and what its receiver may say about it."""

from dataclasses import dataclass, field
from typing import Protocol

import structlog
from nats.errors import Error as NatsError

from outbox.envelope import Envelope, Unreadable, decode

log = structlog.get_logger()


class Metadata(Protocol):
    """What the broker says about a delivery."""

    @property
    def num_delivered(self) -> int | None:
        """Which delivery of this message it is."""
        ...


class Message(Protocol):
    """A NATS message, as far as we need it. A simulation has others."""

    subject: str
    data: bytes

    @property
    def metadata(self) -> Metadata:
        """What the broker says about it."""
        ...

    async def ack(self) -> None:
        """It is done with."""
        ...

    async def nak(self, delay: float | None = None) -> None:
        """It should come again, after so many seconds."""
        ...

    async def in_progress(self) -> None:
        """It needs as much time again."""
        ...


@dataclass(slots=True)
class Delivery:
    """One message as it was delivered, with the events that it carries."""

    message: Message
    events: list[Envelope | Unreadable] = field(init=False)
    deliveries: int = field(init=False)

    def __post_init__(self) -> None:
        self.events = decode(self.message.data)
        self.deliveries = self.message.metadata.num_delivered or 1

    @property
    def subject(self) -> str:
        """The NATS subject that it came on."""
        return self.message.subject

    async def ack(self) -> None:
        """Tell the broker that it is done with. Lost acknowledgements are harmless: the inbox knows it."""
        try:
            await self.message.ack()
        except (NatsError, OSError) as error:
            log.debug("acknowledgement lost", reason=str(error))

    async def still_working(self) -> None:
        """Ask the broker for as much time again."""
        try:
            await self.message.in_progress()
        except (NatsError, OSError) as error:
            log.debug("could not ask for more time", reason=str(error))

    async def put_back(self, delay: float) -> None:
        """Ask the broker to deliver it again in `delay` seconds."""
        try:
            await self.message.nak(delay=delay)
        except (NatsError, OSError) as error:
            log.debug("could not put a message back; the broker will, after ack_wait", reason=str(error))
