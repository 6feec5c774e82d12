"""Streams and consumers: declared here, checked for drift, and put back when they are gone.

We own them because a courier's furniture must not decide what is delivered: an existing durable silently keeps
its old settings in nats-py, and a stream that somebody deleted is created again (promise 2).
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import structlog
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from outbox.errors import BrokerOutOfReach

log = structlog.get_logger()

COMMANDS: Final = "SAGA_COMMANDS"
REPLIES: Final = "SAGA_REPLIES"
EVENTS: Final = "SAGA_EVENTS"

SUBJECTS: Final = {COMMANDS: "saga.cmd.>", REPLIES: "saga.reply.>", EVENTS: "saga.event.>"}

DRIFTING: Final = (
    "subjects",
    "max_age",
    "max_msgs",
    "max_bytes",
    "max_msgs_per_subject",
    "duplicate_window",
    "num_replicas",
)
"""Settings of a stream that we put back when somebody has changed them."""

KEPT_FOR: Final = timedelta(days=3)
"""How long the broker keeps messages. The inbox remembers longer than that, or a replay would apply twice."""

ACK_WAIT: Final = timedelta(seconds=30)
"""After this long without an acknowledgement the broker delivers a message again."""

AGREED: Final = 1.0
"""Seconds after which a cluster knows what its streams hold, also when their leader has changed."""


@dataclass(frozen=True, slots=True)
class Inlet:
    """A durable pull consumer: which messages of which stream come to which role."""

    stream: str
    durable: str
    subject: str
    ack_wait: timedelta = ACK_WAIT

    def config(self) -> ConsumerConfig:
        """Explicit acknowledgement, and no limit to deliveries: we give up before the broker does.

        Nor to what is not acknowledged: what waits for another replica is that too, and would stop all others
        (docs/adr/0028).
        """
        return ConsumerConfig(
            durable_name=self.durable,
            filter_subject=self.subject,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self.ack_wait.total_seconds(),
            max_deliver=-1,
            max_ack_pending=-1,
        )


def command_inlet(participant: str, ack_wait: timedelta = ACK_WAIT) -> Inlet:
    """The commands of one participant."""
    return Inlet(COMMANDS, participant, f"saga.cmd.{participant}.>", ack_wait)


def reply_inlet(ack_wait: timedelta = ACK_WAIT) -> Inlet:
    """The replies of all participants, shared by the replicas of the orchestrator."""
    return Inlet(REPLIES, "orchestrator", "saga.reply.>", ack_wait)


def stream_of(subject: str) -> str:
    """The stream that takes what is published on a subject."""
    taking = (name for name, pattern in SUBJECTS.items() if subject.startswith(pattern.removesuffix(">")))
    return next(taking, EVENTS)


class Topology:
    """The streams, and the consumers of one role, as they should be."""

    def __init__(self, *inlets: Inlet, replicas: int = 1) -> None:
        self._inlets = inlets
        self._replicas = replicas
        self._last: dict[str, int] = {}
        """Stream -> the number of its last message, when we looked."""

    async def ensure(self, stream: JetStreamContext) -> list[str]:
        """Create what is missing and correct what has drifted. Returns what was done, in words."""
        try:
            done = [line for name in SUBJECTS for line in await self._ensure_stream(stream, name)]
            return done + [line for inlet in self._inlets for line in await self._ensure_consumer(stream, inlet)]
        except (NatsError, TimeoutError, OSError) as error:
            raise BrokerOutOfReach(f"JetStream does not answer ({_words(error)})") from error

    @staticmethod
    async def state_of(stream: JetStreamContext, name: str) -> tuple[str, int] | None:
        """When a stream was made, and how many messages it ever took; None without one. Raises BrokerOutOfReach."""
        try:
            found = await stream.stream_info(name)
        except NotFoundError:
            return None
        except (NatsError, TimeoutError, OSError) as error:
            raise BrokerOutOfReach(f"JetStream does not answer ({_words(error)})") from error
        return str(found.created), found.state.last_seq

    @staticmethod
    async def delete(stream: JetStreamContext, name: str) -> None:
        """Delete a stream, with all that it holds. Raises BrokerOutOfReach."""
        try:
            await stream.delete_stream(name)
        except NotFoundError:
            return
        except (NatsError, TimeoutError, OSError) as error:
            raise BrokerOutOfReach(f"JetStream does not answer ({_words(error)})") from error

    async def _ensure_stream(self, stream: JetStreamContext, name: str) -> list[str]:
        wanted = StreamConfig(
            name=name,
            subjects=[SUBJECTS[name]],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            max_age=KEPT_FOR.total_seconds(),
            max_msgs=-1,  # bounded by age alone: a limit on their number would drop messages in silence
            max_bytes=-1,
            max_msgs_per_subject=-1,
            duplicate_window=120.0,
            num_replicas=self._replicas,
        )
        try:
            info = await stream.stream_info(name)
        except NotFoundError:
            await stream.add_stream(wanted)
            return [f"created stream {name}"]
        found, self._last[name] = info.config, info.state.last_seq
        drifted = [field for field in DRIFTING if getattr(found, field) != getattr(wanted, field)]
        if (found.num_replicas or 1) > self._replicas:  # whoever knows less of the cluster takes no copy away
            drifted.remove("num_replicas")
        if not drifted:
            return []
        await stream.update_stream(replace(found, **{field: getattr(wanted, field) for field in drifted}))
        return [f"corrected {', '.join(drifted)} of stream {name}"]

    async def _ensure_consumer(self, stream: JetStreamContext, inlet: Inlet) -> list[str]:
        wanted = inlet.config()
        try:
            info = await stream.consumer_info(inlet.stream, inlet.durable)
        except NotFoundError:
            await stream.add_consumer(inlet.stream, wanted)
            return [f"created consumer {inlet.durable} of {inlet.stream}"]
        if await self._is_ahead(stream, inlet, info):
            with suppress(NotFoundError):  # another replica has seen it as well
                await stream.delete_consumer(inlet.stream, inlet.durable)
            await stream.add_consumer(inlet.stream, wanted)
            return [f"made consumer {inlet.durable} of {inlet.stream} anew, which was ahead of its stream"]
        found = info.config
        fields = ("filter_subject", "ack_wait", "max_deliver", "max_ack_pending")
        drifted = [field for field in fields if getattr(found, field) != getattr(wanted, field)]
        if not drifted:
            return []
        await stream.add_consumer(inlet.stream, wanted)
        return [f"corrected {', '.join(drifted)} of consumer {inlet.durable}"]

    async def _is_ahead(self, stream: JetStreamContext, inlet: Inlet, info: ConsumerInfo) -> bool:
        """Whether it waits for what comes after a message that its stream has never had: it would pass over all others.

        A server whose files were deleted, or put back, has been seen to give a new stream the consumer of an old one.
        """
        reached = _reached(info)
        if reached <= self._last.get(inlet.stream, 0):
            return False
        for pause in (0.0, AGREED):  # what came since we looked; and a cluster may be about to agree
            await asyncio.sleep(pause)
            if reached <= (await stream.stream_info(inlet.stream)).state.last_seq:
                return False
        return _reached(await stream.consumer_info(inlet.stream, inlet.durable)) == reached


def _reached(info: ConsumerInfo) -> int:
    """The number, in its stream, of the last message that a consumer has given out."""
    return info.delivered.stream_seq if info.delivered is not None else 0


async def is_fetching(stream: JetStreamContext, inlet: Inlet, replicas: int = 1) -> bool:
    """Whether somebody, or so many, are waiting for messages at this consumer right now."""
    try:
        return ((await stream.consumer_info(inlet.stream, inlet.durable)).num_waiting or 0) >= replicas
    except NotFoundError:
        return False


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
