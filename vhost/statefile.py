"""What has to outlive the switch: one file per port, mapped for the port's life.

A split ring says itself how far it came (used->idx); a packed one does not, so its position lies
here, in a record that C writes.  A record counts only for the ring it was written for: in the same
memory, at the same place, of the same size.  The features that the guest took are here, too: a
switch that offers fewer will not be accepted, and can say why.

Layout: a header; then for each ring, at equal distances, its key and its record.  What is valid is
marked last, so a switch that is killed in the middle leaves nothing that is half true.

The file is the daemon's alone: private, and locked, so that two of them never share a ring.
"""

import contextlib
import fcntl
import hashlib
import mmap
import os
import stat
import struct
from dataclasses import astuple, dataclass

from vhost.errors import StateFileError
from vhost.messages import MAX_RINGS

# Magic, version, record bytes, features offered, taken, protocol features; then the socket's path.
HEADER = struct.Struct("=8sIIQQQ")
MAGIC = b"vswrings"
VERSION = 1
PATH_AT = HEADER.size
PATH_BYTES = 112  # sun_path and zeros behind it; of a longer one, its end
RINGS_AT = 4096
KEY_AT, KEY_BYTES = 8, 128  # behind a mark of 8 bytes
MARK = struct.Struct("=Q")
VALID = 0x676E6972  # any number that is not found by chance
KEY = struct.Struct("=10Q")
RECORD_ALIGN = 64
TRIES = 16


def file_name(socket_path: str) -> str:
    """What the file of a port is called: two ports never have one socket."""
    path = os.path.abspath(socket_path)
    digest = hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()
    return f"{os.path.basename(path)}-{digest}.rings"


@dataclass(frozen=True)
class Place:
    """Where something of a ring lies: a byte of a file."""

    device: int
    inode: int
    offset: int


@dataclass(frozen=True)
class RingKey:
    """What makes a ring the same ring.  Places of descriptors, driver's and device's area."""

    num: int
    descriptors: Place
    driver: Place
    device: Place

    def pack(self) -> bytes:
        places = (self.descriptors, self.driver, self.device)
        return KEY.pack(self.num, *(value for place in places for value in astuple(place)))

    @classmethod
    def unpack(cls, data: bytes) -> "RingKey":
        num, *values = KEY.unpack(data)
        return cls(num, *(Place(*values[i : i + 3]) for i in (0, 3, 6)))

    def difference(self, former: "RingKey") -> str:
        """What is another than it was; "" when all is the same."""
        mine = (self.descriptors, self.driver, self.device)
        theirs = (former.descriptors, former.driver, former.device)
        if [(p.device, p.inode) for p in mine] != [(p.device, p.inode) for p in theirs]:
            return "memory is another one"
        if mine != theirs:
            return "it lies elsewhere in memory"
        return "its size is another one" if self.num != former.num else ""


@dataclass(frozen=True)
class Negotiated:
    """Feature bits: what we offered, what the guest took of it."""

    offered: int = 0
    features: int = 0
    protocol_features: int = 0


