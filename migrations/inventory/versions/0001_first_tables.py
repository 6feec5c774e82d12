"""Stock, reservations, and messaging."""

import sqlalchemy as sa
from alembic.operations import Operations

from migrations.pieces import DOCUMENT, create_messaging_v1, drop_messaging_v1

revision = "inventory_0001"
down_revision = None


def upgrade(op: Operations) -> None:
    """From an empty database."""
    create_messaging_v1(op)
    op.create_table(
        "stock",
        sa.Column("sku", sa.String(100), nullable=False),
        sa.Column("seeded", sa.Integer(), nullable=False),
        sa.Column("available", sa.Integer(), nullable=False),
        sa.Column("reserved", sa.Integer(), nullable=False),
        sa.Column("sold", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("sku", name="pk_stock"),
    )
    op.create_table(
        "reservations",
        sa.Column("reservation_id", sa.String(64), nullable=False),
        sa.Column("lines", DOCUMENT, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("reservation_id", name="pk_reservations"),
    )


def downgrade(op: Operations) -> None:
    """To an empty database."""
    op.drop_table("reservations")
    op.drop_table("stock")
    drop_messaging_v1(op)
