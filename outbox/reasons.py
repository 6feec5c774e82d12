"""What all reasons of one kind share: so that a thousand sentences about one cause are counted as one."""

import re


def in_common(reason: str) -> str:
    """A reason without what is quoted, and without every word that has a digit in it: amounts, times, ids."""
    common = re.sub(r"'[^']*'|\"[^\"]*\"", "…", reason)
    return re.sub(r"[\w-]*\d[\w-]*(?:[.,:]\d+)*", "#", common)
