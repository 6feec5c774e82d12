"""The injector: what has fired counts, what was missed is told, and what went wrong is not passed over in silence."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from chaos import injector as injector_module
from chaos.errors import Missed
from chaos.faults.world import World
from chaos.injector import Injector
from chaos.plan import Planned
from chaos.record import Fault


def planned(kind: str) -> Planned:
    return Planned(0.0, kind, "order-1", 0.0, "1/0")


@pytest.fixture
async def injector(monkeypatch: pytest.MonkeyPatch) -> Injector:
    """With three kinds of faults, and a world without anything in it."""

    async def fire(world: World, one: Planned) -> list[Fault]:
        return [world.fault(one, world.now())]

    async def miss(_world: World, _one: Planned) -> list[Fault]:
        raise Missed("nobody is there")

    async def fail(_world: World, _one: Planned) -> list[Fault]:
        raise ZeroDivisionError("oops")

    async def last(world: World, one: Planned) -> list[Fault]:
        await asyncio.sleep(0.2)
        return [world.fault(one, world.now())]

    monkeypatch.setattr(injector_module, "STRIKES", {"fire": fire, "miss": miss, "fail": fail, "last": last})
    nobody: Any = None
    return Injector(World(nobody, nobody, nobody, asyncio.get_running_loop().time()))


async def test_what_fired_counts_what_missed_is_told_and_what_went_wrong_is_seen(injector: Injector) -> None:
    with capture_logs() as logs:
        await injector.run([planned("fire"), planned("miss"), planned("fail"), planned("miss"), planned("last")])
    assert [fault.kind for fault in injector.faults] == ["fire", "last"]
    assert injector.missed == {"miss: nobody is there": 2}
    assert injector.wrong == ["fail of order-1 went wrong: ZeroDivisionError: oops"]
    assert [line["event"] for line in logs] == ["a fault went wrong"]


async def test_no_more_than_so_many_happen_at_once(injector: Injector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(injector_module, "MOST_AT_ONCE", 2)
    await injector.run([planned("last")] * 5)
    assert len(injector.faults) == 2
    assert injector.missed == {"too much was happening already": 3}
