"""Priorities, waiting sagas, incidents, labels, limits, schedules, and keys that may be used again after a failure.

Safe to run before the release that needs it: every new column has a default, so older replicas go on.
"""

import sqlalchemy as sa
from alembic.operations import Operations

from migrations.pieces import DOCUMENT, MOMENT

revision = "orchestrator_0002"
down_revision = "orchestrator_0001"

WAITING = sa.text("status = 'waiting'")
NOT_ENDED = sa.text("ended_at IS NULL")


def upgrade(op: Operations) -> None:
    """From 0001."""
    with op.batch_alter_table("sagas") as batch:
        batch.add_column(sa.Column("generation", sa.Integer(), nullable=False, server_default="1"))
        batch.add_column(sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("begins_at", MOMENT, nullable=True))
        batch.add_column(sa.Column("incident", sa.String(200), nullable=True))
        batch.add_column(sa.Column("stuck_at", MOMENT, nullable=True))
        batch.drop_constraint("uq_sagas_definition_key", type_="unique")
        batch.create_unique_constraint("uq_sagas_definition_key_generation", ["definition", "key", "generation"])
    op.create_index("ix_sagas_ended_at", "sagas", ["ended_at"], postgresql_where=sa.text("ended_at IS NOT NULL"))
    op.create_index(
        "ix_sagas_incident", "sagas", ["incident", "stuck_at"], postgresql_where=sa.text("incident IS NOT NULL")
    )
    op.create_index(
        "ix_sagas_waiting",
        "sagas",
        ["definition", sa.text("priority DESC"), "begins_at"],
        postgresql_where=WAITING,
        sqlite_where=WAITING,
    )
    op.create_index("ix_sagas_in_flight", "sagas", ["definition"], postgresql_where=NOT_ENDED, sqlite_where=NOT_ENDED)
    op.create_table(
        "saga_labels",
        sa.Column("saga_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("value", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("saga_id", "name", name="pk_saga_labels"),
    )
    op.create_index("ix_saga_labels_name_value", "saga_labels", ["name", "value", "saga_id"])
    op.create_table(
        "throttles",
        sa.Column("definition", sa.String(100), nullable=False),
        sa.Column("next_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("definition", name="pk_throttles"),
    )
    op.create_table(
        "schedules",
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("definition", sa.String(100), nullable=False),
        sa.Column("input", DOCUMENT, nullable=False),
        sa.Column("cron", sa.String(100), nullable=False),
        sa.Column("timezone", sa.String(64), nullable=False),
        sa.Column("missed", sa.String(8), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("paused_by", sa.String(200), nullable=True),
        sa.Column("next_at", MOMENT, nullable=True),
        sa.Column("last_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_schedules"),
    )
    op.create_index("ix_schedules_next_at", "schedules", ["next_at"])


def downgrade(op: Operations) -> None:
    """To 0001. A key that was used again keeps its first saga only; the later ones lose their key."""
    for table in ("schedules", "throttles", "saga_labels"):
        op.drop_table(table)
    for index in ("ix_sagas_in_flight", "ix_sagas_waiting", "ix_sagas_incident", "ix_sagas_ended_at"):
        op.drop_index(index, "sagas")
    op.execute("UPDATE sagas SET key = NULL WHERE generation > 1")
    with op.batch_alter_table("sagas") as batch:
        batch.drop_constraint("uq_sagas_definition_key_generation", type_="unique")
        batch.create_unique_constraint("uq_sagas_definition_key", ["definition", "key"])
        for column in ("stuck_at", "incident", "begins_at", "priority", "generation"):
            batch.drop_column(column)
