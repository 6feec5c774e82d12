"""Every crash point of every role, one by one: the process is killed there for real, comes back, and nothing is wrong.

A first order leads the role to the point, and the process dies of SIGKILL in the middle of that saga. While it is dead
a second order comes. Then the role is started again, and both sagas must end as they should.
"""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import pytest
from sqlalchemy import func, select

from orchestrator import tables
from orchestrator.composition import messaging_of
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.sagas import DEFINITIONS
from outbox.faults import POINTS
from tests.support.cli import Background, Saga
from tests.support.servers import DatabaseUrls, PostgresDatabases, Role, SqliteDatabases
from tests.support.waiting import eventually
from tests.support.world import ROLES, World, an_order


@dataclass(frozen=True, slots=True)
class Scene:
    """Who is killed, over which message: the `hit`-th that comes to the role on behalf of the first order."""

    role: Role
    completes: bool
    hit: int
    over: str

    @property
    def orders(self) -> list[dict[str, Any]]:
        """The first and the second order. The payment service refuses what bob buys, after stock was reserved."""
        customers = ("ada", "bob") if self.completes else ("bob", "ada")
        return [an_order(customer=customer) for customer in customers]

    def hit_of(self, point: str) -> int:
        """The how-maniest time at this point it is. A service answers and tells the world: that is published twice."""
        return 2 * self.hit - 1 if point == "published" and self.role != "orchestrator" else self.hit

    @property
    def ends(self) -> list[str]:
        """How their sagas must end."""
        return ["completed", "compensated"] if self.completes else ["compensated", "completed"]


SCENES: Final = (
    Scene("orchestrator", True, 3, "the answer upon which the money is taken"),
    Scene("orchestrator", False, 3, "the refusal that turns the saga back"),
    Scene("order", False, 2, "reject-order, an undo"),
    Scene("inventory", False, 2, "release-stock, an undo"),
    Scene("payment", True, 2, "capture-payment, the pivot"),
)
ON_POSTGRESQL: Final = (SCENES[1], SCENES[3])
CASES: Final = [
    pytest.param(kind, scene, point, id=f"{kind}-{scene.role}.{point}-{'forward' if scene.completes else 'undo'}")
    for kind, scenes in (("sqlite", SCENES), ("postgresql", ON_POSTGRESQL))
    for scene in scenes
    for point in POINTS
]


@contextmanager
def databases(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[DatabaseUrls]:
    """Empty databases of one kind."""
    if kind == "sqlite":
        yield SqliteDatabases(folder)
        return
    ours = PostgresDatabases(request.getfixturevalue("postgres"))
    try:
        yield ours
    finally:
        ours.drop()


def command_line(folder: Path, urls: DatabaseUrls, nats: EmbeddedNats) -> Saga:
    """`saga` against these servers, impatient: what a crash leaves behind is soon done again."""
    settings = {f"SAGA_{role.upper()}_DATABASE_URL": urls(role) for role in ROLES}
    return Saga(folder, SAGA_NATS_URL=nats.url, SAGA_ACK_WAIT="1", SAGA_OUTBOX_GRACE="0.5", **settings)


def test_every_role_has_a_scene() -> None:
    assert {scene.role for scene in SCENES} == set(get_args(Role)) == set(ROLES)


@pytest.mark.parametrize(("kind", "scene", "point"), CASES)
async def test_a_process_killed_at(
    kind: str, scene: Scene, point: str, request: pytest.FixtureRequest, nats: EmbeddedNats, tmp_path: Path
) -> None:
    with databases(kind, request, tmp_path) as urls:
        async with World(urls, nats.url, definitions=DEFINITIONS) as world:
            saga = command_line(tmp_path, urls, nats)
            first, second = scene.orders
            crash_at = f"{scene.role}.{point}:{scene.hit_of(point)}"
            with saga.background("run", scene.role, SAGA_CRASH_AT=crash_at, SAGA_LOG_FORMAT="json") as victim:
                await world.start(*(role for role in ROLES if role != scene.role))
                await until_ready(victim)
                saga_ids = await world.place(first)
                await until_killed(victim)
            await check_that_it_died_there(world, scene, point, saga_ids[0])

            saga_ids += await world.place(second)
            with saga.background("run", scene.role):
                assert await world.until_ended(saga_ids) == scene.ends
                assert await world.findings() == []


async def until_ready(process: Background) -> None:
    """Wait until a role fetches messages."""

    async def is_ready() -> bool:
        assert process.code is None, process.err
        return '"ready"' in process.err

    await eventually(is_ready, "the role is ready")


async def until_killed(process: Background) -> None:
    """Wait until the process has died of its crash point, and of nothing else."""

    async def has_ended() -> bool:
        return process.code is not None

    await eventually(has_ended, "the crash point is reached")
    assert process.code == -signal.SIGKILL, process.err


async def check_that_it_died_there(world: World, scene: Scene, point: str, saga_id: str) -> None:
    """What is committed says whether the point is where its name says, and whether it was over the right message."""
    committed = scene.hit if POINTS.index(point) >= POINTS.index("committed") else scene.hit - 1
    assert await messages_handled(world, scene.role, saga_id) == committed
    if point in ("committed", "published"):  # the message is on its way, and the outbox does not know how far it came
        assert await world.outgoing(scene.role)
    if scene.role == "orchestrator":
        assert await world.queries.statuses([saga_id]) != {saga_id: scene.ends[0]}


async def messages_handled(world: World, role: Role, saga_id: str) -> int:
    """How many messages a role has committed the handling of."""
    if role == "orchestrator":
        [saga] = await world.rows(role, select(tables.sagas.c.revision).where(tables.sagas.c.id == saga_id))
        return int(saga.revision) - 1  # the start is not a message
    inbox = messaging_of(role).inbox
    [[count]] = await world.rows(role, select(func.count()).select_from(inbox))
    return int(count)


async def test_a_client_killed_between_commit_and_publishing(nats: EmbeddedNats, tmp_path: Path) -> None:
    urls = SqliteDatabases(tmp_path)
    async with World(urls, nats.url, definitions=DEFINITIONS) as world:
        await world.start(*ROLES)
        saga = command_line(tmp_path, urls, nats)
        order = an_order()

        def start(**settings: str) -> Any:
            return asyncio.to_thread(saga.start, order, options=["--key", "k", "--wait", "--json"], **settings)

        killed = await start(SAGA_CRASH_AT="orchestrator.committed:1")
        assert (killed.code, killed.out) == (-signal.SIGKILL, "")
        [saga_id] = [one.id for one in await world.sagas()]  # nobody was told its id, but the key finds it
        again = await start()
        assert again.code == 0
        assert again.json() == {"outcome": "existing", "saga_id": saga_id, "status": "completed", "reason": None}
        assert await world.findings() == []
