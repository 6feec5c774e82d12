"""Deliberate mistakes outside of the state machine. The simulation must find every one of them.

One that survives means that the simulation has a blind spot, not that the mistake is harmless.
"""

from typing import Final

from tests.mutants import carrying, keeping, serving
from tests.mutants.planting import Bug, dug_in

BUGS: Final = (*carrying.BUGS, *keeping.BUGS, *serving.BUGS)
"""All of them."""

__all__ = ["BUGS", "Bug", "dug_in"]
