"""Time, as something that a test can own."""

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time. Every deadline and every timestamp comes from one of these."""

    def now(self) -> datetime:
        """The current time, with the time zone UTC."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """The current time, with the time zone UTC."""
        return datetime.now(UTC)
