"""What drivers say of a database, as sentences: it is out of reach, it takes no writes, somebody locks it, tables lack.

Whatever is none of these is a bug, of ours or of a handler's, and goes on as it is.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import asyncpg
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError

from outbox.errors import DatabaseBusy, DatabaseOutOfReach, SchemaMissing
from outbox.reasons import first_line

BUSY: Final = (
    asyncpg.exceptions.LockNotAvailableError,
    asyncpg.exceptions.DeadlockDetectedError,
    asyncpg.exceptions.SerializationError,
)
"""What PostgreSQL says when others hold what a statement needs. The same statement is taken later."""


class _NotOursError(Exception):
    """Carries an error of the caller's block past the translation: a handler's TimeoutError is no outage."""


@contextmanager
def not_ours() -> Iterator[None]:
    """What the block raises by itself is not the database's."""
    try:
        yield
    except (OSError, TimeoutError) as error:
        raise _NotOursError from error


class Translated:
    """Turns a driver's "I cannot reach it", "it is locked" and "no such table" into sentences."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None:
            return
        if isinstance(error, _NotOursError) and error.__cause__ is not None:
            raise error.__cause__
        if (said := _sentence(self._url, error)) is not None:
            raise said from error


def _sentence(url: str, error: BaseException) -> Exception | None:
    """What the database lacks. None when the error is not about that."""
    if _is_schema_missing(error):
        return SchemaMissing(
            f"the database {url} does not hold the tables of this release: run `saga db upgrade`, "
            "and `saga db check` if that finds nothing to do"
        )
    if isinstance(_cause(error), BUSY):
        return DatabaseBusy(
            f"somebody locks what we need of the database {url} ({_first_line(error)})",
            "see who it is with `SELECT pid, pg_blocking_pids(pid), query FROM pg_stat_activity`",
        )
    if is_read_only(error):
        return DatabaseOutOfReach(
            f"the database {url} is out of reach (it takes no writes: it is read-only)",
            "see whether it is a standby, its disk is full, or its file may not be written",
        )
    if _is_out_of_reach(error):
        return DatabaseOutOfReach(
            f"the database {url} is out of reach ({_first_line(error)})",
            "see whether its file may be read and written, and who else has it open"
            if isinstance(_cause(error), sqlite3.Error)
            else "check that it is running and that the URL is right (`saga config show`)",
        )
    return None


def _is_schema_missing(error: BaseException) -> bool:
    cause = _cause(error)
    if isinstance(cause, asyncpg.UndefinedTableError | asyncpg.UndefinedColumnError):
        return True
    said = ("no such table", "no such column", "has no column named")
    return isinstance(cause, sqlite3.OperationalError) and any(words in str(cause) for words in said)


def is_read_only(error: BaseException) -> bool:
    """Whether a write was refused because this connection may only read."""
    cause = _cause(error)
    is_sqlite = isinstance(cause, sqlite3.OperationalError) and "readonly database" in str(cause)
    return is_sqlite or isinstance(cause, asyncpg.exceptions.ReadOnlySQLTransactionError)


def _is_out_of_reach(error: BaseException) -> bool:
    if isinstance(error, OperationalError | InterfaceError) or type(error) is DatabaseError:
        return True  # the last one: an SQLite file that is none
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(
        _cause(error),
        OSError
        | asyncpg.PostgresConnectionError
        | asyncpg.InterfaceError
        | asyncpg.exceptions.InvalidAuthorizationSpecificationError
        | asyncpg.exceptions.InvalidCatalogNameError
        | asyncpg.exceptions.OperatorInterventionError
        | asyncpg.exceptions.InsufficientResourcesError,
    )


def _first_line(error: BaseException) -> str:
    cause = _cause(error)
    return first_line(str(cause)) or type(cause).__name__


def _cause(error: BaseException) -> BaseException:
    """What the driver itself has raised: SQLAlchemy wraps asyncpg's errors twice."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error
