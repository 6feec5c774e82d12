"""The roles, and the models that each role's database is held against.

The one module of this package that knows live code.
"""

from collections.abc import Mapping
from typing import Literal

from sqlalchemy import MetaData

from orchestrator import tables as orchestrator
from participants.inventory import models as inventory
from participants.order import models as order
from participants.payment import models as payment

Role = Literal["orchestrator", "order", "inventory", "payment"]
ROLES: tuple[Role, ...] = ("orchestrator", "order", "inventory", "payment")

MODELS: Mapping[str, MetaData] = {
    "orchestrator": orchestrator.metadata,
    "order": order.metadata,
    "inventory": inventory.metadata,
    "payment": payment.metadata,
}
