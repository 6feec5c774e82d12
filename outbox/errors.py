"""What can be out of reach, said so that a person knows what to do."""


class OutOfReach(Exception):
    """A server that we need does not answer. Nothing is lost; the same call may be made again.

    `what` is a clause, for a sentence of somebody else's; the message also says what to do.
    """

    def __init__(self, what: str = "", advice: str = "") -> None:
        super().__init__(f"{what}: {advice}" if advice else what)
        self.what = what


class DatabaseOutOfReach(OutOfReach):
    """The database does not answer, or refuses us."""


class DatabaseBusy(DatabaseOutOfReach):
    """The database answers, but somebody holds the tables or rows that we need."""


class BrokerOutOfReach(OutOfReach):
    """NATS does not answer, or its JetStream is not there."""


class SchemaMissing(Exception):
    """The database answers, but it does not hold our tables, or holds those of another release."""


class MessageTooLarge(Exception):
    """A message that the broker would never take: it is refused before it becomes a row."""
