"""The saga as Temporal's documentation writes one: a list of compensations, gone through backwards on failure."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities import Steps

_TIMEOUT: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Order:
    """What a saga is started with. `local`: the worker runs the steps itself, without the server's task queue."""

    steps: int
    local: bool = False


@workflow.defn
class Saga:
    """Step after step; when one fails for good, the undo of every step that may have been done."""

    @workflow.run
    async def run(self, order: Order) -> None:
        """Carry the saga out, or leave nothing of it."""
        call = workflow.execute_local_activity_method if order.local else workflow.execute_activity_method
        saga_id = workflow.info().workflow_id
        compensations: list[int] = []
        try:
            for step in range(order.steps):
                compensations.append(step)  # before the step: it may fail after it had its effect
                await call(Steps.carry_out, args=[saga_id, step], start_to_close_timeout=_TIMEOUT)
        except ActivityError:
            for step in reversed(compensations):
                await call(Steps.undo, args=[saga_id, step], start_to_close_timeout=_TIMEOUT)
            raise
