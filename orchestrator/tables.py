"""The orchestrator's own tables: sagas as they are, the log of how they came to be so, and what begins them."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, String, Table, Text, UniqueConstraint, text

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
    Column("generation", Integer, nullable=False, server_default="1"),
    Column("digest", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("due_at", UtcDateTime, nullable=True),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("begins_at", UtcDateTime, nullable=True),
    Column("incident", String(200), nullable=True),
    Column("stuck_at", UtcDateTime, nullable=True),
    Column("started_at", UtcDateTime, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime, nullable=True),
    UniqueConstraint("definition", "key", "generation"),
)
"""`state` is the machine's; the other columns are drawn from it, so that SQL can search them. `digest` is of the input:
the same key with another input is a conflict. `generation` counts how often a key was used: again only when the
saga before has failed. `revision` counts the decisions. `incident` is what all sagas that are stuck for the same reason
share. A saga that waits has a `begins_at`: now, or later.
"""

Index("ix_sagas_due_at", sagas.c.due_at, postgresql_where=sagas.c.due_at.is_not(None))
Index("ix_sagas_status_started_at", sagas.c.status, sagas.c.started_at)
Index("ix_sagas_started_at", sagas.c.started_at)
Index("ix_sagas_ended_at", sagas.c.ended_at, postgresql_where=sagas.c.ended_at.is_not(None))
Index("ix_sagas_incident", sagas.c.incident, sagas.c.stuck_at, postgresql_where=sagas.c.incident.is_not(None))
Index(
    "ix_sagas_waiting",
    sagas.c.definition,
    sagas.c.priority.desc(),
    sagas.c.begins_at,
    postgresql_where=text("status = 'waiting'"),
    sqlite_where=text("status = 'waiting'"),
)
Index(
    "ix_sagas_begins_at",
    sagas.c.definition,
    sagas.c.begins_at,
    postgresql_where=text("status = 'waiting'"),
    sqlite_where=text("status = 'waiting'"),
)
Index(
    "ix_sagas_in_flight",
    sagas.c.definition,
    postgresql_where=text("ended_at IS NULL"),
    sqlite_where=text("ended_at IS NULL"),
)

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

saga_labels = Table(
    "saga_labels",
    metadata,
    Column("saga_id", String(64), primary_key=True),
    Column("name", String(60), primary_key=True),
    Column("value", String(200), nullable=False),
    Index("ix_saga_labels_name_value", "name", "value", "saga_id"),
)
"""What sagas can be found by."""

throttles = Table(
    "throttles",
    metadata,
    Column("definition", String(100), primary_key=True),
    Column("next_at", UtcDateTime, nullable=False),
)
"""One row for each definition whose sagas wait for a place. Whoever admits sagas of it locks the row, so that two
replicas do not both fill the last place. `next_at` is when its rate lets the next one begin.
"""

schedules = Table(
    "schedules",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("definition", String(100), nullable=False),
    Column("input", Document, nullable=False),
    Column("cron", String(100), nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("missed", String(8), nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("paused_by", String(200), nullable=True),
    Column("next_at", UtcDateTime, nullable=True),
    Column("last_at", UtcDateTime, nullable=True),
    Column("created_at", UtcDateTime, nullable=False),
)
"""Sagas that begin by the clock. `next_at` is the next time that has not been dealt with; `missed` says what becomes of
those that passed while nobody ran: `skip` all, `once` for all of them, or `all` one by one.
"""
Index("ix_schedules_next_at", schedules.c.next_at)

prunings = Table(
    "prunings",
    metadata,
    Column("definition", String(100), primary_key=True),
    Column("sagas", BigInteger, nullable=False),
    Column("last_id", String(64), nullable=False),
)
"""How many sagas of each definition were ever pruned, and the newest of them: what is missing up to there may have been
pruned, what is missing after it is lost.
"""
