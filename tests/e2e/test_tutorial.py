"""docs/tutorial.md, followed to the letter: its files are made, its commands are run, its output is compared."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
CONSOLE = re.findall(r"```console\n(.*?)```", TUTORIAL, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file that the tutorial makes."""
    made = tmp_path_factory.mktemp("tutorial")
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", TUTORIAL, re.DOTALL):
        with (made / name).open("a") as file:
            file.write(f"{code}\n\n")
    return made


def commands() -> list[tuple[str, str]]:
    """(command, what it prints) of every console block."""
    parts = [part for block in CONSOLE for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


def test_it_makes_the_files_that_it_speaks_of(folder: Path) -> None:
    assert {file.name for file in folder.iterdir()} == {"workshop.py", "test_workshop.py", "services.py", "run.py"}
    assert len(commands()) == 5


@pytest.mark.parametrize(("command", "printed"), commands(), ids=[command for command, _ in commands()])
def test_its_commands_print_what_it_says(folder: Path, command: str, printed: str) -> None:
    program, *arguments = command.split()
    module = ["-m", "orchestrator.cli"] if program == "saga" else []
    ran = subprocess.run(
        [sys.executable, *module, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:.", "SAGA_DEFINITIONS": "workshop", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = f"{ran.stdout}\n{ran.stderr}"
    missing = [line for line in printed.splitlines() if line.strip() and line.strip() not in said]
    assert missing == [], said


def test_its_code_type_checks(folder: Path) -> None:
    files = [str(folder / name) for name in ("workshop.py", "services.py", "test_workshop.py", "run.py")]
    mypy = [sys.executable, "-m", "mypy", "--strict", "--explicit-package-bases"]
    environment = os.environ | {"MYPYPATH": f"{ROOT}:{folder}"}
    ran = subprocess.run([*mypy, *files], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
