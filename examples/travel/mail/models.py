"""The rows of the mail service."""

from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import Column, String, Table, Text

from outbox.tables import new_metadata
from participants.runtime import Participant

metadata = new_metadata()
participant = Participant("mail", metadata)


@dataclass(frozen=True, slots=True)
class Letter:
    """What was written to a customer."""

    table: ClassVar[Table] = Table(
        "letters",
        metadata,
        Column("trip_id", String(64), primary_key=True),
        Column("text", Text, nullable=False),
    )
    trip_id: str
    text: str
