"""Telling what came of an order, or would come of it: for a person, and for a script."""

from typing import Any

import orjson

from orchestrator.bulk import Outcome
from orchestrator.cli import console
from orchestrator.entries import ENTRIES
from orchestrator.machine import Dispatch


def to_json(outcome: Outcome, *, dry_run: bool = False) -> dict[str, Any]:
    """One saga: what was sent and logged, or would be."""
    decision = outcome.decision
    return {
        "saga_id": outcome.saga_id,
        "outcome": outcome.kind,
        "dry_run": dry_run,
        "why": outcome.why,
        "status": decision.saga.status if decision else None,
        "commands": [_command(one) for one in decision.dispatches] if decision else [],
        "entries": ENTRIES.dump_python(list(decision.entries), mode="json") if decision else [],
    }


def print_foreseen(outcome: Outcome) -> None:
    """Exactly which commands would be sent, and which entries would be written."""
    if outcome.decision is None:
        _line(f"saga {outcome.saga_id}: nothing would happen: {outcome.why}")
        return
    told = to_json(outcome)
    _line(f"saga {outcome.saga_id}: it would be {told['status']}")
    _line("  would be sent:" if told["commands"] else "  nothing would be sent")
    for one in told["commands"]:
        _line(f"    {one['id']}  attempt {one['attempt']}  {one['subject']}  {_compact(one['data'])}")
    _line("  would be logged:")
    for entry in told["entries"]:
        kind, step = entry.pop("kind"), entry.pop("step", "")
        _line(f"    {kind}  {step}  {_compact(entry)}" if step else f"    {kind}  {_compact(entry)}")


def _command(dispatch: Dispatch) -> dict[str, Any]:
    command = dispatch.command
    return {
        "id": dispatch.command_id,
        "attempt": dispatch.attempt,
        "subject": command.subject(),
        "data": command.model_dump(mode="json"),
    }


def _compact(value: dict[str, Any]) -> str:
    return orjson.dumps({name: one for name, one in value.items() if one is not None}).decode()


def _line(text: str) -> None:
    console.out().print(text, markup=False, soft_wrap=True)
