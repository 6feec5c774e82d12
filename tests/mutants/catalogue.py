"""Deliberate mistakes in the state machine. The explorer must find every one of them.

One that survives means that the explorer has a blind spot, not that the mistake is harmless.
"""

from typing import Final

from tests.mutants import backward, forward, hearing, orders
from tests.mutants.planting import Mutant, planted

MUTANTS: Final = (*backward.MUTANTS, *forward.MUTANTS, *hearing.MUTANTS, *orders.MUTANTS)
"""All of them."""

__all__ = ["MUTANTS", "Mutant", "planted"]
