"""Device state through a stream that the front-end gave us, without ever waiting for it.

A pipe is opened anew, so that its flags are ours alone; of a socket each call says that it does not
wait.
"""

import asyncio
import os
import socket
from typing import Protocol

from vhost import descriptors
from vhost.errors import RefusedError


class Stream(Protocol):
    """One end, which never blocks: both raise BlockingIOError instead."""

    def fileno(self) -> int: ...
    def read(self, size: int) -> bytes:
        """b"" at the end."""

    def write(self, data: bytes) -> int: ...
    def close(self) -> None: ...


class PipeEnd:
    def __init__(self, fd: int, flags: int) -> None:
        self._fd = descriptors.own_pipe(fd, flags)

    def fileno(self) -> int:
        return self._fd

    def read(self, size: int) -> bytes:
        return os.read(self._fd, size)

    def write(self, data: bytes) -> int:
        return os.write(self._fd, data)

    def close(self) -> None:
        os.close(self._fd)


class SocketEnd:
    def __init__(self, fd: int) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=fd)

    def fileno(self) -> int:
        return self._sock.fileno()

    def read(self, size: int) -> bytes:
        return self._sock.recv(size, socket.MSG_DONTWAIT)

    def write(self, data: bytes) -> int:
        return self._sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        self._sock.close()


def open_stream(fd: int, flags: int) -> Stream:
    """flags: os.O_RDONLY or O_WRONLY.  Takes fd over, and closes it when it is of no use."""
    name = descriptors.name(fd)
    if descriptors.is_unix_socket(fd):
        return SocketEnd(fd)
    try:
        if not name.startswith(descriptors.PIPE):
            raise RefusedError(f"device state through {name}: neither a pipe nor a UNIX socket")
        return PipeEnd(fd, flags)
    finally:
        os.close(fd)


def send(fd: int, data: bytes) -> None:
    """Write all of data and close.  Raises RefusedError when it does not fit at once."""
    stream = open_stream(fd, os.O_WRONLY)
    try:
        written = stream.write(data)
    except OSError as error:
        raise RefusedError(f"cannot write the device state: {error.strerror}") from error
    finally:
        stream.close()
    if written < len(data):
        raise RefusedError("the device state does not fit into the pipe")


class Receiver:
    """Reads what comes, when it comes, until the end of the stream or close()."""

    def __init__(self, fd: int, max_bytes: int, loop: asyncio.AbstractEventLoop) -> None:
        self._stream = open_stream(fd, os.O_RDONLY)
        self._max_bytes = max_bytes
        self._loop = loop
        self._data = b""
        self._error = ""
        self._is_open = True
        loop.add_reader(self._stream.fileno(), self._read)

    def result(self) -> bytes:
        """Raises RefusedError unless the stream has ended."""
        self._read()
        if self._is_open:
            raise RefusedError("the device state has no end yet")
        if self._error:
            raise RefusedError(self._error)
        return self._data

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self._stream.fileno())
            self._stream.close()

    def _read(self) -> None:
        while self._is_open:
            try:
                # One more than there may be, to see that it is too much.
                piece = self._stream.read(self._max_bytes + 1 - len(self._data))
            except BlockingIOError:
                return
            except OSError as error:
                self._error = f"cannot read the device state: {error.strerror}"
                self.close()
                return
            self._data += piece
            if len(self._data) > self._max_bytes:
                self._error = f"the device state has more than {self._max_bytes} bytes"
            if not piece or self._error:
                self.close()
