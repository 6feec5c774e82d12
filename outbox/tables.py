"""The tables of messaging, which every service keeps in its own database beside its own tables."""

from dataclasses import dataclass

from sqlalchemy import Column, Integer, MetaData, String, Table, Text

from outbox.database import BigId, UtcDateTime

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


@dataclass(frozen=True, slots=True)
class MessagingTables:
    """`outbox`: committed, not yet known to be with the broker. `inbox`: handled, with the answer that was
    given. `dead_letters`: could not be handled, with the reason; `dead_letter_log`: what people did about them. An id
    of these two names one row for ever, also when that is gone (SQLite would give it again if it were not told).
    `suspects`: handling them failed, the last time for this `reason`, or they were in hand when a process died.
    """

    outbox: Table
    inbox: Table
    dead_letters: Table
    dead_letter_log: Table
    suspects: Table


def new_metadata() -> MetaData:
    """The metadata of one service's database, with names for every constraint."""
    return MetaData(naming_convention=NAMING)


def messaging_tables(metadata: MetaData) -> MessagingTables:
    """Declare the tables of messaging in `metadata`."""
    return MessagingTables(
        outbox=Table(
            "outbox",
            metadata,
            Column("message_id", String(400), primary_key=True),
            Column("subject", String(255), nullable=False),
            Column("body", Text, nullable=False),
            Column("due_at", UtcDateTime, nullable=False, index=True),
        ),
        inbox=Table(
            "inbox",
            metadata,
            Column("message_id", String(400), primary_key=True),
            Column("answer", Text, nullable=False),
            Column("received_at", UtcDateTime, nullable=False, index=True),
        ),
        dead_letters=Table(
            "dead_letters",
            metadata,
            Column("id", BigId, primary_key=True, autoincrement=True),
            Column("at", UtcDateTime, nullable=False),
            Column("subject", String(255), nullable=False),
            Column("message_id", String(400), nullable=True),
            Column("reason", Text, nullable=False),
            Column("body", Text, nullable=False),
            Column("deliveries", Integer, nullable=False),
            Column("digest", String(64), nullable=False, unique=True),
            sqlite_autoincrement=True,
        ),
        dead_letter_log=Table(
            "dead_letter_log",
            metadata,
            Column("id", BigId, primary_key=True, autoincrement=True),
            Column("at", UtcDateTime, nullable=False),
            Column("action", String(16), nullable=False),
            Column("letter_id", BigId, nullable=False),
            Column("subject", String(255), nullable=False),
            Column("message_id", String(400), nullable=True),
            Column("reason", Text, nullable=False),
            Column("by", String(200), nullable=False),
            Column("why", Text, nullable=False),
            sqlite_autoincrement=True,
        ),
        suspects=Table(
            "suspects",
            metadata,
            Column("digest", String(64), primary_key=True),
            Column("failed", Integer, nullable=False),
            Column("opened", Integer, nullable=False),
            Column("at", UtcDateTime, nullable=False),
            Column("message_id", String(400), nullable=True),
            Column("reason", Text, nullable=True),
        ),
    )
