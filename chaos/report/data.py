"""JSON: the record itself, and what follows from it. A file that was written can be read again."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from chaos.record import Record
from chaos.report import figures
from chaos.report.figures import Kind


class NoRecord(Exception):
    """A file that is not the JSON of a chaos run."""


def to_json(record: Record) -> dict[str, Any]:
    """The record, and besides `fired`, `verdict` and the `recovery` by kind, in seconds."""
    derived = {
        "fired": record.fired,
        "verdict": record.verdict,
        "recovery": {kind.name: _recovery(kind) for kind in figures.kinds(record.faults)},
    }
    return record.model_dump(mode="json") | derived


def load(file: Path) -> Record:
    """What was kept of a run. Raises NoRecord."""
    try:
        return Record.model_validate_json(file.read_bytes())
    except OSError as error:
        raise NoRecord(f"{file}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise NoRecord(f"{file} is not the JSON of a chaos run: {where and f'{where}: '}{first['msg']}") from error


def _recovery(kind: Kind) -> dict[str, float | int | None]:
    return {"median": kind.recovery, "worst": kind.worst, "unrecovered": kind.unrecovered}
