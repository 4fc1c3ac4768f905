"""A vhost-user front-end with a virtio-net driver of its own: a guest made of a memfd and a socket.

It behaves like a driver when asked nicely (transmit, post, received), and lets a test write
anything anywhere when not (ram, ring.describe, send).
"""

import array
import mmap
import os
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vhost import messages as m
from vhost.messages import Feature, ProtocolFeature, Request

NEXT, WRITE, INDIRECT = 1, 2, 4
DESC = struct.Struct("<QIHH")
U16 = struct.Struct("<H")

BASIC = Feature.VERSION_1 | Feature.PROTOCOL_FEATURES
MERGEABLE = BASIC | Feature.MRG_RXBUF
GUEST_OFFLOADS = Feature.GUEST_CSUM | Feature.GUEST_TSO4 | Feature.GUEST_TSO6 | Feature.GUEST_ECN
HOST_OFFLOADS = Feature.CSUM | Feature.HOST_TSO4 | Feature.HOST_TSO6 | Feature.HOST_ECN


@dataclass(frozen=True)
class Region:
    """A piece of guest memory with a file of its own."""

    gpa: int
    user: int
    fd: int
    map: mmap.mmap
    offset: int

    @property
    def size(self) -> int:
        return len(self.map) - self.offset


class Ram:
    """Guest memory; layout: (guest address, bytes) of each region.  offset: into each file."""

    def __init__(self, layout: Sequence[tuple[int, int]], offset: int = 0) -> None:
        self.regions = []
        for number, (gpa, size) in enumerate(layout):
            fd = os.memfd_create(f"ram{number}")
            os.ftruncate(fd, size + offset)
            # Far from any guest address, and in another order, so that nobody can mix them up.
            user = 0x7000_0000_0000 - number * 0x10_0000_0000
            self.regions.append(Region(gpa, user, fd, mmap.mmap(fd, size + offset), offset))
        self._free = {region.gpa: region.gpa for region in self.regions}

    def close(self) -> None:
        for region in self.regions:
            region.map.close()
            os.close(region.fd)

    def _region(self, gpa: int) -> Region:
        for region in self.regions:
            if region.gpa <= gpa < region.gpa + region.size:
                return region
        raise AssertionError(f"{gpa:#x} is not in the fake guest's memory")

    def user(self, gpa: int) -> int:
        region = self._region(gpa)
        return region.user + gpa - region.gpa

    def write(self, gpa: int, data: bytes) -> None:
        while data:
            region = self._region(gpa)
            at = gpa - region.gpa + region.offset
            piece = data[: len(region.map) - at]
            region.map[at : at + len(piece)] = piece
            gpa, data = gpa + len(piece), data[len(piece) :]

    def read(self, gpa: int, size: int) -> bytes:
        data = b""
        while len(data) < size:
            region = self._region(gpa + len(data))
            at = gpa + len(data) - region.gpa + region.offset
            data += region.map[at : min(at + size - len(data), len(region.map))]
        return data

    def alloc(self, size: int, align: int = 16, region: int = 0) -> int:
        """A guest address that was not given out yet; never freed."""
        gpa = self.regions[region].gpa
        at = -(-self._free[gpa] // align) * align
        self._free[gpa] = at + size
        assert at + size <= gpa + self.regions[region].size, "the fake guest is out of memory"
        return at


class Ring:
    """Driver's side of a split ring."""

    def __init__(self, ram: Ram, num: int) -> None:
        self.ram = ram
        self.num = num
        self.desc = ram.alloc(16 * num)
        self.avail = ram.alloc(6 + 2 * num, 2)
        self.used = ram.alloc(6 + 8 * num, 4)
        self.free = list(range(num))
        self.chains: dict[int, tuple[list[int], list[tuple[int, int, bool]]]] = {}
        self.avail_idx = 0
        self.used_seen = 0
        self.kick = os.eventfd(0, os.EFD_NONBLOCK)
        self.call = os.eventfd(0, os.EFD_NONBLOCK)
        self.error = os.eventfd(0, os.EFD_NONBLOCK)

    def close(self) -> None:
        for fd in (self.kick, self.call, self.error):
            os.close(fd)

    # ---- raw

    def describe(self, index: int, gpa: int, size: int, flags: int = 0, following: int = 0) -> None:
        self.ram.write(self.desc + 16 * index, DESC.pack(gpa, size, flags, following))

    def offer(self, head: int) -> None:
        self.ram.write(self.avail + 4 + 2 * (self.avail_idx % self.num), U16.pack(head))
        self.set_avail_idx(self.avail_idx + 1)

    def set_avail_idx(self, value: int) -> None:
        self.avail_idx = value & 0xFFFF
        self.ram.write(self.avail + 2, U16.pack(self.avail_idx))

    def set_avail_flags(self, value: int) -> None:
        self.ram.write(self.avail, U16.pack(value))

    def set_used_event(self, value: int) -> None:
        self.ram.write(self.avail + 4 + 2 * self.num, U16.pack(value & 0xFFFF))

    @property
    def used_flags(self) -> int:
        return int(U16.unpack(self.ram.read(self.used, 2))[0])

    @property
    def used_idx(self) -> int:
        return int(U16.unpack(self.ram.read(self.used + 2, 2))[0])

    @property
    def avail_event(self) -> int:
        return int(U16.unpack(self.ram.read(self.used + 4 + 8 * self.num, 2))[0])

    # ---- as a driver

    def add(self, buffers: list[tuple[int, int, bool]], *, indirect: bool = False) -> int:
        """Offer a chain of (guest address, bytes, writable); returns its head."""
        entries = []
        count = 1 if indirect else len(buffers)
        slots = [self.free.pop(0) for _ in range(count)]
        for number, (gpa, size, writable) in enumerate(buffers):
            last = number == len(buffers) - 1
            flags = (WRITE if writable else 0) | (0 if last else NEXT)
            following = 0 if last else (number + 1 if indirect else slots[number + 1])
            entries.append(DESC.pack(gpa, size, flags, following))
        if indirect:
            table = self.ram.alloc(16 * len(entries))
            self.ram.write(table, b"".join(entries))
            self.describe(slots[0], table, 16 * len(entries), INDIRECT)
        else:
            for slot, entry in zip(slots, entries, strict=True):
                self.ram.write(self.desc + 16 * slot, entry)
        self.chains[slots[0]] = (slots, buffers)
        self.offer(slots[0])
        return slots[0]

    def reap(self) -> list[tuple[int, int, list[tuple[int, int, bool]]]]:
        """Chains that came back: (head, bytes written, buffers)."""
        result = []
        while self.used_seen != self.used_idx:
            at = self.used + 4 + 8 * (self.used_seen % self.num)
            head, size = struct.unpack("<II", self.ram.read(at, 8))
            slots, buffers = self.chains.pop(head)
            self.free += slots
            result.append((head, size, buffers))
            self.used_seen = (self.used_seen + 1) & 0xFFFF
        return result

    def calls(self) -> int:
        """Calls since the last look."""
        try:
            return os.eventfd_read(self.call)
        except BlockingIOError:
            return 0


class FrontEnd:
    """One connection.

    pump: called while waiting, runs the other side.
    """

    def __init__(
        self, pump: Callable[[], None], ram: Ram | None = None, ring_size: int = 256
    ) -> None:
        self._pump = pump
        self.ram = ram or Ram([(0x1000_0000, 8 << 20)])
        self.ring_size = ring_size
        self.features = 0
        self.protocol_features = 0
        self.rings: dict[int, Ring] = {}
        self.sock: socket.socket | None = None
        self.backend_end: socket.socket | None = None

    # ---- the socket

    def connect(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self.sock.setblocking(False)

    def accept(self, listener: socket.socket) -> None:
        """Wait for the backend to connect."""
        listener.settimeout(0.01)
        for _ in range(500):
            self._pump()
            try:
                self.sock = listener.accept()[0]
            except TimeoutError:
                continue
            self.sock.setblocking(False)
            return
        raise AssertionError("the backend does not connect")

    def close(self) -> None:
        for ring in self.rings.values():
            ring.close()
        self.rings = {}
        if self.backend_end is not None:
            self.backend_end.close()
            self.backend_end = None
        if self.sock is not None:
            self.sock.close()
            self.sock = None
        self.ram.close()

    def send(
        self,
        request: int,
        payload: bytes = b"",
        fds: Sequence[int] = (),
        flags: int = m.VERSION,
    ) -> None:
        assert self.sock is not None
        message = m.HEADER.pack(request, flags, len(payload)) + payload
        socket.send_fds(self.sock, [message], list(fds))

    def receive(self) -> tuple[int, bytes]:
        """The next reply: request and payload."""
        header = self._exactly(m.HEADER.size)
        request, flags, size = m.HEADER.unpack(header)
        assert flags == m.VERSION | m.FLAG_REPLY
        return request, self._exactly(size)

    def ask(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> bytes:
        """A request that has an answer of its own."""
        self.send(request, payload, fds)
        answered, reply = self.receive()
        assert answered == request
        return reply

    def tell(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> int:
        """A request with REPLY_ACK: 0 when it was done."""
        self.send(request, payload, fds, m.VERSION | m.FLAG_NEED_REPLY)
        answered, reply = self.receive()
        assert answered == request
        return int(m.U64.unpack(reply)[0])

    def is_closed(self) -> bool:
        """Whether the other side closed the connection."""
        assert self.sock is not None
        for _ in range(5):
            self._pump()
        try:
            return self.sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def _exactly(self, size: int) -> bytes:
        assert self.sock is not None
        data = b""
        for _ in range(2000):
            if len(data) == size:
                return data
            self._pump()
            try:
                piece = self.sock.recv(size - len(data))
            except BlockingIOError:
                continue
            assert piece, "the backend closed the connection"
            data += piece
        raise AssertionError("the backend does not answer")

    # ---- setting up

    def negotiate(self, features: int = MERGEABLE) -> None:
        offered = m.U64.unpack(self.ask(Request.GET_FEATURES))[0]
        assert features & ~offered == 0
        self.send(Request.SET_OWNER)
        if features & Feature.PROTOCOL_FEATURES:
            known = m.U64.unpack(self.ask(Request.GET_PROTOCOL_FEATURES))[0]
            self.protocol_features = int(ProtocolFeature.REPLY_ACK | ProtocolFeature.MQ) & known
            self.send(Request.SET_PROTOCOL_FEATURES, m.U64.pack(self.protocol_features))
        self.send(Request.SET_FEATURES, m.U64.pack(features))
        self.features = features

    def share_memory(self) -> None:
        regions = self.ram.regions
        payload = m.MEMORY_HEADER.pack(len(regions), 0)
        for r in regions:
            payload += m.MEMORY_REGION.pack(r.gpa, r.size, r.user, r.offset)
        self.send(Request.SET_MEM_TABLE, payload, [r.fd for r in regions])

    def start_ring(self, index: int, *, base: int = 0, enable: bool = True) -> Ring:
        ring = self.rings.get(index)
        if ring is None:
            ring = self.rings[index] = Ring(self.ram, self.ring_size)
        self.send(Request.SET_VRING_NUM, m.VRING_STATE.pack(index, ring.num))
        self.send(Request.SET_VRING_BASE, m.VRING_STATE.pack(index, base))
        self.send(Request.SET_VRING_ADDR, self.addresses(index, ring))
        self.send(Request.SET_VRING_ERR, m.U64.pack(index), [ring.error])
        self.send(Request.SET_VRING_CALL, m.U64.pack(index), [ring.call])
        self.send(Request.SET_VRING_KICK, m.U64.pack(index), [ring.kick])
        if self.features & Feature.PROTOCOL_FEATURES:
            self.send(Request.SET_VRING_ENABLE, m.VRING_STATE.pack(index, int(enable)))
        return ring

    def addresses(self, index: int, ring: Ring) -> bytes:
        users = [self.ram.user(gpa) for gpa in (ring.desc, ring.used, ring.avail)]
        return m.VRING_ADDR.pack(index, 0, *users, 0)

    def stop_ring(self, index: int) -> int:
        """Returns the index to resume from."""
        answer = self.ask(Request.GET_VRING_BASE, m.VRING_STATE.pack(index, 0))
        return int(m.VRING_STATE.unpack(answer)[1])

    def boot(self, features: int = MERGEABLE, pairs: int = 1) -> None:
        """From nothing to a network card that works."""
        self.negotiate(features)
        self.share_memory()
        for index in range(2 * pairs):
            self.start_ring(index)
        self.settle()

    def settle(self) -> None:
        """Wait until all that was sent is done."""
        self.ask(Request.GET_FEATURES)

    # ---- the network card

    @property
    def header_bytes(self) -> int:
        return 12 if self.features & (Feature.VERSION_1 | Feature.MRG_RXBUF) else 10

    def post(
        self,
        count: int,
        size: int = 2048,
        *,
        pair: int = 0,
        pieces: int = 1,
        indirect: bool = False,
    ) -> None:
        """Offer receive buffers, each of size bytes in so many pieces."""
        ring = self.rings[2 * pair]
        for _ in range(count):
            gpa = self.ram.alloc(size)
            self.ram.write(gpa, b"\xee" * size)
            ring.add(
                [(a, n, True) for a, n in cut(gpa, size, pieces)],
                indirect=indirect,
            )

    def transmit(
        self,
        frame: bytes,
        header: bytes | None = None,
        *,
        pair: int = 0,
        pieces: Sequence[int] = (),
        indirect: bool = False,
    ) -> int:
        """Offer a frame; pieces: bytes of each buffer but the last, header included.

        Returns the chain's head.
        """
        data = (header or bytes(self.header_bytes)) + frame
        gpa = self.ram.alloc(len(data))
        self.ram.write(gpa, data)
        buffers, at = [], 0
        for size in [*pieces, len(data) - sum(pieces)]:
            buffers.append((gpa + at, size, False))
            at += size
        return self.rings[2 * pair + 1].add(buffers, indirect=indirect)

    def received(self, *, pair: int = 0) -> list[tuple[bytes, bytes]]:
        """(header, frame) of all that arrived, mergeable buffers put together."""
        chains = self.rings[2 * pair].reap()
        result = []
        while chains:
            data = self._written(chains.pop(0))
            header, frame = data[: self.header_bytes], data[self.header_bytes :]
            count = U16.unpack(header[10:12])[0] if self.header_bytes == 12 else 1
            for _ in range(count - 1):
                frame += self._written(chains.pop(0))
            result.append((header, frame))
        return result

    def frames(self, *, pair: int = 0) -> list[bytes]:
        return [frame for _, frame in self.received(pair=pair)]

    def _written(self, chain: tuple[int, int, list[tuple[int, int, bool]]]) -> bytes:
        _, size, buffers = chain
        data = b""
        for gpa, length, writable in buffers:
            assert writable
            data += self.ram.read(gpa, min(length, size - len(data)))
        assert len(data) == size, "more bytes reported than the buffers hold"
        return data


def cut(gpa: int, size: int, pieces: int) -> list[tuple[int, int]]:
    """(address, bytes) of so many pieces, the last one largest."""
    each = size // pieces
    parts = [(gpa + i * each, each) for i in range(pieces - 1)]
    return [*parts, (gpa + (pieces - 1) * each, size - (pieces - 1) * each)]


def too_many_fds(sock: socket.socket, message: bytes, fds: Sequence[int]) -> None:
    """More than a message may carry, in one control message."""
    rights = array.array("i", fds).tobytes()
    sock.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
