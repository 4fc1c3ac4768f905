"""Files that hold secrets: 32 bytes in base64 on one line, readable by their owner only."""

from __future__ import annotations

import os
import stat

from mesh.errors import ConfigError
from mesh.identity import Identity, decode_key, encode_key

_FILE_BYTES_MAX = 1024


def load_identity(path: str, where: str = "") -> Identity:
    """The identity in a private key file.  Raises ConfigError."""
    return Identity(_load(path, "private key", "make one with: vsw keygen", where))


def load_preshared_key(path: str, where: str = "") -> bytes:
    """32 bytes.  Raises ConfigError."""
    return _load(path, "preshared key", "make one with: vsw keygen", where)


def write_private_key(path: str, seed: bytes) -> None:
    """Create the file, mode 0600.  Raises ConfigError when it exists or cannot be made."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigError("the file exists", "choose another name or remove it", path) from None
    except OSError as error:
        raise ConfigError(
            f"the file cannot be made: {error.strerror}", "choose another place", path
        ) from None
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(encode_key(seed) + "\n")


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
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise ConfigError(f"the {what} file is no ordinary file", f"{make} FILE", place)
        if info.st_mode & 0o077:
            raise ConfigError(
                f"others may read or write the {what} file (mode {stat.S_IMODE(info.st_mode):04o})",
                f"chmod 600 {path}",
                place,
            )
        content = os.read(fd, _FILE_BYTES_MAX + 1)
    finally:
        os.close(fd)
    lines = content.splitlines()
    if len(content) > _FILE_BYTES_MAX or len(lines) != 1:
        raise ConfigError(f"the {what} file is not a single line", f"{make} FILE", place)
    try:
        text = lines[0].strip().decode("ascii")
    except UnicodeDecodeError:
        text = "\0"
    return decode_key(text, what, place)
