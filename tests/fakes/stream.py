"""Numbered, checksummed frames between two fake guests, with buffers that are used again.

Each buffer is in one chain at a time; a chain that comes back twice, or never, is noticed.
"""

import os
import random
import struct
import zlib

from tests.fakes.frontend import FrontEnd, cut

BUFFER_BYTES = 2048
LENGTHS = (60, 1500)
ETHERNET = struct.Struct("!6s6sH")
MARK = struct.Struct("!QII")  # number, bytes behind it, their CRC
TYPE = 0x88B5  # for local experiments


class Sender:
    """Keeps its TX ring filled."""

    def __init__(self, front: FrontEnd, source: bytes, target: bytes, seed: int) -> None:
        self.front = front
        self.ring = front.ring(1)
        self.sent = 0
        self._ethernet = ETHERNET.pack(target, source, TYPE)
        self._random = random.Random(seed)
        self._noise = self._random.randbytes(2 * BUFFER_BYTES)
        self._idle = [front.ram.alloc(BUFFER_BYTES, 64) for _ in range(self.ring.num // 4)]

    def frame(self) -> bytes:
        size = self._random.randint(*LENGTHS)
        at = self._random.randrange(BUFFER_BYTES)
        payload = self._noise[at : at + size]
        self.sent += 1
        return self._ethernet + MARK.pack(self.sent, size, zlib.crc32(payload)) + payload

    def reap(self) -> None:
        self._idle += [buffers[0][0] for _, _, buffers in self.ring.reap()]

    def step(self) -> None:
        """Take back what was sent, send as much again."""
        self.reap()
        if not self._idle:
            return
        for gpa in self._idle:
            data = bytes(self.front.header_bytes) + self.frame()
            self.front.ram.write(gpa, data)
            pieces = cut(gpa, len(data), self._random.randint(1, 3))
            self.ring.add([(at, size, False) for at, size in pieces])
        self._idle.clear()
        os.eventfd_write(self.ring.kick, 1)

    @property
    def outstanding(self) -> int:
        return len(self.ring.chains)


class Receiver:
    """Keeps its RX ring filled, and looks at all that arrives."""

    def __init__(self, front: FrontEnd) -> None:
        self.front = front
        self.ring = front.ring(0)
        self.numbers: set[int] = set()
        self.again = 0
        self.buffers = self.ring.num
        self.refills = True
        for _ in range(self.buffers):
            self.ring.add([(front.ram.alloc(BUFFER_BYTES, 64), BUFFER_BYTES, True)])

    def step(self) -> int:
        """Returns how many frames arrived."""
        chains = self.ring.reap()
        for _, written, buffers in chains:
            self._look(buffers[0][0], written)
            if self.refills:
                self.ring.add(buffers)
        if chains and self.refills:
            os.eventfd_write(self.ring.kick, 1)
        return len(chains)

    def _look(self, gpa: int, written: int) -> None:
        header = self.front.header_bytes
        data = self.front.ram.read(gpa + header, written - header)
        _, _, kind = ETHERNET.unpack_from(data)
        assert kind == TYPE, data[:32].hex()
        number, size, crc = MARK.unpack_from(data, ETHERNET.size)
        payload = data[ETHERNET.size + MARK.size :]
        assert len(payload) == size, f"frame {number}: {len(payload)} bytes instead of {size}"
        assert zlib.crc32(payload) == crc, f"frame {number} is not what was sent"
        if number in self.numbers:
            self.again += 1
        self.numbers.add(number)
