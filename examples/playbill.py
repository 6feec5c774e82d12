"""Plays an example: its stories one after the other, then the proof that its databases hold what they should."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.text import Text

from examples.audit import Claim, EffectAuditor, contradictions
from examples.stage import Stage, Stalled, Story
from orchestrator.cli.console import command, out, status_text, table
from orchestrator.cli.follow import print_line
from orchestrator.definition import Saga
from orchestrator.embedded import EmbeddedServerError
from orchestrator.embedded.nats_server import EmbeddedNats
from orchestrator.logs import configure_logging
from orchestrator.queries import SagaView
from outbox.moments import duration
from participants.runtime import Participant


@dataclass(frozen=True, slots=True)
class Scene:
    """A story, and the end that it should have. Of a `shown` one the log is printed."""

    title: str
    expected: str
    story: Story
    shown: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """All that there is to an example."""

    module: str
    sagas: Sequence[Saga[Any]]
    participants: Sequence[Participant]
    prepare: Callable[[Stage], Awaitable[None]]
    scenes: Sequence[Scene]
    auditors: Callable[[Stage], Sequence[EffectAuditor]]
    claims: Mapping[str, Claim]
    """What must be true in the end, in words, and who looks."""


def run(example: Example, arguments: Sequence[str] | None = None) -> int:
    """What `python -m` does. Returns the exit code: 0 when every story ended as it should and every claim holds."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {example.module}", description=sys.modules[example.module].__doc__
    )
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="a new or empty folder for the databases, to be kept"
    )
    folder = parser.parse_args(arguments).data_dir
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        parser.error(f"{folder} is not an empty folder: name another one")
    configure_logging("error", "text")
    try:
        if folder is not None:
            return _play_and_tell(folder, example)
        with TemporaryDirectory(prefix="amends-") as temporary:
            return _play_in(Path(temporary), example)
    except (Stalled, EmbeddedServerError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _play_and_tell(folder: Path, example: Example) -> int:
    code = _play_in(folder, example)
    settings, options = f"SAGA_DEFINITIONS={example.module}.saga", f"--data-dir {folder}"
    print(f"\nlook into its databases: {settings} {command()} ls {options}", file=sys.stderr)
    return code


def _play_in(folder: Path, example: Example) -> int:
    with EmbeddedNats(folder / "nats") as nats:
        return asyncio.run(_play(folder, nats.url, example))


async def _play(folder: Path, nats_url: str, example: Example) -> int:
    async with Stage(folder, nats_url, example.sagas, example.participants) as stage:
        await example.prepare(stage)
        played = [(scene, await _play_scene(stage, scene)) for scene in example.scenes]
        _print_scenes(played)
        for scene, view in played:
            if scene.shown:
                await _print_log(stage, scene, view)
        as_expected = all(view.summary.status == scene.expected for scene, view in played)
        return 0 if await _claims_hold(stage, example) and as_expected else 1


async def _play_scene(stage: Stage, scene: Scene) -> SagaView:
    saga_id = await scene.story(stage)
    await stage.ends(saga_id)
    return await stage.queries.get(saga_id, stage.clock.now())


def _print_scenes(played: Sequence[tuple[Scene, SagaView]]) -> None:
    columns = ("story", "ended", "undone", "took", "reason")
    out().print(table(columns, (_row(scene, view) for scene, view in played), right=("undone", "took")))


def _row(scene: Scene, view: SagaView) -> tuple[str | Text, ...]:
    ended, undone = view.summary.status, sum(1 for step in view.steps if step.undo_attempts)
    why = (view.summary.reason or "") if ended == "compensated" else ""
    wrong = "" if ended == scene.expected else f" (it should be {scene.expected})"
    return (scene.title, status_text(ended).append(wrong), str(undone or ""), duration(view.summary.duration), why)


async def _print_log(stage: Stage, scene: Scene, view: SagaView) -> None:
    """The log of a saga and of its children, as `saga log` prints it."""
    out().print(f"\n{scene.title}:", style="bold", markup=False)
    lines = [line for one in (view.summary.id, *view.children.values()) async for line in stage.queries.whole_log(one)]
    for line in sorted(lines, key=lambda line: line.position):
        print_line(line, json=False)


async def _claims_hold(stage: Stage, example: Example) -> bool:
    """Look at every claim, print it with what contradicts it, and say so only if nothing does."""
    out().print()
    found = {
        "every saga has left what its end says, and nothing else": await contradictions(stage, example.auditors(stage))
    }
    found |= {claim: list(await look(stage)) for claim, look in example.claims.items()}
    for claim, problems in found.items():
        out().print(
            Text.assemble(("broken" if problems else "holds ", "bold red" if problems else "green"), f"  {claim}")
        )
        for problem in problems:
            out().print(f"        {problem}", markup=False)
    if any(found.values()):
        return False
    out().print("all invariants hold", style="bold")
    return True
