"""What everybody of a run is called. No I/O."""

from typing import Final

from orchestrator.settings import ROLES

POSTGRES: Final = "postgres"
REPLICAS: Final = 2

PROCESSES: Final = tuple(f"{role}-{number}" for role in ROLES for number in range(1, REPLICAS + 1))
"""Two of each role."""


def brokers(count: int) -> tuple[str, ...]:
    """The names of the servers of NATS."""
    return tuple(f"nats-{number}" for number in range(1, count + 1))


def wires(count: int) -> tuple[str, ...]:
    """The names of all wires: from every process to every server, and between the servers of NATS."""
    servers = (*brokers(count), POSTGRES)
    ours = tuple(f"{process}>{server}" for process in PROCESSES for server in servers)
    return ours + tuple(f"{one}>{other}" for one in brokers(count) for other in brokers(count) if one != other)
