"""`saga demo`: five stories on real parts, each with the end that it should have.

Every role is a process of its own, so that one can be late and another can be killed. The last story kills the
orchestrator with SIGKILL at the worst moment there is: after it has committed the command to take the money,
and before it has published it.
"""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from orchestrator.cli import console
from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.follow import wait_for
from orchestrator.cli.options import Json
from orchestrator.cli.processes import RoleProcesses
from orchestrator.cli.schema import upgrade_all
from orchestrator.composition import Client, open_client, open_verifier, seed_accounts, seed_stock
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.queries import SagaView
from orchestrator.settings import ROLES, Settings, load_settings, remove_dev_file, running_dev, write_dev_file
from orchestrator.verify import Finding
from outbox.moments import duration
from outbox.numbers import counted

PATIENCE: Final = 30.0
STOCK: Final = {"espresso-machine": 20, "grinder": 1}
ACCOUNTS: Final = {"ada": Decimal("5000"), "bob": Decimal("15")}


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command("demo")(demo)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one story ended, and how it should have."""

    name: str
    saga_id: str
    expected: str
    status: str
    ok: bool
    view: SagaView = field(repr=False)


class Stage:
    """The demo's world: one broker, four databases, and a process for every role."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self.settings = settings
        self.client = client
        self.queries = client.queries
        self._processes = RoleProcesses(settings)
        self._orders = 0

    async def start(self, *roles: str, crash_at: str = "") -> None:
        """Start a process for each of the roles."""
        for role in roles:
            await self._processes.start(
                role, SAGA_OUTBOX_GRACE="1", SAGA_ACK_WAIT="3", SAGA_LOG_LEVEL="warning", SAGA_CRASH_AT=crash_at
            )

    async def wait_until_ready(self, *roles: str) -> None:
        """Wait until the processes fetch messages. Raises Failure when one of them has ended."""
        await self._processes.wait_until_ready(self.client.broker.jetstream, *roles)

    async def stop(self, *roles: str) -> None:
        """Ask the processes to finish, and wait for them."""
        await self._processes.stop(*roles)

    async def stop_all(self) -> None:
        """Leave nothing running."""
        await self._processes.stop_all()

    async def wait_until_killed(self, role: str) -> None:
        """Wait for a process to die of SIGKILL. Raises Failure when it ends otherwise, or lives on."""
        code = await self._processes.killed(role, PATIENCE)
        if code != -signal.SIGKILL:
            raise Failure(f"the {role} ended by itself with {code}: see {self.settings.data_dir}/{role}.log")

    async def order(self, customer: str, sku: str, quantity: int, price: str) -> str:
        """Place an order, and publish its first command. Returns the saga's id."""
        self._orders += 1
        order = {
            "order_id": f"order-{self._orders}",
            "customer_id": customer,
            "lines": [{"sku": sku, "quantity": quantity, "unit_price": price}],
            "currency": "EUR",
        }
        [result] = await self.client.engine.start([self.client.engine.request("place-order", order)])
        await self.client.relay.flush()
        return result.saga_id

    async def end_of(self, saga_id: str) -> SagaView:
        """Wait until a saga has ended, or the patience has."""
        await wait_for(self.queries, {saga_id}, asyncio.get_running_loop().time() + PATIENCE, 0)
        return await self.queries.get(saga_id, datetime.now(UTC))

    async def reaches(self, saga_id: str, step: str) -> None:
        """Wait until a step has been asked."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while asyncio.get_running_loop().time() < deadline:
            view = await self.queries.get(saga_id, datetime.now(UTC))
            if any(one.name == step and one.asked_at for one in view.steps):
                return
            await asyncio.sleep(0.05)
        raise Failure(f"saga {saga_id} never came to {step}: see the logs in {self.settings.data_dir}/")


Story = Callable[[Stage], Awaitable[str]]


async def completes(stage: Stage) -> str:
    """An order that goes through."""
    return await stage.order("ada", "espresso-machine", 2, "349.90")


async def out_of_stock(stage: Stage) -> str:
    """Ten grinders are wanted, one is there."""
    return await stage.order("ada", "grinder", 10, "79.00")


async def no_money(stage: Stage) -> str:
    """Bob has 15.00: the stock that was reserved for him is released again."""
    return await stage.order("bob", "espresso-machine", 1, "349.90")


async def late_participant(stage: Stage) -> str:
    """The inventory service is down when the order comes, and is started a little later."""
    await stage.stop("inventory")
    saga_id = await stage.order("ada", "espresso-machine", 1, "349.90")
    await stage.reaches(saga_id, "reserve-stock")
    await stage.start("inventory")
    return saga_id


async def killed_worker(stage: Stage) -> str:
    """SIGKILL after the command to take the money is committed, and before it is published."""
    await stage.stop("orchestrator")
    await stage.start("orchestrator", crash_at="orchestrator.committed:3")
    saga_id = await stage.order("ada", "espresso-machine", 1, "349.90")
    await stage.wait_until_killed("orchestrator")
    await stage.start("orchestrator")
    return saga_id


STORIES: Final[Sequence[tuple[str, str, Story]]] = (
    ("order completes", "completed", completes),
    ("out of stock", "compensated", out_of_stock),
    ("payment refused", "compensated", no_money),
    ("participant down, comes back", "completed", late_participant),
    ("orchestrator killed with SIGKILL", "completed", killed_worker),
)


def demo(
    data_dir: Annotated[
        Path, typer.Option("--data-dir", metavar="DIR", help="Is emptied first.", show_default=".amends/demo")
    ] = Path(".amends/demo"),
    json: Json = False,
) -> int:
    """Play five stories on real parts, and check that each ends as it should."""
    _empty(data_dir)
    with EmbeddedNats(data_dir / "nats") as nats:
        settings = load_settings(data_dir=data_dir, nats_url=nats.url)
        _own_databases_only(settings)
        write_dev_file(data_dir, nats.url)
        outcomes, findings, sagas = asyncio.run(_demo(settings, quiet=json))
    remove_dev_file(data_dir)
    _show(data_dir, outcomes, findings, sagas, json)
    return Exit.OK if all(one.ok for one in outcomes) and not findings else Exit.ERROR


async def _demo(settings: Settings, *, quiet: bool) -> tuple[list[Outcome], list[Finding], int]:
    bar, task = console.progress("starting NATS, four databases and four services", len(STORIES))
    bar.disable = bar.disable or quiet
    with bar:
        async with _stage(settings) as stage:
            outcomes = []
            for name, expected, story in STORIES:
                bar.update(task, description=name)
                if bar.disable and not quiet:
                    console.say(f"… {name}")
                view = await stage.end_of(await story(stage))
                status = view.summary.status
                outcomes.append(Outcome(name, view.summary.id, expected, status, status == expected, view))
                bar.advance(task)
            bar.update(task, description="verifying")
            async with open_verifier(settings) as verifier:
                findings = [finding async for finding in verifier.findings()]
    return outcomes, findings, verifier.sagas


@asynccontextmanager
async def _stage(settings: Settings) -> AsyncIterator[Stage]:
    await upgrade_all(settings)
    await seed_stock(settings, STOCK)
    await seed_accounts(settings, ACCOUNTS, "EUR")
    async with open_client(settings) as client:
        await client.connect()
        stage = Stage(settings, client)
        try:
            await stage.start(*ROLES)
            await stage.wait_until_ready(*ROLES)
            yield stage
        finally:
            await stage.stop_all()


def _show(data_dir: Path, outcomes: Sequence[Outcome], findings: Sequence[Finding], sagas: int, json: bool) -> None:
    if json:
        fields = ("name", "saga_id", "expected", "status", "ok")
        scenarios: list[dict[str, Any]] = [{name: getattr(one, name) for name in fields} for one in outcomes]
        violations = [asdict(finding) for finding in findings]
        console.print_json({"scenarios": scenarios, "verify": {"sagas": sagas, "violations": violations}})
        return
    columns = ("saga", "scenario", "status", "steps", "undone", "took", "")
    console.out().print(console.table(columns, (_row(one) for one in outcomes), right=("took",)))
    for finding in findings:
        console.say(f"violation: {finding.check}: {finding.message}")
    verdict = counted(len(findings), "violation") if findings else "no violations"
    console.say(f"\nsaga verify: {sagas} sagas against 4 databases: {verdict}")
    saga, where = console.command(), f"--data-dir {data_dir}"
    console.say("\ntry next:")
    console.say(f"  {saga} get {outcomes[-1].saga_id} {where}   # the one whose orchestrator was killed")
    console.say(f"  {saga} log {outcomes[2].saga_id} {where}   # how an order is undone, entry by entry")
    console.say(f"  {saga} dev   # everything in the foreground; then, in another terminal, {saga} start --help")


def _row(one: Outcome) -> tuple[str | Text, ...]:
    summary = one.view.summary
    mark = Text("ok", "green") if one.ok else Text(f"should be {one.expected}", "bold red")
    done = sum(1 for step in one.view.steps if step.answered_at and step.status in ("done", "undone"))
    return (
        one.saga_id,
        one.name,
        console.status_text(one.status),
        f"{done}/{summary.steps}",
        str(summary.undone),
        duration(summary.duration),
        mark,
    )


def _empty(folder: Path) -> None:
    """Remove what an earlier demo has left, and nothing that is not a demo's."""
    if (pid := running_dev(folder)) is not None:
        raise Failure(f"saga dev is running in {folder} (process {pid}): stop it first, or name another folder")
    if folder.exists() and any(folder.iterdir()) and not (folder / "demo").exists():
        raise Failure(f"{folder} is not empty and not a demo's: name another folder with --data-dir")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "demo").write_text("This folder is emptied by the next `saga demo`.\n")
    except OSError as error:
        raise Failure(f"the data folder {folder} cannot be used: {error.strerror}") from error


def _own_databases_only(settings: Settings) -> None:
    if any(getattr(settings, f"{role}_database_url") for role in ROLES):
        raise Failure("the demo empties its databases: unset SAGA_…_DATABASE_URL first", Exit.USAGE)
