"""A time, and a length of time, as people are told it, wherever one is told."""

from datetime import datetime, timedelta


def moment(at: datetime) -> str:
    """In their own zone, which is named, and to the second."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def duration(seconds: float) -> str:
    """How long something took: `0.042` -> `42 ms`, `75` -> `1 min 15 s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def span(length: timedelta) -> str:
    """How far away something is, or how long ago it was: `9 s`, `3 min`, `2 days`. Nothing is before now."""
    seconds = int(max(0.0, length.total_seconds()) + 0.5)
    if seconds < 120:
        return f"{seconds} s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    return f"{minutes} min" if minutes < 120 else f"{hours} h" if hours < 48 else f"{days} days"
