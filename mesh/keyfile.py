"""The file that holds the private key: 32 bytes in base64 on one line, readable by their owner only."""

from __future__ import annotations

import os
import stat

from mesh.errors import ConfigError
from mesh.identity import Identity, decode_key

_FILE_BYTES_MAX = 1024


def load_identity(path: str, where: str = "") -> Identity:
    """The identity in a private key file.  Raises ConfigError."""
    return Identity(_load(path, "private key", "make one with: vsw keygen", where))


def _load(path: str, what: str, make: str, where: str) -> bytes:
    """where: the configuration key that named the file; stands before the path."""
    place = f"{where}: {path}" if where else path
    try:
        # O_NONBLOCK: a FIFO at this path must not hang the daemon.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ConfigError(f"the {what} file does not exist", f"{make} {path}", place) from None
    except OSError as error:
        raise ConfigError(
            f"the {what} file cannot be read: {error.strerror}",
            "make it readable for the user that runs the daemon",
            place,
        ) from None
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise ConfigError(f"the {what} file is no ordinary file", f"{make} FILE", place)
        if info.st_mode & 0o077:
            raise ConfigError(
                f"others may read or write the {what} file"
                f" (mode {stat.S_IMODE(info.st_mode):04o})",
                f"chmod 600 {path}",
                place,
            )
        content = file.read(_FILE_BYTES_MAX + 1)
    lines = content.splitlines()
    if len(content) > _FILE_BYTES_MAX or len(lines) != 1:
        raise ConfigError(f"the {what} file is not a single line", f"{make} FILE", place)
    try:
        text = lines[0].strip().decode("ascii")
    except UnicodeDecodeError:
        text = "\0"
    return decode_key(text, what, place)
