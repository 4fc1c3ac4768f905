"""The load generator: vhost-user front-ends whose rings are driven in C."""

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.errors import BenchError
from tests.bench.library import ffi
from tests.bench.memory import SharedMemory
from tests.fakes.frontend import FrontEnd
from vhost import messages as m
from vhost.messages import Feature, ProtocolFeature, Request

VNET_BYTES = 12
PLAIN = Feature.VERSION_1 | Feature.PROTOCOL_FEATURES | Feature.MRG_RXBUF
LARGE = PLAIN | Feature.CSUM | Feature.GUEST_CSUM | Feature.HOST_TSO4 | Feature.GUEST_TSO4


@dataclass(frozen=True)
class Shape:
    """Of a front-end's rings.

    rx_bytes, tx_bytes: of one buffer; rx_num, tx_num: descriptors; tx_pieces: of each frame.
    pairs: of queues.  huge: on hugepages.
    """

    packed: bool = False
    features: int = int(PLAIN)
    rx_num: int = 256
    tx_num: int = 256
    rx_bytes: int = 2048
    tx_bytes: int = 2048
    tx_pieces: int = 1
    pairs: int = 1
    huge: bool = True


class Nic(FrontEnd):
    """A front-end.

    rxs, txs: struct ring *, of each pair; rx, tx: of the first.
    """

    def __init__(self, shape: Shape) -> None:
        tx_frames = shape.tx_num // shape.tx_pieces
        rings_bytes = 2 * 65536 + 32 * (shape.rx_num + shape.tx_num)
        size = rings_bytes + shape.rx_num * shape.rx_bytes + tx_frames * shape.tx_bytes
        self._memory = SharedMemory(size * shape.pairs, huge=shape.huge)
        super().__init__(self._wait, ring_size=shape.rx_num)
        self.ram.close()
        self._shape = shape
        self._fds: list[int] = []
        self._keep: list[Any] = []
        self.rxs: list[Any] = []
        self.txs: list[Any] = []
        for _ in range(shape.pairs):
            self.rxs.append(self._ring(shape.rx_num, shape.rx_num, shape.rx_bytes, 1))
            self.txs.append(self._ring(shape.tx_num, tx_frames, shape.tx_bytes, shape.tx_pieces))
        self.rx, self.tx = self.rxs[0], self.txs[0]

    @property
    def frame_bytes_max(self) -> int:
        """What fits a transmit buffer behind its virtio-net header."""
        return self._shape.tx_bytes - VNET_BYTES

    def _wait(self) -> None:
        if self.sock is not None:
            with suppress(TimeoutError):
                self.sock.settimeout(0.01)
                self.sock.recv(1, socket.MSG_PEEK)
            self.sock.setblocking(False)

    def _ring(self, num: int, frames: int, stride: int, pieces: int) -> Any:
        memory = self._memory
        gpas = [memory.alloc(16 * num), memory.alloc(8 + 2 * num), memory.alloc(8 + 8 * num)]
        buffers = memory.alloc(frames * stride, 4096)
        fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
        self._fds += fds
        ring = ffi.new("struct ring *")
        ring.desc, ring.avail, ring.used, ring.buffers = (
            ffi.cast("uint8_t *", memory.address(gpa)) for gpa in (*gpas, buffers)
        )
        ring.buffers_gpa = buffers
        ring.stride_bytes, ring.frames, ring.pieces = stride, frames, pieces
        ring.num, ring.packed = num, int(self._shape.packed)
        ring.kick_fd = fds[0]
        ring.wrap = ring.seen_wrap = 1
        # No calls: a poll-mode driver has no use for them.
        ffi.cast("uint16_t *", ring.avail)[int(self._shape.packed)] = 1
        self._keep.append((gpas, fds))
        return ring

    def boot(self, features: int = 0, pairs: int = 1) -> None:
        """From nothing to a network card that works."""
        shape = self._shape
        wanted = shape.features | (Feature.RING_PACKED if shape.packed else 0)
        wanted |= Feature.MQ if shape.pairs > 1 else 0
        offered = m.U64.unpack(self.ask(Request.GET_FEATURES))[0]
        if missing := wanted & ~offered:
            names = ", ".join(m.feature_names(missing))
            raise BenchError(f"the switch does not offer {names}")
        self.send(Request.SET_OWNER)
        known = m.U64.unpack(self.ask(Request.GET_PROTOCOL_FEATURES))[0]
        self.protocol_features = int(ProtocolFeature.REPLY_ACK | ProtocolFeature.MQ) & known
        self.send(Request.SET_PROTOCOL_FEATURES, m.U64.pack(self.protocol_features))
        self.send(Request.SET_FEATURES, m.U64.pack(wanted))
        memory = self._memory
        region = m.MEMORY_REGION.pack(memory.GPA, memory.size, memory.address(memory.GPA), 0)
        self.send(Request.SET_MEM_TABLE, m.MEMORY_HEADER.pack(1, 0) + region, [memory.fd])
        for index, (gpas, fds) in enumerate(self._keep):
            self._start(index, gpas, fds)
        self.settle()

    def _start(self, index: int, gpas: Sequence[int], fds: Sequence[int]) -> None:
        shape = self._shape
        desc, avail, used = (self._memory.address(gpa) for gpa in gpas)
        num = shape.tx_num if index % 2 else shape.rx_num
        base = 1 << 15 | 1 << 31 if shape.packed else 0  # both wrap counters begin as 1
        self.send(Request.SET_VRING_NUM, m.VRING_STATE.pack(index, num))
        self.send(Request.SET_VRING_BASE, m.VRING_STATE.pack(index, base))
        self.send(Request.SET_VRING_ADDR, m.VRING_ADDR.pack(index, 0, desc, used, avail, 0))
        self.send(Request.SET_VRING_CALL, m.U64.pack(index), [fds[1]])
        self.send(Request.SET_VRING_KICK, m.U64.pack(index), [fds[0]])
        self.send(Request.SET_VRING_ENABLE, m.VRING_STATE.pack(index, 1))

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        if self.sock is not None:
            self.sock.close()
            self.sock = None
        self._memory.close()


def listen(path: Path) -> socket.socket:
    """A socket that a switch connects to."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    return listener
