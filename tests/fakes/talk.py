"""A TCP connection between two namespaces that is never to break: numbered lines both ways, each
byte of them checked, each line with the wire tap's marker in it."""

import random
import socket
import threading
from contextlib import suppress

from tests.fakes.closing import Closing
from tests.fakes.daemons import until
from tests.fakes.netns import inside
from tests.fakes.wiretap import MARKER

PORT = 5000
LINE_BYTES = 256
CHUNK_LINES = 64
FILL = random.Random(1).randbytes(LINE_BYTES - len(MARKER) - 8)
PACE_S = 0.005
WAIT_S = 60.0  # TCP itself waits twice as long as it waited before


def lines(first: int, count: int) -> bytes:
    return b"".join(MARKER + n.to_bytes(8) + FILL for n in range(first, first + count))


class Way:
    """One direction."""

    def __init__(self, source: socket.socket, sink: socket.socket, pace_s: float) -> None:
        self.sent = 0
        self._pace_s = pace_s
        self.received = 0
        self.wrong: str | None = None
        self.going = threading.Event()
        self.going.set()
        self.ending = threading.Event()
        self.threads = [
            threading.Thread(target=work, args=[end], daemon=True)
            for work, end in ((self._send, source), (self._receive, sink))
        ]
        for thread in self.threads:
            thread.start()

    def _send(self, source: socket.socket) -> None:
        try:
            while not self.ending.wait(self._pace_s):
                self.going.wait()
                source.sendall(lines(self.sent // LINE_BYTES, CHUNK_LINES))
                self.sent += CHUNK_LINES * LINE_BYTES
            source.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.wrong = self.wrong or f"sending ended: {error}"

    def _receive(self, sink: socket.socket) -> None:
        try:
            while data := sink.recv(1 << 17):
                first, at = divmod(self.received, LINE_BYTES)
                want = lines(first, (at + len(data)) // LINE_BYTES + 1)[at : at + len(data)]
                if data != want:
                    self.wrong = f"not what was sent, behind byte {self.received}"
                    return
                self.received += len(data)
        except OSError as error:
            self.wrong = self.wrong or f"receiving ended: {error}"

    def check(self) -> None:
        assert self.wrong is None, self.wrong


class Talk(Closing):
    def __init__(self, client: str, server: str, address: str, pace_s: float = PACE_S) -> None:
        """Between two namespaces; the server has the address.  pace_s: from chunk to chunk."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def listening() -> socket.socket:
            return socket.create_server((address, PORT), family=family)

        with inside(server, listening) as listener:
            near = inside(client, lambda: socket.create_connection((address, PORT), WAIT_S))
            far, _ = listener.accept()
        self._ends = [near, far]
        for end in self._ends:
            end.settimeout(None)
        self.there = Way(near, far, pace_s)
        self.back = Way(far, near, pace_s)
        self.ways = [self.there, self.back]

    def goes_on(self, size_bytes: int = 1 << 20) -> None:
        """Wait until so much more has come each way."""
        wanted = [(way, way.received + size_bytes) for way in self.ways]

        def came() -> bool:
            for way in self.ways:
                way.check()
            return all(way.received >= size for way, size in wanted)

        until(came, "the connection going on", WAIT_S)

    def pause_sending(self) -> None:
        for way in self.ways:
            way.going.clear()

    def pause(self) -> None:
        """Returns when all has arrived that was sent."""
        self.pause_sending()
        until(lambda: all(way.sent == way.received for way in self.ways), "quiet", WAIT_S)

    def resume(self) -> None:
        for way in self.ways:
            way.going.set()

    def finish(self) -> None:
        """End it in good order; raises when it was not."""
        for way in self.ways:
            way.ending.set()
            way.going.set()
        for way in self.ways:
            for thread in way.threads:
                thread.join(WAIT_S)
                assert not thread.is_alive(), "the connection does not end"
            way.check()
            assert way.received == way.sent > 0

    def close(self) -> None:
        for way in self.ways:
            way.ending.set()
            way.going.set()
        for end in self._ends:
            with suppress(OSError):  # it has ended
                end.shutdown(socket.SHUT_RDWR)
        for way in self.ways:
            for thread in way.threads:
                thread.join(WAIT_S)
        for end in self._ends:
            end.close()
