"""The runner of the peers: what it reports of a right run, of a wrong one, and of one that breaks."""

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import asyncpg
import pytest

from benchmarks.peers import load, work
from benchmarks.peers.__main__ import main
from tests.support.servers import Postgres

HONEST = """
    import asyncio, sys
    sys.path.append({packages!r})
    from benchmarks.peers import load, work

    async def worker(options, share):
        pools = await work.open_pools(load.urls(), size=2)
        await share.all_ready()
        async def run(number):
            for step in range(options.steps):
                await work.carry_out(pools, f"{{share.index}}-{{number}}", step)
        figures = await share.measure(run)
        await work.close_pools(pools)
        return figures

    if __name__ == "__main__":
        options = load.Options.parse()
        figures = load.spread(worker, options, 2)
        load.report(options, figures, system="fake", version="1", settings={{"processes": 2}}, warm_up=0)
"""
FORGETFUL = HONEST.replace("range(options.steps)", "range(options.steps - (number == 3))")
BROKEN = "import sys; sys.exit('the disk is full')"
SILENT = "print('it went well')"
OPTIONS = ["--steps", "4", "--sagas", "20", "--in-flight", "5", "--json"]


@pytest.fixture
def peers(tmp_path: Path) -> Path:
    """Peers that need no packages of their own: they borrow asyncpg from the tests."""
    packages = str(Path(asyncpg.__file__).parents[1])
    for name, code in {"honest": HONEST, "forgetful": FORGETFUL, "broken": BROKEN, "silent": SILENT}.items():
        script = tmp_path / "peers" / name / "run.py"
        script.parent.mkdir(parents=True)
        script.write_text(dedent(code).format(packages=packages))
    uninstallable = tmp_path / "peers" / "uninstallable"
    uninstallable.mkdir()
    (uninstallable / "run.py").write_text(BROKEN)
    (uninstallable / "requirements.txt").write_text("./not-there.whl\n")
    return tmp_path / "peers"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the runner keeps everything. PostgreSQL must be able to reach it, as it cannot a folder of pytest's."""
    made = Path(tempfile.mkdtemp(prefix="amends-test-bench-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


def test_a_wrong_run_is_a_failed_run_and_the_other_peers_are_run_all_the_same(
    peers: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main([*OPTIONS, "--folder", str(folder)], peers=peers)

    results: dict[str, dict[str, Any]] = {
        result["peer"]: result for result in json.loads(capsys.readouterr().out)["results"]
    }
    assert status == 1
    assert list(results) == ["broken", "forgetful", "honest", "silent", "uninstallable"]
    assert "the disk is full" in results["broken"]["error"]
    assert "did the work wrong: order" in results["forgetful"]["error"]  # step 3 is its second step
    assert "printed no figures" in results["silent"]["error"]
    assert "not-there.whl" in results["uninstallable"]["error"]
    assert "error" not in results["honest"]
    assert results["honest"]["sagas"] == 20
    assert results["honest"]["p50_ms"] <= results["honest"]["p99_ms"] <= results["honest"]["max_ms"]


def test_runs_that_all_go_well_end_with_0_and_a_table(
    peers: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["honest", *OPTIONS[:-1], "--rate", "200", "--folder", str(folder)], peers=peers) == 0
    assert "fake" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["peers"], "the databases are gone"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [(["nobody"], "no peer 'nobody'"), (["--steps", "0"], "more than 0"), (["--rate", "0"], "more than 0")],
)
def test_nonsense_is_refused_in_a_sentence(
    arguments: list[str], reason: str, peers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments, peers=peers)
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err


@pytest.fixture
async def urls(postgres: Postgres) -> AsyncIterator[Mapping[str, str]]:
    """Three prepared databases for the participants."""
    names = {name: f"test_peers_{name}" for name in work.PARTICIPANTS}
    postgres.drop_database(*names.values())
    postgres.create_database(*names.values())
    found = {name: postgres.url(database).replace("+asyncpg", "") for name, database in names.items()}
    await work.prepare(found)
    yield found
    postgres.drop_database(*names.values())


@pytest.fixture
async def pools(urls: Mapping[str, str]) -> AsyncIterator[list[asyncpg.Pool]]:
    """Connections to them."""
    opened = await work.open_pools(urls, size=2)
    yield opened
    await work.close_pools(opened)


async def test_a_step_that_is_asked_for_twice_is_done_once(urls: Mapping[str, str], pools: list[asyncpg.Pool]) -> None:
    for step in (0, 1, 2, 3, 3):
        await work.carry_out(pools, "one", step)
    await work.check(urls, 1, 4)


async def test_an_undo_takes_a_step_back_once_and_bars_it(urls: Mapping[str, str], pools: list[asyncpg.Pool]) -> None:
    await work.carry_out(pools, "one", 0)
    for _ in range(2):
        await work.undo(pools, "one", 0)
        await work.undo(pools, "one", 1)
    await work.carry_out(pools, "one", 1)
    assert [await pool.fetchval("SELECT sum(amount)::integer FROM accounts") for pool in pools] == [0, 0, 0]
    assert [await pool.fetchval("SELECT string_agg(status, ',') FROM effects") for pool in pools] == [
        "undone",
        None,
        None,
    ]


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM effects WHERE id = 'one/1'",
        "UPDATE effects SET status = 'undone' WHERE id = 'one/1'",
        "UPDATE effects SET step = 4 WHERE id = 'one/1'",
        "UPDATE accounts SET amount = amount + 1 WHERE id = 7",
    ],
)
async def test_the_check_sees_what_went_wrong(harm: str, urls: Mapping[str, str], pools: list[asyncpg.Pool]) -> None:
    for step in range(5):
        await work.carry_out(pools, "one", step)
    await work.check(urls, 1, 5)
    await pools[1].execute(harm)
    with pytest.raises(work.WrongRunError, match=r"^inventory: "):
        await work.check(urls, 1, 5)


def test_the_shares_of_the_processes_add_up() -> None:
    options = load.Options(steps=3, sagas=101, in_flight=7, rate=30.0, empty=False)
    shares = [load.Share.of(options, index, 3) for index in range(3)]
    assert sum(share.sagas for share in shares) == 101
    assert sum(share.in_flight for share in shares) == 7
    assert sum(share.rate or 0 for share in shares) == 30


async def test_a_closed_loop_keeps_just_so_many_sagas_under_way() -> None:
    seen: list[int] = []
    running = 0

    async def run(number: int) -> None:
        nonlocal running
        running += 1
        seen.append(running)
        await asyncio.sleep(0)
        running -= 1

    share = load.Share.of(load.Options(steps=1, sagas=20, in_flight=4, rate=None, empty=True), 0, 1)
    figures = await share.measure(run)
    assert len(figures.latencies) == len(seen) == 20
    assert max(seen) == 4


async def test_an_open_loop_counts_from_when_a_saga_should_have_begun() -> None:
    async def stall(number: int) -> None:
        time.sleep(0.02)  # noqa: ASYNC251 - nothing else gets to run: the next sagas are late

    share = load.Share.of(load.Options(steps=1, sagas=6, in_flight=1, rate=1_000.0, empty=True), 0, 1)
    figures = await share.measure(stall)
    assert max(figures.latencies) > 6 * 0.02 - 6 / 1_000
