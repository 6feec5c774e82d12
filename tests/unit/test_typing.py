"""Illegal sagas do not type-check: what mypy --strict says of `typing_tests/must_not_type_check.py`, line by line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = ROOT / "tests" / "typing_tests" / "must_not_type_check.py"
MARK = re.compile(r"  # type: ignore\[(?P<code>[\w-]+)\]$")

Errors = set[tuple[int, str]]


@pytest.fixture(scope="module")
def said_by_mypy(tmp_path_factory: pytest.TempPathFactory) -> Errors:
    """The line and code of every error in a copy of the file without its marks."""
    copy = tmp_path_factory.mktemp("typing") / "unmarked.py"
    copy.write_text("\n".join(MARK.sub("", line) for line in lines()))
    mypy = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-pretty", "--show-error-codes"]
    ran = subprocess.run([*mypy, str(copy)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode in (0, 1), ran.stderr
    found = re.findall(r":(\d+): error: .*\[([\w-]+)\]$", ran.stdout, re.MULTILINE)
    return {(int(line), code) for line, code in found}


def lines() -> list[str]:
    return FORBIDDEN.read_text().splitlines()


def marked() -> list[tuple[int, str]]:
    marks = [(number, MARK.search(line)) for number, line in enumerate(lines(), start=1)]
    return [(number, mark["code"]) for number, mark in marks if mark]


@pytest.mark.parametrize(("line", "code"), marked(), ids=[MARK.sub("", lines()[line - 1]) for line, _ in marked()])
def test_it_does_not_type_check(line: int, code: str, said_by_mypy: Errors) -> None:
    assert (line, code) in said_by_mypy


def test_everything_else_type_checks(said_by_mypy: Errors) -> None:
    assert said_by_mypy <= set(marked())
