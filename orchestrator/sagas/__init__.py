"""The sagas that this orchestrator runs. Add yours to `DEFINITIONS`."""

from collections.abc import Mapping
from typing import Any, Final

from orchestrator.definition import Saga
from orchestrator.sagas.place_order import place_order

DEFINITIONS: Final[Mapping[str, Saga[Any]]] = {saga.name: saga for saga in (place_order,)}
