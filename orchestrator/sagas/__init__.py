"""The sagas that come with Amends."""

from typing import Final

from orchestrator.registry import Definitions
from orchestrator.sagas.place_order import place_order

DEFINITIONS: Final = Definitions([place_order])
