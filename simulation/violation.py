"""A broken promise, as a schedule tells of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """Which promise, and how it is broken."""

    check: str
    message: str
