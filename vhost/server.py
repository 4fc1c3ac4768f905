"""One vhost-user connection: whole messages out of a socket, and the file descriptors with them.

The socket never blocks: half a message waits for its other half, and replies that the front-end
does not read wait up to a bound, then the connection ends.
"""

import array
import os
import socket
from collections.abc import Callable

from vhost import messages as m
from vhost.errors import DisconnectedError, RemoteError
from vhost.messages import Header

# More than a message may carry, so that what is too much is received, counted and closed.
RECEIVE_FDS = 28
MESSAGES_AT_ONCE = 64
MAX_UNSENT_BYTES = 64 * 1024

Receive = Callable[[Header, bytes, list[int]], None]


class Connection:
    """A connected socket.

    on_readable() and on_writable() are to be called when the socket is; both raise RemoteError when
    the connection is to be closed.  receive takes out of its list the descriptors that it keeps.
    """

    def __init__(self, sock: socket.socket, receive: Receive) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._receive = receive
        self._header: Header | None = None
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._unsent = bytearray()

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    def on_readable(self) -> None:
        for _ in range(MESSAGES_AT_ONCE):
            if not self._read_some():
                return

    def send(self, replies: list[bytes]) -> None:
        self._unsent += b"".join(replies)
        if len(self._unsent) > MAX_UNSENT_BYTES:
            raise RemoteError("the front-end does not read our replies")
        self.on_writable()

    def on_writable(self) -> None:
        try:
            while self._unsent:
                sent = self._sock.send(self._unsent, socket.MSG_NOSIGNAL)
                del self._unsent[:sent]
        except BlockingIOError:
            return
        except OSError as error:
            raise RemoteError(f"cannot send: {error.strerror}") from error

    def close(self) -> None:
        _close_all(self._fds)
        self._sock.close()

    def _missing_bytes(self) -> int:
        size = m.HEADER.size if self._header is None else self._header.size_bytes
        return size - len(self._buffer)

    def _read_some(self) -> bool:
        """Read no further than the message's end; false when there is nothing to read now."""
        try:
            data, control, flags, _ = self._sock.recvmsg(
                self._missing_bytes(),
                socket.CMSG_SPACE(RECEIVE_FDS * 4),
                socket.MSG_CMSG_CLOEXEC,
            )
        except BlockingIOError:
            return False
        except OSError as error:
            raise RemoteError(f"cannot receive: {error.strerror}") from error
        for level, kind, value in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(value[: len(value) - len(value) % fds.itemsize])
                self._fds.extend(fds)
        if flags & socket.MSG_CTRUNC or len(self._fds) > RECEIVE_FDS:
            raise RemoteError("more file descriptors than any message has")
        if not data:
            raise DisconnectedError("the front-end closed the connection")
        self._buffer += data
        if self._missing_bytes() == 0:
            self._advance()
        return True

    def _advance(self) -> None:
        if self._header is None:
            header = Header(*m.HEADER.unpack(self._buffer))
            if header.size_bytes > m.MAX_PAYLOAD_BYTES:
                name = m.request_name(header.request)
                raise RemoteError(f"{name}: {header.size_bytes} bytes of payload are too many")
            self._header = header
            self._buffer.clear()
            if header.size_bytes:
                return
        header, payload, fds = self._header, bytes(self._buffer), self._fds
        self._header, self._fds = None, []
        self._buffer.clear()
        try:
            self._receive(header, payload, fds)
        finally:
            _close_all(fds)


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
