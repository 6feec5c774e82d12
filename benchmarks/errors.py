"""What can go wrong with a run, told in a sentence."""


class BadOptions(Exception):
    """Options that make no sense together. Says which, and what to do."""


class RunFailed(Exception):
    """The run did not come to its end, so there are no figures."""
