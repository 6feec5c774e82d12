"""Exit codes, and the errors that lead to them. Documented in the README and in `saga --help`."""

from enum import IntEnum

from migrations.errors import NoSuchRevision, WrongDatabase
from orchestrator.cron import BadCron
from orchestrator.definition import InvalidDefinition
from orchestrator.door import BadInput
from orchestrator.embedded import EmbeddedServerError
from orchestrator.engine import NotLoaded, UnknownSaga
from orchestrator.health import BadAddress
from orchestrator.letters import UnknownLetter
from orchestrator.schedules import BadSchedule, ScheduleExists, UnknownSchedule
from orchestrator.settings import BadSettings
from orchestrator.store import LostRace
from outbox.errors import MessageTooLarge, OutOfReach, SchemaMissing


class Exit(IntEnum):
    """What a script reads from `$?`.

    VIOLATION is for whoever looks for broken promises (verify, explore, simulate, chaos run) and has found one. Whoever
    has looked and shown nothing, since nothing went wrong or no saga completed, ends with ERROR.
    """

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    COMPENSATED = 5
    STUCK = 6
    OUT_OF_REACH = 7
    VIOLATION = 8
    TIMED_OUT = 124
    INTERRUPTED = 130


class Failure(Exception):
    """A command that ends with a sentence on stderr and this exit code."""

    def __init__(self, message: str, code: Exit = Exit.ERROR) -> None:
        super().__init__(message)
        self.code = code


EXPECTED: tuple[tuple[type[Exception], Exit], ...] = (
    (UnknownSaga, Exit.NOT_FOUND),
    (NotLoaded, Exit.CONFLICT),
    (UnknownSchedule, Exit.NOT_FOUND),
    (UnknownLetter, Exit.NOT_FOUND),
    (ScheduleExists, Exit.CONFLICT),
    (BadSchedule, Exit.USAGE),
    (BadCron, Exit.USAGE),
    (LostRace, Exit.CONFLICT),
    (OutOfReach, Exit.OUT_OF_REACH),
    (SchemaMissing, Exit.ERROR),
    (WrongDatabase, Exit.ERROR),
    (NoSuchRevision, Exit.USAGE),
    (BadInput, Exit.ERROR),
    (MessageTooLarge, Exit.ERROR),
    (InvalidDefinition, Exit.ERROR),
    (BadSettings, Exit.USAGE),
    (BadAddress, Exit.USAGE),
    (EmbeddedServerError, Exit.ERROR),
)
"""Errors that the user can do something about: a sentence, never a traceback."""


def exit_code(error: Exception) -> Exit | None:
    """The exit code of an expected error; None for one that is a bug."""
    if isinstance(error, Failure):
        return error.code
    return next((code for kind, code in EXPECTED if isinstance(error, kind)), None)
