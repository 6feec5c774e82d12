"""What the revisions share, frozen.

Revisions do not import the models or `outbox.database`: those say what a table is today, a revision what was
made on its day. For the same reason nothing here is changed once it is released; a new shape gets a new name.
"""

from collections.abc import Mapping

import sqlalchemy as sa
from alembic.operations import Operations

AUTOMATIC_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DOCUMENT = sa.JSON()
MOMENT = sa.DateTime(timezone=True)
MONEY = sa.BigInteger()

QUEUE = {
    "autovacuum_vacuum_scale_factor": 0,
    "autovacuum_vacuum_threshold": 1000,
    "autovacuum_vacuum_cost_delay": 0,
    "autovacuum_analyze_scale_factor": 0,
    "autovacuum_analyze_threshold": 5000,
}
"""PostgreSQL storage of a table whose rows come and go at once: it is small, and nearly all of it is dead rows. Left to
the defaults (a fifth of the table) the vacuum falls behind, and the claim query walks through the dead.
"""

CHANGING = {"autovacuum_vacuum_scale_factor": 0.02, "autovacuum_analyze_scale_factor": 0.02}
"""PostgreSQL storage of a large table whose newest rows are updated many times: a fiftieth, not a fifth."""


def tune(op: Operations, table: str, storage: Mapping[str, float]) -> None:
    """Set storage parameters, on PostgreSQL. (SQLAlchemy's `postgresql_with` does nothing on a table.)"""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE {table} SET ({', '.join(f'{key} = {value}' for key, value in storage.items())})")


def create_messaging_v1(op: Operations) -> None:
    """`outbox`, `inbox` and `dead_letters`, as every service has them beside its own tables."""
    op.create_table(
        "outbox",
        sa.Column("message_id", sa.String(400), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("message_id", name="pk_outbox"),
    )
    tune(op, "outbox", QUEUE)
    op.create_index("ix_outbox_due_at", "outbox", ["due_at"])
    op.create_table(
        "inbox",
        sa.Column("message_id", sa.String(400), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("message_id", name="pk_inbox"),
    )
    op.create_index("ix_inbox_received_at", "inbox", ["received_at"])
    op.create_table(
        "dead_letters",
        sa.Column("id", AUTOMATIC_ID, autoincrement=True, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("message_id", sa.String(400), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("deliveries", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dead_letters"),
        sa.UniqueConstraint("digest", name="uq_dead_letters_digest"),
    )


def drop_messaging_v1(op: Operations) -> None:
    """Undo `create_messaging_v1`."""
    for table in ("dead_letters", "inbox", "outbox"):
        op.drop_table(table)


def create_suspicion_v1(op: Operations) -> None:
    """`suspects` and `dead_letter_log`, beside the tables of `create_messaging_v1`."""
    op.create_table(
        "dead_letter_log",
        sa.Column("id", AUTOMATIC_ID, autoincrement=True, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("letter_id", AUTOMATIC_ID, nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("message_id", sa.String(400), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("by", sa.String(200), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dead_letter_log"),
    )
    op.create_table(
        "suspects",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("opened", sa.Integer(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_suspects"),
    )


def drop_suspicion_v1(op: Operations) -> None:
    """Undo `create_suspicion_v1`."""
    for table in ("suspects", "dead_letter_log"):
        op.drop_table(table)


def explain_suspicion_v1(op: Operations) -> None:
    """`suspects` say which message they are, and what its last error was."""
    with op.batch_alter_table("suspects") as batch:
        batch.add_column(sa.Column("message_id", sa.String(400), nullable=True))
        batch.add_column(sa.Column("reason", sa.Text(), nullable=True))


def explain_nothing_v1(op: Operations) -> None:
    """Undo `explain_suspicion_v1`."""
    with op.batch_alter_table("suspects") as batch:
        for column in ("reason", "message_id"):
            batch.drop_column(column)


def number_once_v1(op: Operations) -> None:
    """`dead_letters` and `dead_letter_log` give no id again. PostgreSQL never does, SQLite has to be told.

    It counts on from the highest id that is known, also from those of letters that are gone.
    """
    if op.get_bind().dialect.name != "sqlite":
        return
    for table in ("dead_letters", "dead_letter_log"):
        with op.batch_alter_table(table, recreate="always", table_kwargs={"sqlite_autoincrement": True}):
            pass
    op.execute("DELETE FROM sqlite_sequence WHERE name = 'dead_letters'")
    op.execute(
        "INSERT INTO sqlite_sequence (name, seq) SELECT 'dead_letters', max("
        "coalesce((SELECT max(id) FROM dead_letters), 0), coalesce((SELECT max(letter_id) FROM dead_letter_log), 0))"
    )


def number_again_v1(op: Operations) -> None:
    """Undo `number_once_v1`."""
    if op.get_bind().dialect.name == "sqlite":
        for table in ("dead_letters", "dead_letter_log"):
            with op.batch_alter_table(table, recreate="always"):
                pass
