"""The state of a saga is text to the database.

Nobody searches in it, and PostgreSQL parsed it at every write. What is stored stays as it is: JSON, as it was written.
Not safe while older replicas run: they would write it as JSON into a column of text, and read it as text.
"""

import sqlalchemy as sa
from alembic.operations import Operations

from migrations.pieces import DOCUMENT

revision = "orchestrator_0004"
down_revision = "orchestrator_0003"


def upgrade(op: Operations) -> None:
    """From 0003."""
    with op.batch_alter_table("sagas") as batch:
        batch.alter_column("state", existing_type=DOCUMENT, type_=sa.Text(), postgresql_using="state::text")


def downgrade(op: Operations) -> None:
    """To 0003."""
    with op.batch_alter_table("sagas") as batch:
        batch.alter_column("state", existing_type=sa.Text(), type_=DOCUMENT, postgresql_using="state::json")
