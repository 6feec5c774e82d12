"""What can go wrong with a run, told in a sentence."""


class BadOptions(Exception):
    """Options that make no sense. Says which, and what to do."""


class ChaosFailed(Exception):
    """The run could not be made, so it has shown nothing."""


class Missed(Exception):
    """A fault that was planned and did not happen. Says why. It does not count."""
