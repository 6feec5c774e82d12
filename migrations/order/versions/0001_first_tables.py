"""Orders, and messaging."""

import sqlalchemy as sa
from alembic.operations import Operations

from migrations.pieces import DOCUMENT, MONEY, create_messaging_v1, drop_messaging_v1

revision = "order_0001"
down_revision = None


def upgrade(op: Operations) -> None:
    """From an empty database."""
    create_messaging_v1(op)
    op.create_table(
        "orders",
        sa.Column("order_id", sa.String(100), nullable=False),
        sa.Column("placement_id", sa.String(64), nullable=False),
        sa.Column("customer_id", sa.String(100), nullable=False),
        sa.Column("lines", DOCUMENT, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("total", MONEY, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("order_id", name="pk_orders"),
    )
    op.create_index("ix_orders_placement_id", "orders", ["placement_id"])


def downgrade(op: Operations) -> None:
    """To an empty database."""
    op.drop_table("orders")
    drop_messaging_v1(op)
