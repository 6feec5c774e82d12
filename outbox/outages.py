"""What is out of reach, or locked by somebody: said once when it begins and once when it is over, however many notice.

A role has a dozen loops over one database and one broker. An outage of either is one event to whoever is on call, so
the loops report to one place. It has begun when the first of them fails, and is over when all that failed work again:
one that still fails would else begin it anew at its next try.
"""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

import structlog

from outbox.errors import BrokerOutOfReach, DatabaseBusy

log = structlog.get_logger()


CONNECTION: Final = "the connection"
"""Who notices that the connection over which messages leave is lost."""


class Resource(StrEnum):
    """What a role cannot work without."""

    NATS = "NATS"
    DATABASE = "the database"
    TABLES = "the tables of the database"

    @property
    def trouble(self) -> str:
        """What is wrong with it, as the predicate of a sentence."""
        return _WORDS[self].trouble

    @classmethod
    def of(cls, error: Exception) -> "Resource":
        """Which one is lacking."""
        if isinstance(error, BrokerOutOfReach):
            return cls.NATS
        return cls.TABLES if isinstance(error, DatabaseBusy) else cls.DATABASE


class Words(NamedTuple):
    """How to speak of a resource: what is wrong with it, until when we try, and what it is after that."""

    trouble: str
    until: str
    relief: str


_OUT_OF_REACH: Final = Words("is out of reach", "it is back", "is back")
_WORDS: Final = {
    Resource.NATS: _OUT_OF_REACH,
    Resource.DATABASE: _OUT_OF_REACH,
    Resource.TABLES: Words("are locked by somebody", "they are free", "are free again"),
}


@dataclass(slots=True)
class Outage:
    """One resource that is out of reach: why, since when, and who has noticed."""

    reason: str
    since: datetime
    began: float
    noticed_by: set[str] = field(default_factory=set)


class Outages:
    """The outages of one role in this process."""

    def __init__(self) -> None:
        self.current: dict[Resource, Outage] = {}

    def begins(self, resource: Resource, noticed_by: str, reason: str) -> None:
        """Somebody cannot work without it."""
        if resource not in self.current:
            log.warning(f"{resource} {resource.trouble}; trying again until {_WORDS[resource].until}", reason=reason)
            self.current[resource] = Outage(reason, datetime.now(UTC), time.monotonic())
        self.current[resource].noticed_by.add(noticed_by)

    def notice(self, error: Exception, noticed_by: str) -> None:
        """The same, by an error."""
        resource = Resource.of(error)
        self.begins(resource, noticed_by, str(error))
        if resource is Resource.DATABASE:  # in a failover it closes connections first, and then takes no writes
            self.current[resource].reason = str(error)

    def are_noticed_by(self, *names: str) -> bool:
        """Whether one of these cannot reach what it needs."""
        return any(outage.noticed_by.intersection(names) for outage in self.current.values())

    def ends(self, noticed_by: str) -> None:
        """Somebody works again."""
        for resource, outage in list(self.current.items()):
            outage.noticed_by.discard(noticed_by)
            if not outage.noticed_by:
                del self.current[resource]
                log.info(f"{resource} {_WORDS[resource].relief}", after=f"{time.monotonic() - outage.began:.1f} s")


_OF_A_COMMAND: Final = Outages()
_ours: ContextVar[Outages] = ContextVar("outages", default=_OF_A_COMMAND)


def outages() -> Outages:
    """Those of the role that this task works for."""
    return _ours.get()


def report_to(place: Outages) -> None:
    """Let this task, and those that it starts, report here."""
    _ours.set(place)
