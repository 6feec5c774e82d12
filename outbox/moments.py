"""A time as people are told it, wherever one is told."""

from datetime import datetime


def moment(at: datetime) -> str:
    """In their own zone, which is named, and to the second."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
