"""Numbered UDP datagrams from one namespace to another: all in order, however many get lost."""

import socket
import threading
import time

from tests.fakes.closing import Closing
from tests.fakes.daemons import until
from tests.fakes.netns import inside
from tests.fakes.wiretap import MARKER

PACE_S = 0.001
WAIT_S = 60.0


class Flow(Closing):
    def __init__(self, source: str, sink: str, address: str, port: int = 5001) -> None:
        """Between two namespaces; the sink has the address."""
        self.sent = self.received = 0
        self.out_of_order = 0
        self.longest_gap_s = 0.0
        self._ending = threading.Event()
        self._to = (address, port)
        self._source = inside(source, self._socket)
        self._sink = inside(sink, self._socket)
        self._sink.bind(self._to)
        self._sink.settimeout(0.05)
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._send, self._receive)
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _socket() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def _send(self) -> None:
        while not self._ending.wait(PACE_S):
            self._source.sendto(self.sent.to_bytes(8) + MARKER, self._to)
            self.sent += 1

    def _receive(self) -> None:
        last, when = -1, time.monotonic()
        while not self._ending.is_set():
            try:
                data = self._sink.recv(2048)
            except TimeoutError:
                continue
            number, now = int.from_bytes(data[:8]), time.monotonic()
            self.out_of_order += number <= last
            self.longest_gap_s = max(self.longest_gap_s, now - when)
            last, when = number, now
            self.received += 1

    def goes_on(self, datagrams: int = 500) -> None:
        """Wait until so many more have come."""
        wanted = self.received + datagrams
        until(lambda: self.received >= wanted, f"datagrams to {self._to[0]}", WAIT_S)

    def close(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(WAIT_S)
        self._source.close()
        self._sink.close()
