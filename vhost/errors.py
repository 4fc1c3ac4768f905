"""Everything that vhost raises."""

import os


class VhostError(Exception):
    """Base of all; its text is meant for the user."""


class LocalError(VhostError):
    """We misused an object: a bug of ours."""


class RemoteError(VhostError):
    """The front-end broke the protocol; its connection ends."""


class DisconnectedError(RemoteError):
    """The front-end went away, as front-ends do."""


class RefusedError(VhostError):
    """A well-formed request that cannot be done; answered so when the front-end wants answers."""


class StateFileError(VhostError):
    """A port's state file cannot be had; the port works without."""


class CoreError(VhostError):
    """A C function failed.

    errno: positive.
    """

    def __init__(self, errno: int, what: str) -> None:
        super().__init__(f"{what}: {os.strerror(errno)}")
        self.errno = errno
