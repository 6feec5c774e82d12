"""What all reasons of one kind share: so that a thousand sentences about one cause are counted, and found, as one."""

import re
from typing import Final

_QUOTED: Final = r"'[^']*'|\"[^\"]*\""
_NUMBER: Final = r"[\w-]*\d[\w-]*(?:[.,:]\d+)*"
_WILD: Final = {"…": f"(?:{_QUOTED}|…)", "#": f"(?:{_NUMBER}|#)"}


def in_common(reason: str) -> str:
    """A reason with `…` for what is quoted, and `#` for every word that has a digit in it: amounts, times, ids."""
    return re.sub(_NUMBER, "#", re.sub(_QUOTED, "…", reason))


def pattern_of(part: str) -> str:
    """A regular expression that finds the reasons with this in them, in whatever case.

    `…` and `#` stand for what `in_common` puts them for. Both Python and PostgreSQL understand it.
    """
    return "(?i)" + "".join(_WILD.get(character) or re.escape(character) for character in part)


def first_line(reason: str) -> str:
    """Without the statement, and the link to its manual, that a database driver adds."""
    return reason.strip().partition("\n")[0]
