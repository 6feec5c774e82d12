"""Accounts, holds, the ledger, and messaging."""

import sqlalchemy as sa
from alembic.operations import Operations

from migrations.pieces import MONEY, create_messaging_v1, drop_messaging_v1

revision = "payment_0001"
down_revision = None


def upgrade(op: Operations) -> None:
    """From an empty database."""
    create_messaging_v1(op)
    op.create_table(
        "accounts",
        sa.Column("customer_id", sa.String(100), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("balance", MONEY, nullable=False),
        sa.Column("held", MONEY, nullable=False),
        sa.PrimaryKeyConstraint("customer_id", name="pk_accounts"),
    )
    op.create_table(
        "holds",
        sa.Column("hold_id", sa.String(64), nullable=False),
        sa.Column("customer_id", sa.String(100), nullable=False),
        sa.Column("amount", MONEY, nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("hold_id", name="pk_holds"),
    )
    op.create_table(
        "postings",
        sa.Column("posting_id", sa.String(150), nullable=False),
        sa.Column("entry_id", sa.String(140), nullable=False),
        sa.Column("account", sa.String(120), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("amount", MONEY, nullable=False),
        sa.PrimaryKeyConstraint("posting_id", name="pk_postings"),
    )
    op.create_index("ix_postings_entry_id", "postings", ["entry_id"])
    op.create_index("ix_postings_account", "postings", ["account"])


def downgrade(op: Operations) -> None:
    """To an empty database."""
    for table in ("postings", "holds", "accounts"):
        op.drop_table(table)
    drop_messaging_v1(op)
