"""The orchestrator's own tables: sagas as they are, and the log of how they came to be so."""

from sqlalchemy import Column, Index, Integer, String, Table, Text, UniqueConstraint

from outbox.database import BigId, Document, UtcDateTime
from outbox.tables import messaging_tables, new_metadata

metadata = new_metadata()
messaging = messaging_tables(metadata)

sagas = Table(
    "sagas",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("definition", String(100), nullable=False),
    Column("fingerprint", String(12), nullable=False),
    Column("key", String(200), nullable=True),
    Column("digest", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("state", Document, nullable=False),
    Column("due_at", UtcDateTime, nullable=True),
    Column("started_at", UtcDateTime, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime, nullable=True),
    UniqueConstraint("definition", "key"),
)
"""`state` is the machine's; the other columns are drawn from it, so that SQL can search them. `digest` is of the input:
the same key with another input is a conflict. `revision` counts the decisions.
"""

Index("ix_sagas_due_at", sagas.c.due_at, postgresql_where=sagas.c.due_at.is_not(None))
Index("ix_sagas_status_started_at", sagas.c.status, sagas.c.started_at)
Index("ix_sagas_started_at", sagas.c.started_at)

saga_log = Table(
    "saga_log",
    metadata,
    Column("position", BigId, primary_key=True, autoincrement=True),
    Column("saga_id", String(64), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("entries", Text, nullable=False),
    UniqueConstraint("saga_id", "revision"),
)
"""Append-only. A row is one decision: everything that came of one event, written in the transaction that decided it.
Two writers of the same revision collide here, so a replica that slept past its turn writes nothing.
"""
