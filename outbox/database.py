"""One database, SQLite or PostgreSQL, behind one small door: `transaction()` and `reading()`.

What differs between the two lives here and nowhere else:

- SQLite has one writer. Transactions begin IMMEDIATE (a deferred one that reads first and writes later fails
  at once, whatever the timeout), and writers of one process queue on a lock rather than on the file.
- PostgreSQL locks rows. `any_of` and `among` send one array, so that the statement is parsed once, whatever the batch
  size. What is executed all the time is built once, with `among`: SQLAlchemy takes as long to build a statement anew,
  and to find out that it knows it, as to execute it.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, nullcontext, suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Protocol

import orjson
from sqlalchemy import (
    JSON,
    BigInteger,
    BindParameter,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    Integer,
    Table,
    Text,
    TypeDecorator,
    any_,
    bindparam,
    column,
    event,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.types import TypeEngine

from outbox.database_errors import Translated, is_read_only, not_ours
from outbox.database_url import read_url

BigId = BigInteger().with_variant(Integer(), "sqlite")
"""An automatic 64-bit id on both databases (SQLite counts only on INTEGER)."""

Document = JSON
"""JSON as it was written. (PostgreSQL's JSONB would lose the order of the keys, and nobody searches in it.)"""


SERVER_SETTINGS: Final = {
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "5s",
    "plan_cache_mode": "force_custom_plan",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
"""PostgreSQL takes the locks back from a replica that is frozen or cut off, and nobody waits long for one. A statement
is planned each time, for as many rows as it is given: one that was made while a table was empty reads all of it later.
"""


UNANSWERED: Final = 15
"""Seconds after which a connection is given up whose packets nobody acknowledges: the network is cut, or the server's
machine is gone. The kernel by itself would go on for a quarter of an hour.
"""


class UtcDateTime(TypeDecorator[datetime]):
    """A moment with the time zone UTC; SQLite, which has no time zones, stores it without."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """UTC on the way in."""
        if value is None:
            return None
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """UTC on the way out."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Money(TypeDecorator[Decimal]):
    """An exact decimal with up to four places, stored as an integer of 1/10,000 so that SQL can sum it."""

    impl = BigInteger
    cache_ok = True
    places = 4

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        """Refuses what it would have to round."""
        if value is None:
            return None
        scaled = value.scaleb(self.places)
        if scaled != scaled.to_integral_value():
            raise ValueError(f"{value} has more than {self.places} decimal places")
        return int(scaled)

    def process_result_value(self, value: int | None, dialect: Dialect) -> Decimal | None:
        """The same decimal, without trailing zeros past the second place."""
        if value is None:
            return None
        amount = Decimal(value).scaleb(-self.places)
        cents = amount.quantize(Decimal("0.01"))
        return cents if cents == amount else amount


class _JsonList(TypeDecorator[Any]):
    """Any number of values as one text, for SQLite."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        """JSON on the way in."""
        return orjson.dumps(value).decode()


class Server(Protocol):
    """Stands in for a database server. A simulation has one: it speaks SQLite's SQL, and keeps writers apart itself."""

    def engine(self, **options: Any) -> AsyncEngine:
        """What executes statements there, with the options of SQLAlchemy."""
        ...


class Database:
    """The one door to a service's own database. Raises ValueError on a URL that `outbox.database_url` cannot read."""

    def __init__(self, url: str, *, pool_size: int = 5, server: "Server | None" = None) -> None:
        self.url = read_url(url)
        self.dialect = self.url.get_backend_name()
        self._name = self.url.set(drivername=self.dialect).render_as_string(hide_password=True)
        options: dict[str, Any] = {}
        if self.dialect == "postgresql":
            options = {"pool_size": pool_size, "connect_args": {"server_settings": SERVER_SETTINGS}}
        options |= {
            "json_serializer": lambda value: orjson.dumps(value).decode(),
            "json_deserializer": orjson.loads,
            "hide_parameters": True,  # an error in a log should not show whose payment it was
        }
        self._writer = asyncio.Lock() if self.dialect == "sqlite" and server is None else nullcontext()
        if server is not None:
            self.engine = server.engine(**options)
            return
        self.engine = create_async_engine(self.url, **options)
        event.listen(self.engine.sync_engine, "handle_error", _let_go_of_what_is_read_only)
        if self.dialect == "postgresql":
            event.listen(self.engine.sync_engine, "connect", _prepare_postgresql)
        else:
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)
            event.listen(self.engine.sync_engine, "invalidate", _let_go_of_sqlite)

    def __str__(self) -> str:
        return self._name

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """All or nothing: commits when the block ends well, rolls back when it does not."""
        async with self._writer:
            with self._translated():
                async with self.engine.begin() as connection:
                    with not_ours():
                        yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """One consistent look that blocks nobody, at whatever is asked in the block."""
        async with self._connection({"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}) as connection:
            yield connection

    @asynccontextmanager
    async def glancing(self) -> AsyncIterator[AsyncConnection]:
        """The same for a single question, which is consistent by itself: no transaction is begun and ended for it."""
        async with self._connection({"isolation_level": "AUTOCOMMIT"}) as connection:
            yield connection

    @asynccontextmanager
    async def _connection(self, for_postgresql: dict[str, Any]) -> AsyncIterator[AsyncConnection]:
        with self._translated():
            async with self.engine.connect() as connection:
                options = for_postgresql if self.dialect == "postgresql" else {"saga_reading": True}
                await connection.execution_options(**options)
                yield connection

    async def close(self) -> None:
        """Close every connection of the pool."""
        await self.engine.dispose()

    def any_of(self, column: Column[Any] | ColumnElement[Any], values: Iterable[Any]) -> ColumnElement[bool]:
        """`column IN (values)` as one parameter: the statement is the same for every number of values."""
        given = bindparam(None, list(values), type_=_many(self.dialect, column), unique=True)
        return _in(self.dialect, column, given)

    def insert_new(self, table: Table) -> Any:
        """`INSERT` that passes over the rows whose key is already there."""
        if self.dialect == "postgresql":
            return postgresql.insert(table).on_conflict_do_nothing()
        return sqlite.insert(table).on_conflict_do_nothing()

    def _translated(self) -> Translated:
        return Translated(str(self))


def among(dialect: str, column: Column[Any] | ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """`any_of` for a statement that is built once: it is given the list of values by this name when it is sent."""
    return _in(dialect, column, bindparam(name, type_=_many(dialect, column)))


def each(dialect: str, name: str) -> ColumnElement[str]:
    """The values of a list of texts that a statement is given by this name, as a column to select from."""
    if dialect == "postgresql":
        texts = func.unnest(bindparam(name, type_=postgresql.ARRAY(Text())))
        given = texts.table_valued(column("value", Text()), name="given").render_derived()
    else:
        texts = func.json_each(bindparam(name, type_=_JsonList()))
        given = texts.table_valued(column("value", Text()), name="given")
    value: ColumnElement[str] = given.c.value
    return value


def _many(dialect: str, column: Column[Any] | ColumnElement[Any]) -> TypeEngine[Any]:
    return postgresql.ARRAY(column.type) if dialect == "postgresql" else _JsonList()


def _in(dialect: str, column: Column[Any] | ColumnElement[Any], values: BindParameter[Any]) -> ColumnElement[bool]:
    if dialect == "postgresql":
        return column == any_(values)
    return column.in_(select(func.json_each(values).table_valued("value").c.value))


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    """The connection notices by itself that nobody is there any more, within `UNANSWERED` seconds."""
    line = connection.driver_connection._transport.get_extra_info("socket")
    if line.family == socket.AF_UNIX:
        return
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wanted = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": 1000 * UNANSWERED}
    for name, value in wanted.items():
        if hasattr(socket, name):  # Linux has all of them
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _let_go_of_what_is_read_only(context: ExceptionContext) -> None:
    """After a failover connections may still lead to what is a standby now. A session that began as read-only stays so,
    whatever the server becomes, and one of SQLite whatever its file becomes: all that the pool holds are closed, and
    new ones made until one can write.
    """
    if context.sqlalchemy_exception is not None and is_read_only(context.sqlalchemy_exception):
        context.is_disconnect = True


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's "begin" event says when, not the driver
    cursor = connection.cursor()
    for pragma in ("busy_timeout=15000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    reading = connection.get_execution_options().get("saga_reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _let_go_of_sqlite(connection: Any, _record: Any, _error: BaseException | None) -> None:
    """The connection of a task that is cancelled in the middle of a statement is closed. SQLite puts that off while a
    cursor is alive, and keeps the only write lock as long: so the transaction is rolled back first.
    """
    with suppress(ValueError):  # it is closed already
        connection.run_async(lambda driver: asyncio.shield(driver.rollback()))
