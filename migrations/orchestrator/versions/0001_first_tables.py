"""Sagas, their log, and messaging."""

import sqlalchemy as sa
from alembic.operations import Operations

from migrations.pieces import AUTOMATIC_ID, CHANGING, DOCUMENT, MOMENT, create_messaging_v1, drop_messaging_v1, tune

revision = "orchestrator_0001"
down_revision = None


def upgrade(op: Operations) -> None:
    """From an empty database."""
    create_messaging_v1(op)
    op.create_table(
        "sagas",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("definition", sa.String(100), nullable=False),
        sa.Column("fingerprint", sa.String(12), nullable=False),
        sa.Column("key", sa.String(200), nullable=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", DOCUMENT, nullable=False),
        sa.Column("due_at", MOMENT, nullable=True),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("changed_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_sagas"),
        sa.UniqueConstraint("definition", "key", name="uq_sagas_definition_key"),
    )
    tune(op, "sagas", CHANGING)
    op.create_index("ix_sagas_due_at", "sagas", ["due_at"], postgresql_where=sa.text("due_at IS NOT NULL"))
    op.create_index("ix_sagas_status_started_at", "sagas", ["status", "started_at"])
    op.create_index("ix_sagas_started_at", "sagas", ["started_at"])
    op.create_table(
        "saga_log",
        sa.Column("position", AUTOMATIC_ID, autoincrement=True, nullable=False),
        sa.Column("saga_id", sa.String(64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("entries", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_saga_log"),
        sa.UniqueConstraint("saga_id", "revision", name="uq_saga_log_saga_id_revision"),
    )


def downgrade(op: Operations) -> None:
    """To an empty database."""
    op.drop_table("saga_log")
    op.drop_table("sagas")
    drop_messaging_v1(op)
