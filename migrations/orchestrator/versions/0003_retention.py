"""What was pruned, so that its absence is not taken for a loss.

Safe to run before the release that needs it: older replicas do not know the table.
"""

import sqlalchemy as sa
from alembic.operations import Operations

revision = "orchestrator_0003"
down_revision = "orchestrator_0002"


def upgrade(op: Operations) -> None:
    """From 0002."""
    op.create_table(
        "prunings",
        sa.Column("definition", sa.String(100), nullable=False),
        sa.Column("sagas", sa.BigInteger(), nullable=False),
        sa.Column("last_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("definition", name="pk_prunings"),
    )


def downgrade(op: Operations) -> None:
    """To 0002. What services hold of sagas that were pruned will be taken for orphans."""
    op.drop_table("prunings")
