"""The examples run as their page says, and what they say of themselves in the end is looked at, not assumed."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Executable, delete, update

from examples.playbill import Example, Scene, run
from examples.stage import Stage
from examples.transfer.__main__ import TRANSFER, all_well, refused
from examples.transfer.payee_bank.models import Account
from examples.transfer.payer_bank.models import Account as PayerAccount
from examples.travel.__main__ import TRAVEL, cheap
from examples.travel.cards.models import Card
from examples.travel.flights.models import Flight
from examples.travel.hotels.models import Hotel
from examples.travel.mail.models import Letter

REPOSITORY = Path(__file__).parents[2]
OURS, NATS_SERVER = ("SAGA_", "FORCE_COLOR"), "SAGA_NATS_SERVER"
PAGE = (REPOSITORY / "examples" / "README.md").read_text()


def play(example: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m examples.…`, as a person types it."""
    return subprocess.run(
        [sys.executable, "-m", f"examples.{example}", *arguments],
        cwd=REPOSITORY,
        env={name: value for name, value in os.environ.items() if not name.startswith(OURS) or name == NATS_SERVER},
        capture_output=True,
        text=True,
        timeout=100,
    )


def stories(output: str) -> dict[str, str]:
    """Title -> how it ended, out of the table."""
    return dict(re.findall(r"^([a-z].*?) {2,}(completed|compensated|stuck)\b", output, flags=re.MULTILINE))


def claims(output: str, verdict: str = "holds") -> list[str]:
    """The claims of which this was said."""
    return re.findall(rf"^{verdict} +(.*)$", output, flags=re.MULTILINE)


def logged(output: str) -> set[tuple[str, str]]:
    """(what happened, to which step), out of the log."""
    lines = re.findall(r"^\d\d:\d\d:\d\d\.\d{3}  \w{26}  (\S+)(?: +(\S+))?", output, flags=re.MULTILINE)
    return {(kind, step) for kind, step in lines}


@pytest.mark.parametrize("example", ["travel", "transfer"])
def test_an_example_does_what_its_page_shows(example: str) -> None:
    done = play(example)
    assert (done.returncode, done.stderr) == (0, "")
    shown = re.search(rf"\$ python -m examples\.{example}\n(.*?)```", PAGE, flags=re.DOTALL)
    assert shown is not None
    assert len(stories(done.stdout)) >= 5
    assert stories(done.stdout) == stories(shown[1])
    assert claims(done.stdout) == claims(shown[1])
    assert len(logged(shown[1])) > 10
    assert logged(done.stdout) >= logged(shown[1])
    assert done.stdout.splitlines()[-1] == "all invariants hold"


def test_the_databases_are_kept_where_one_says_and_never_mixed_with_others(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    first = play("transfer", "--data-dir", str(folder))
    assert first.returncode == 0
    assert f"saga ls --data-dir {folder}" in first.stderr
    assert {one.name for one in folder.glob("*.db")} == {
        *("orchestrator.db", "payer-bank.db", "payee-bank.db", "clearing.db")
    }
    again = play("transfer", "--data-dir", str(folder))
    assert again.returncode == 2
    assert "is not an empty folder" in again.stderr
    assert "Traceback" not in again.stderr


def with_a_thief(example: Example, *thefts: tuple[str, Executable], scene: Scene) -> Example:
    """The same example with one scene, after which somebody changes the databases behind everybody's back."""

    async def story(stage: Stage) -> str:
        saga_id = await scene.story(stage)
        await stage.ends(saga_id)
        for role, theft in thefts:
            async with stage.databases[role].transaction() as connection:
                await connection.execute(theft)
        return saga_id

    return replace(example, scenes=(replace(scene, story=story),))


def test_a_trip_that_lacks_something_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    robbed = with_a_thief(
        TRAVEL,
        ("flights", update(Flight.table).values(free=[])),
        ("hotels", update(Hotel.table).values(free=Hotel.table.c.free + 1)),
        ("cards", update(Card.table).values(left=Decimal(0))),
        ("mail", delete(Letter.table)),
        scene=Scene("a cheap trip", "completed", cheap),
    )
    assert run(robbed, []) == 1
    output = capsys.readouterr().out
    assert claims(output) == []
    assert len(claims(output, "broken")) == 1 + len(TRAVEL.claims)
    assert "all invariants hold" not in output


def test_money_that_goes_astray_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    robbed = with_a_thief(
        TRANSFER,
        ("payer-bank", update(PayerAccount.table).values(held=Decimal(1))),
        ("payee-bank", update(Account.table).values(balance=Decimal(-1))),
        scene=Scene("all is well", "completed", all_well),
    )
    assert run(robbed, []) == 1
    output = capsys.readouterr().out
    assert claims(output) == ["every saga has left what its end says, and nothing else"]
    assert len(claims(output, "broken")) == len(TRANSFER.claims)
    assert "all invariants hold" not in output


def test_a_story_with_another_end_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(replace(TRANSFER, scenes=(Scene("it is refused", "completed", refused),)), []) == 1
    assert "compensated (it should be completed)" in capsys.readouterr().out
