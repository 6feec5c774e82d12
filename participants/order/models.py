"""The rows of the order service."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

from sqlalchemy import Column, String, Table

from outbox.database import Document, Money
from outbox.tables import new_metadata
from participants.runtime import Participant

metadata = new_metadata()
participant = Participant("order", metadata)


@dataclass(frozen=True, slots=True)
class Order:
    """One order. While it is `pending` its lock is held by the placement (the saga) that opened it."""

    table: ClassVar[Table] = Table(
        "orders",
        metadata,
        Column("order_id", String(100), primary_key=True),
        Column("placement_id", String(64), nullable=False, index=True),
        Column("customer_id", String(100), nullable=False),
        Column("lines", Document, nullable=False),
        Column("currency", String(3), nullable=False),
        Column("total", Money, nullable=False),
        Column("status", String(16), nullable=False),
    )
    order_id: str
    placement_id: str
    customer_id: str
    lines: list[dict[str, Any]]
    currency: str
    total: Decimal
    status: str
    """`pending`, `confirmed` or `rejected`."""
