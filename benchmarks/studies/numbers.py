"""Figures as a reader wants them: as many digits as are significant, and no more."""


def rate(value: float) -> str:
    """Something per second, or milliseconds: `1,234`, `56.7`, `3.21`."""
    places = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{places}f}"


def count(value: int) -> str:
    """A whole number."""
    return f"{value:,}"


def ratio(value: float) -> str:
    """One rate as a part or a multiple of another: `0.78`, `34`."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 2 else f"{value:.2f}"


def size(value: int) -> str:
    """Bytes of a payload."""
    return f"{value // 1024:,} KiB"


def time(seconds: float) -> str:
    """How long a study took: `8 min`, `40 s`."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
