"""Values that a person types: read, or refused with a sentence that shows how to write them."""

import getpass
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json

from orchestrator.cli.exits import Exit, Failure
from orchestrator.cli.options import age
from orchestrator.door import MAX_INPUT_BYTES

LONGEST_NAME: Final = 200
LONGEST_REASON: Final = 2000
PLACEHOLDER: Final = "…"
"""What stands for a reason, or a value, in a command that we show."""


def reason_of(text: str, option: str = "--reason") -> str:
    """Why something is ordered. Raises Failure."""
    if text.strip(PLACEHOLDER + ". ") == "":
        raise Failure(f"{option}: say why, for whoever reads the log", Exit.USAGE)
    return _text(option, text, LONGEST_REASON)


def person(given: str | None) -> str:
    """Who orders something: the login name when it is not given. Raises Failure."""
    if given is not None:
        return _text("--by", given, LONGEST_NAME)
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a user that has no name, as in some containers
        raise Failure("your login has no name: say who you are with --by", Exit.USAGE) from None


def labels_of(pairs: Sequence[str]) -> dict[str, str]:
    """`["region=eu", …]` as labels. Raises Failure."""
    labels: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise Failure(f"--label {pair!r}: write it like region=eu", Exit.USAGE)
        if name in labels:
            raise Failure(f"--label {name} is there twice, and a saga has each label once", Exit.USAGE)
        labels[name] = _text(f"--label {name}", value, LONGEST_NAME)
    return labels


def moment_of(text: str) -> datetime | timedelta:
    """A moment in RFC 3339, or how long from now: `2026-07-01T08:00:00Z`, `+10m`. Raises Failure."""
    if text.startswith("+"):
        return age(text.removeprefix("+"))
    try:
        if not re.match(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d", text):
            raise ValueError(text)
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise Failure(f"{text!r} has no time zone: write {text}Z, or {text}+02:00", Exit.USAGE)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Failure(f"{text!r} is no time: write it like 2026-07-01T08:00:00Z or +10m", Exit.USAGE) from None


def json_object(option: str, text: str) -> dict[str, Any]:
    """A JSON object: as it is, out of a file (`@file`), or from stdin (`-`). Raises Failure."""
    content = _content(option, text)
    if len(content) > MAX_INPUT_BYTES:
        raise Failure(f"{option} has more than {MAX_INPUT_BYTES:,} bytes, which is the limit")
    try:
        value = from_json(content)
    except ValueError as error:
        raise Failure(f"{option} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Failure(f"{option} is not a JSON object but {type(value).__name__}: write {{…}}")
    return value


def _content(option: str, text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    if not text.startswith("@"):
        return text.encode(errors="surrogateescape")
    try:
        with Path(text[1:]).open("rb") as stream:
            return stream.read(MAX_INPUT_BYTES + 1)
    except (OSError, ValueError) as error:
        raise Failure(f"{option}: {text[1:]} cannot be read: {getattr(error, 'strerror', error)}") from error


def _text(option: str, text: str, longest: int) -> str:
    if not text.strip() or len(text) > longest:
        raise Failure(f"{option} is to be a text of 1 to {longest:,} characters", Exit.USAGE)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Failure(f"{option} is not UTF-8 text", Exit.USAGE) from None
    return text
