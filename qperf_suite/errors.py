"""The suite's errors."""


class SuiteError(Exception):
    """Anything that keeps the suite from measuring. said: what tools had printed until then."""

    def __init__(self, words: str, said: str = "") -> None:
        super().__init__(words)
        self.said = said


class UsageError(SuiteError):
    """The user asked for something impossible, or the machine lacks something; exit status 2."""


class GuestError(SuiteError):
    """A guest did not boot, died, or stopped answering."""


class TopologyError(SuiteError):
    """A namespace, link, bridge or rule could not be made, or a switch has ended."""


class ToolError(SuiteError):
    """A measuring tool failed or printed something that is not a result."""


class ToolRefusedError(ToolError):
    """A tool said itself why it could not measure."""


class TruncatedOutputError(ToolError):
    """A tool's output ends before its result."""


class GarbledOutputError(ToolError):
    """A tool's output holds what the tool does not print, or a value that cannot be."""
