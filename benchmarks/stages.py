"""How a run tells a person what it is doing."""

from collections.abc import Callable
from contextlib import AbstractContextManager

Advance = Callable[[int], None]
"""Is told how much more is done."""

Stage = Callable[[str, float | None], AbstractContextManager[Advance]]
"""Opens one stage of the run: what it is, and how much of it there is, if that is known."""
