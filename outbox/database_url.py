"""How the URL of a database is written, and what is wrong with one that is written otherwise. No I/O."""

from typing import Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

DRIVERS: Final = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
FORMS: Final = "write sqlite:///path/to/file.db or postgresql://user:password@host/database"
KNOWN: Final = frozenset({"host", "port", "ssl", "target_session_attrs"})
"""What may follow a `?`. `sslmode`, as libpq calls it, is `ssl` to asyncpg."""


def read_url(text: str) -> URL:
    """A URL with the driver that we use. Raises ValueError: what is wrong, without the text, which holds a password."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError(f"it is not a database URL: {FORMS}") from None
    backend = url.get_backend_name()
    if backend not in DRIVERS:
        raise ValueError(f"{backend!r} is no database that is known here: {FORMS}")
    if "@" in f"{url.host}{url.database}":
        raise ValueError("a password with @, / or : in it is written with %40, %2F and %3A")
    return (_sqlite if backend == "sqlite" else _postgresql)(url.set(drivername=DRIVERS[backend]))


def _sqlite(url: URL) -> URL:
    if url.host is not None:
        raise ValueError(f"an SQLite URL has three slashes, and four before an absolute path: sqlite:///{url.host}")
    return url


def _postgresql(url: URL) -> URL:
    query = dict(url.query)
    if (mode := query.pop("sslmode", None)) is not None:
        query.setdefault("ssl", mode)
    if unknown := sorted(query.keys() - KNOWN):
        raise ValueError(
            f"nothing is known of {unknown[0]!r} behind its ?: there is sslmode, {', '.join(sorted(KNOWN))}"
        )
    return url.set(query=query)
