"""A participant that answers as it likes: `chaos.rogue:main ROLE ACCOUNT SEED`.

It does its work and keeps its books like any other; what is wrong with it is its mail. Of its answers some are sent
twice, some late and perhaps after the command was asked again, some never, and to some garbage is added. It lies to its
own relay, which takes all of them for stored: what is lost is lost. It has written down into ACCOUNT what it did.
"""

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from nats.errors import Error as NatsError

from chaos.account import write
from chaos.garbage import garbage
from orchestrator.cli.run import run_services
from orchestrator.composition import messaging_of, open_database, service_of
from orchestrator.logs import configure_logging
from orchestrator.registry import Definitions
from orchestrator.settings import load_settings
from outbox.clock import DatabaseClock
from outbox.courier import NatsCourier
from outbox.envelope import Packet
from outbox.errors import BrokerOutOfReach
from outbox.faults import NoFaults
from outbox.unit_of_work import Outbox

LATEST: Final = 12.0
"""Seconds: an answer is asked for again after five."""

MANNERS: Final = {"": 60, "twice": 15, "late": 10, "never": 8, "garbage": 15}
"""What becomes of an answer, and how often."""


class RogueCourier(NatsCourier):
    """Carries most of it."""

    def __init__(self, url: str, role: str, *, replicas: int, seed: str, account: Path) -> None:
        super().__init__(url, role, replicas=replicas)
        self._dice = random.Random(seed)
        self._account = account
        self._done: Counter[str] = Counter()
        self._late: set[asyncio.Task[None]] = set()

    async def publish(self, packets: Sequence[Packet]) -> list[Packet]:
        """Says that all were stored."""
        carried: list[Packet] = []
        for packet in packets:
            manner = self._dice.choices(list(MANNERS), list(MANNERS.values()))[0]
            self._done[manner] += 1
            carried += await self._treat(packet, manner)
        if carried:
            await super().publish(carried)
        write(self._account, {"done": {name: count for name, count in self._done.items() if name}})
        return list(packets)

    async def _treat(self, packet: Packet, manner: str) -> list[Packet]:
        """What of a packet is carried now."""
        if manner == "never":
            return []
        if manner == "late":
            task = asyncio.create_task(self._carry_later(packet, self._dice.uniform(1.0, LATEST)))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            return []
        if manner == "garbage":
            await self._litter(packet)
        again = replace(packet, message_id=f"{packet.message_id}#{self._dice.getrandbits(64):x}")  # or it is dropped
        return [packet, again] if manner == "twice" else [packet]

    async def _carry_later(self, packet: Packet, seconds: float) -> None:
        await asyncio.sleep(seconds)
        with suppress(BrokerOutOfReach):
            await super().publish([packet])

    async def _litter(self, packet: Packet) -> None:
        content = json.loads(packet.body)
        event: dict[str, Any] = content[0] if isinstance(content, list) else content
        rubbish = garbage(self._dice, str(event.get("answers")), str(event["type"]))
        with suppress(NatsError, TimeoutError, OSError):
            await self.jetstream.publish(packet.subject, rubbish)


def main() -> None:
    """Run the role with that courier."""
    role, account, seed = sys.argv[1:]
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format)
    courier = RogueCourier(settings.nats_url, role, replicas=settings.stream_replicas, seed=seed, account=Path(account))
    outbox = Outbox(
        open_database(settings, role),
        messaging_of(role),
        clock=DatabaseClock(),
        faults=NoFaults(),
        role=role,
        grace=timedelta(seconds=settings.outbox_grace),
    )
    service = service_of(role, outbox, courier, Definitions(()), timedelta(seconds=settings.ack_wait))
    asyncio.run(run_services([service]))
