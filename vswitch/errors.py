"""The errors of the vswitch package."""

import os
from dataclasses import dataclass


class VswError(Exception):
    """Anything that this package raises on purpose."""


@dataclass(frozen=True)
class Place:
    """Where a mistake stands: a file, and in it a key or a line.  Empty parts are unknown."""

    file: str = ""
    key: str = ""
    line: int = 0

    def __str__(self) -> str:
        parts = [self.file, f"line {self.line}" if self.line else "", self.key]
        return ": ".join(part for part in parts if part)


class UserError(VswError):
    """The user's mistake: what is wrong, where, and what to do.  Always one message.

    what:   what was found and what was expected instead.
    remedy: what to do about it, as an imperative; "" when what says it already.
    """

    def __init__(self, what: str, remedy: str, place: Place | None = None) -> None:
        self.what = what
        self.remedy = remedy
        self.place = place or Place()
        super().__init__(what, remedy)

    def __str__(self) -> str:
        where = str(self.place)
        message = f"{self.what}; {self.remedy}" if self.remedy else self.what
        return f"{where}: {message}" if where else message


class CoreError(VswError):
    """The data plane refused a call.  errno: positive, as in errno.h."""

    def __init__(self, errno: int, what: str) -> None:
        self.errno = errno
        self.what = what
        super().__init__(errno, what)

    def __str__(self) -> str:
        return f"{self.what}: {os.strerror(self.errno)}"
