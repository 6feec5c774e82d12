"""A message that is suspected says which it is, and why, so that `saga why` can tell before it is buried.

Safe while older replicas run: what they note has no reason.
"""

from alembic.operations import Operations

from migrations.pieces import explain_nothing_v1, explain_suspicion_v1

revision = "inventory_0004"
down_revision = "inventory_0003"


def upgrade(op: Operations) -> None:
    """From 0003."""
    explain_suspicion_v1(op)


def downgrade(op: Operations) -> None:
    """To 0003."""
    explain_nothing_v1(op)
