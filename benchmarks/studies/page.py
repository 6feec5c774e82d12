"""docs/performance.md: prose by hand, and between two marks what is rendered from the results.

<!-- study: NAME -->
<!-- end -->
"""

import re
from pathlib import Path

from benchmarks.studies.catalogue import STUDIES
from benchmarks.studies.store import PAGE, load
from benchmarks.studies.tables import part


def rendered(text: str, docs: Path) -> str:
    """The page as the results in `docs` have it. Raises KeyError on a mark of a study that there is not."""
    between = r"(?s)<!-- study: ([\w-]+) -->\n.*?<!-- end -->"
    return re.sub(between, lambda marks: f"<!-- study: {marks[1]} -->\n{_part(marks[1], docs)}<!-- end -->", text)


def render(docs: Path) -> None:
    """Render the page anew, where there is one."""
    page = docs / PAGE
    if page.exists():
        page.write_text(rendered(page.read_text(encoding="utf-8"), docs), encoding="utf-8")


def _part(name: str, docs: Path) -> str:
    return part(STUDIES[name], load(docs, name))