class StateFile:
    """An open, locked and mapped file.

    record_bytes: of one ring's record.  map: all of the file.
    """

    def __init__(self, path: str, socket_path: str, record_bytes: int) -> None:
        """Raises StateFileError when there can be none."""
        self.path = path
        self._record_bytes = record_bytes
        self._stride = -(-(KEY_BYTES + record_bytes) // RECORD_ALIGN) * RECORD_ALIGN
        self._head = HEADER.pack(MAGIC, VERSION, record_bytes, 0, 0, 0)[: HEADER.size - 24]
        self._socket = os.fsencode(socket_path)[-PATH_BYTES:].ljust(PATH_BYTES, b"\0")
        size = RINGS_AT + MAX_RINGS * self._stride
        try:
            self._fd = _open_private(path)
            try:
                if os.fstat(self._fd).st_size != size:
                    self._blank(size)
                self.map = mmap.mmap(self._fd, size)
                if not self._is_ours():
                    self.map.close()
                    self._blank(size)
                    self.map = mmap.mmap(self._fd, size)
                    self._sign()
            except OSError:
                os.close(self._fd)
                raise
        except OSError as error:
            raise StateFileError(f"cannot use {path}: {error.strerror}") from error

    def close(self) -> None:
        """No ring may use its record.  A file that tells nothing is removed."""
        if self.negotiated == Negotiated():
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self.map.close()
        os.close(self._fd)

    # ---- features

    @property
    def negotiated(self) -> Negotiated:
        return Negotiated(*HEADER.unpack_from(self.map)[3:])

    @negotiated.setter
    def negotiated(self, value: Negotiated) -> None:
        HEADER.pack_into(self.map, 0, MAGIC, VERSION, self._record_bytes, *astuple(value))

    # ---- rings

    def record(self, index: int) -> memoryview:
        """To be let go of before close()."""
        at = self._ring_at(index) + KEY_BYTES
        return memoryview(self.map)[at : at + self._record_bytes]

    def claim(self, index: int, key: RingKey) -> str | None:
        """Make the record that of this ring.

        None: it was, and the ring goes on from there.  Otherwise it is blank now, to be confirmed
        when the ring has begun, and the text says why what was there does not count; "" when there
        was nothing.
        """
        at = self._ring_at(index)
        reason = ""
        if MARK.unpack_from(self.map, at)[0] == VALID:
            data = self.map[at + KEY_AT : at + KEY_AT + KEY.size]
            reason = key.difference(RingKey.unpack(data))
            if not reason:
                return None
        try:
            # A hole that the file system cannot fill would be a SIGBUS in a worker.
            os.posix_fallocate(self._fd, at, self._stride)
        except OSError as error:
            raise StateFileError(f"no room in {self.path}: {error.strerror}") from error
        self.forget(index)
        self.map[at + KEY_BYTES : at + self._stride] = bytes(self._stride - KEY_BYTES)
        self.map[at + KEY_AT : at + KEY_AT + KEY.size] = key.pack()
        return reason

    def confirm(self, index: int) -> None:
        """The record tells of a ring that runs."""
        MARK.pack_into(self.map, self._ring_at(index), VALID)

    def forget(self, index: int) -> None:
        """The ring was stopped cleanly, and will be told where to begin."""
        at = self._ring_at(index)
        if MARK.unpack_from(self.map, at)[0]:
            MARK.pack_into(self.map, at, 0)

    def _ring_at(self, index: int) -> int:
        return RINGS_AT + index * self._stride

    # ---- the file

    def _is_ours(self) -> bool:
        return (
            self.map[: len(self._head)] == self._head
            and self.map[PATH_AT : PATH_AT + PATH_BYTES] == self._socket
        )

    def _blank(self, size: int) -> None:
        os.ftruncate(self._fd, 0)
        os.ftruncate(self._fd, size)
        os.posix_fallocate(self._fd, 0, RINGS_AT)

    def _sign(self) -> None:
        self.map[PATH_AT : PATH_AT + PATH_BYTES] = self._socket
        self.map[len(MAGIC) : len(self._head)] = self._head[len(MAGIC) :]
        self.map[: len(MAGIC)] = MAGIC


def _open_private(path: str) -> int:
    """A descriptor of a file that is ours alone, and locked.  What else is at path is replaced."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    for _ in range(TRIES):
        try:
            fd = os.open(path, flags | os.O_CREAT, 0o600)
        except OSError:
            if not os.path.islink(path):
                raise
            os.unlink(path)
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(fd)
            private = (
                stat.S_ISREG(found.st_mode)
                and found.st_uid == os.geteuid()
                and not stat.S_IMODE(found.st_mode) & 0o077
                and found.st_nlink == 1
            )
            if private and _is_at(path, found):
                return fd
            if _is_at(path, found):
                os.unlink(path)
        except BlockingIOError:
            os.close(fd)
            raise BlockingIOError(0, "another process uses it") from None
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
    raise StateFileError(f"cannot use {path}: somebody else changes it all the time")


def _is_at(path: str, found: os.stat_result) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino)
