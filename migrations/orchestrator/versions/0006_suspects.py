"""Which messages are suspected of doing harm, and what people did about dead letters.

Safe to run before the release that needs it: older replicas do not know the tables.
"""

from alembic.operations import Operations

from migrations.pieces import create_suspicion_v1, drop_suspicion_v1

revision = "orchestrator_0006"
down_revision = "orchestrator_0005"


def upgrade(op: Operations) -> None:
    """From 0005."""
    create_suspicion_v1(op)


def downgrade(op: Operations) -> None:
    """To 0005. Counting begins anew; who redrove or dropped which dead letter is forgotten."""
    drop_suspicion_v1(op)
