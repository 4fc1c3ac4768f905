"""What can go wrong in a benchmark."""


class BenchError(Exception):
    """A run that cannot go on; the message is for the user."""


class UsageError(BenchError):
    """A wrong command line."""
