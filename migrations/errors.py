"""What can be wrong with a database that does answer."""


class WrongDatabase(Exception):
    """The database is another role's, or of a newer release, or not ours at all: nothing in it was touched."""


class NoSuchRevision(Exception):
    """The revision that was asked for is not in the role's history, or cannot be reached from where it is."""
