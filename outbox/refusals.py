"""What NATS does not take from us, though it is there: a message that is too large, or that our user may not publish.

It stays in the outbox, and is tried again until somebody has changed something. That is told once: what is wrong with a
message, for each message; what is forbidden, for each subject, and once more when it is allowed again.
"""

import re
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from nats.errors import BadSubjectError, MaxPayloadError
from nats.errors import Error as NatsError
from nats.js.errors import BadRequestError

from outbox.envelope import Packet

log = structlog.get_logger()

MOST_REMEMBERED: Final = 1000
"""Messages that are not told of twice."""

LATELY: Final = 60.0
"""Seconds. What waits in the outbox is tried more often than that."""


class Forbidden(NatsError):
    """NATS does not let this user publish on a subject."""


REFUSALS: Final = (Forbidden, MaxPayloadError, BadSubjectError, BadRequestError)
"""What is wrong with one message, or is not allowed to us. NATS is there, and the next message may be taken."""


class Refusals:
    """Those of one connection, and what was told of them."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._heard: set[str] = set()  # subjects that NATS has named as forbidden, in lower case, as nats-py has it
        self._subjects: dict[str, float] = {}  # that were told of, and when they were refused last
        self._messages: dict[str, None] = {}  # ids of those that were told of, the oldest first

    @property
    def problems(self) -> list[str]:
        """What a person has to change, for `/readyz`. Another replica may have sent what was refused to us."""
        lately = self._monotonic() - LATELY
        which = ", ".join(sorted(subject for subject, at in self._subjects.items() if at >= lately))
        return [f"our NATS user may not publish on {which}: give it the permission"] if which else []

    def heed(self, error: Exception) -> None:
        """A subject that is forbidden is told of aside, and the publication gets no answer."""
        if found := re.search(r"permissions violation for publish to \"?([^\s\"]+)", str(error), re.IGNORECASE):
            self._heard.add(found[1].lower())

    def is_forbidden(self, subject: str) -> bool:
        """Whether that is why there was no answer."""
        return subject.lower() in self._heard

    def forget(self) -> None:
        """Of another connection NATS may think otherwise."""
        self._heard.clear()

    def note(self, packets: Sequence[Packet], answers: Sequence[BaseException | None]) -> None:
        """What has become of publications: None of those that were taken."""
        for packet, answer in zip(packets, answers, strict=True):
            if answer is None:
                self._is_taken(packet.subject)
            elif isinstance(answer, REFUSALS) and self._is_news(packet, answer):
                log.error(
                    "NATS does not take a message; it stays in the outbox and is tried again",
                    message_id=packet.message_id,
                    subject=packet.subject,
                    bytes=len(packet.body.encode()),
                    reason=str(answer),
                )

    def _is_taken(self, subject: str) -> None:
        self._heard.discard(subject.lower())
        if self._subjects.pop(subject, None) is not None:
            log.info("NATS takes messages on this subject again", subject=subject)

    def _is_news(self, packet: Packet, answer: BaseException) -> bool:
        if isinstance(answer, Forbidden):
            is_news = packet.subject not in self._subjects
            self._subjects[packet.subject] = self._monotonic()
            return is_news
        is_news = packet.message_id not in self._messages
        self._messages[packet.message_id] = None
        if len(self._messages) > MOST_REMEMBERED:
            del self._messages[next(iter(self._messages))]
        return is_news
