"""The suite's errors."""


class SuiteError(Exception):
    """Anything that keeps the suite from measuring."""


class UsageError(SuiteError):
    """The user asked for something impossible, or the machine lacks something; exit status 2."""


class GuestError(SuiteError):
    """A guest did not boot, died, or stopped answering."""


class TopologyError(SuiteError):
    """A namespace, link, bridge or rule could not be made."""


class ToolError(SuiteError):
    """A measuring tool failed or printed something that is not a result."""
