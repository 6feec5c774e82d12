"""What a worker keeps from one schedule to the next: four database servers with their schema, and a door to each.

The schema is made by the real migrations, once. A schedule begins with a server that is as new.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from migrations.runner import upgrade
from orchestrator.settings import ROLES
from outbox.database import Database
from participants.inventory.seed import seed_stock
from participants.payment.seed import seed_accounts
from simulation import virtual
from simulation.engine import open_engine
from simulation.server import Server
from simulation.witness import JOURNAL

STOCK: Final = {"lamp": 1000, "bulb": 1000, "rare": 3, "gift": 0, "sold-out": 0}
ACCOUNTS: Final = {"ada": Decimal(100_000), "cy": Decimal(40), "bob": Decimal(5)}


class Door:
    """An `outbox.database.Server`."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def engine(self, **options: Any) -> AsyncEngine:
        """What executes statements there."""
        return open_engine(self._server, **options)


@dataclass(slots=True)
class Rack:
    """Servers and doors, by role."""

    servers: dict[str, Server] = field(default_factory=dict)
    databases: dict[str, Database] = field(default_factory=dict)

    @classmethod
    def build(cls) -> "Rack":
        """With schema, stock and accounts."""
        rack = cls()
        for role in ROLES:
            server = rack.servers[role] = Server(role)
            rack.databases[role] = Database("sqlite:///:memory:", server=Door(server))
        virtual.run(rack._fill())
        for server in rack.servers.values():
            for statement in JOURNAL:
                server.disk.execute(statement)
            server.remember()
        return rack

    async def _fill(self) -> None:
        for role, database in self.databases.items():
            await upgrade(database, role)
        await seed_stock(self.databases["inventory"], STOCK)
        await seed_accounts(self.databases["payment"], ACCOUNTS, "EUR")
