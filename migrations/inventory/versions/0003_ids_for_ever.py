"""The id of a dead letter names that one for ever, on SQLite too.

Safe while older replicas run: they do not see a difference.
"""

from alembic.operations import Operations

from migrations.pieces import number_again_v1, number_once_v1

revision = "inventory_0003"
down_revision = "inventory_0002"


def upgrade(op: Operations) -> None:
    """From 0002."""
    number_once_v1(op)


def downgrade(op: Operations) -> None:
    """To 0002."""
    number_again_v1(op)
