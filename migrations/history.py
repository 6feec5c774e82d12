"""The revisions of each role, read from its folder `versions`. There is no alembic.ini and no env.py."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from alembic.script import ScriptDirectory

from migrations.errors import WrongDatabase
from migrations.registry import ROLES

_HERE = Path(__file__).parent


@cache
def history(role: str) -> ScriptDirectory:
    """The revisions of `role`; a ValueError when there is no such role."""
    if role not in ROLES:
        raise ValueError(f"there is no role {role!r}: choose one of {', '.join(ROLES)}")
    return ScriptDirectory(_HERE, version_locations=[_HERE / role / "versions"])


def revisions(role: str) -> list[str]:
    """Every revision of `role`, oldest first."""
    return [script.revision for script in history(role).walk_revisions()][::-1]


def head(role: str) -> str:
    """The revision that this release of `role` works with."""
    return revisions(role)[-1]


def position(role: str, found: Iterable[str], database: object) -> str | None:
    """Which of the role's revisions the database is at, given what its version table holds."""
    marks = sorted(found)
    if not marks:
        return None
    if len(marks) == 1 and marks[0] in revisions(role):
        return marks[0]
    raise WrongDatabase(
        f"the database {database} is at {', '.join(marks)}, which is no revision of {role} in this release: "
        f"{_whose(marks)}"
    )


def _whose(marks: list[str]) -> str:
    for other in ROLES:
        if set(marks) & set(revisions(other)):
            return f"it belongs to the role {other}. Give every role a database of its own (`saga config show`)"
    return (
        "it belongs to another system, or to a newer release. Run that release, or let it downgrade the database first"
    )
