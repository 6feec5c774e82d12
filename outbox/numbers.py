"""A number as people are told it, wherever one is told."""


def counted(number: int, noun: str) -> str:
    """`1 saga`, `1,500 sagas`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
