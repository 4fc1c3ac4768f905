"""A vhost-user front-end with a virtio-net driver of its own: a guest made of a memfd and a socket.

It behaves like a driver when asked nicely (transmit, post, received), and lets a test write
anything anywhere when not (ram, ring.describe, send).
"""

import array
import socket
from collections.abc import Callable, Sequence

from tests.fakes.ram import Ram
from tests.fakes.ring import U16, Chain, PackedRing, Ring
from vhost import messages as m
from vhost.messages import Feature, ProtocolFeature, Request

BASIC = Feature.VERSION_1 | Feature.PROTOCOL_FEATURES
MERGEABLE = BASIC | Feature.MRG_RXBUF
GUEST_OFFLOADS = Feature.GUEST_CSUM | Feature.GUEST_TSO4 | Feature.GUEST_TSO6 | Feature.GUEST_ECN
HOST_OFFLOADS = Feature.CSUM | Feature.HOST_TSO4 | Feature.HOST_TSO6 | Feature.HOST_ECN
GUEST_USO = Feature.GUEST_USO4 | Feature.GUEST_USO6


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
        self.packed: dict[int, PackedRing] = {}
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
        for ring in (*self.rings.values(), *self.packed.values()):
            ring.close()
        self.rings, self.packed = {}, {}
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

    def ring(self, index: int) -> Ring | PackedRing:
        """Of the kind that was negotiated; made when there was none."""
        in_order = bool(self.features & Feature.IN_ORDER)
        if self.features & Feature.RING_PACKED:
            if index not in self.packed:
                self.packed[index] = PackedRing(self.ram, self.ring_size, in_order=in_order)
            return self.packed[index]
        if index not in self.rings:
            self.rings[index] = Ring(self.ram, self.ring_size, in_order=in_order)
        return self.rings[index]

    def start_ring(self, index: int, *, base: int | None = None, enable: bool = True) -> None:
        """base: None for a ring that is new."""
        ring = self.ring(index)
        if base is None:
            base = ring.first_base
        self.send(Request.SET_VRING_NUM, m.VRING_STATE.pack(index, ring.num))
        self.send(Request.SET_VRING_BASE, m.VRING_STATE.pack(index, base))
        self.send(Request.SET_VRING_ADDR, self.addresses(index, ring))
        self.send(Request.SET_VRING_ERR, m.U64.pack(index), [ring.error])
        self.send(Request.SET_VRING_CALL, m.U64.pack(index), [ring.call])
        self.send(Request.SET_VRING_KICK, m.U64.pack(index), [ring.kick])
        if self.features & Feature.PROTOCOL_FEATURES:
            self.send(Request.SET_VRING_ENABLE, m.VRING_STATE.pack(index, int(enable)))

    def addresses(self, index: int, ring: Ring | PackedRing) -> bytes:
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
        ring = self.ring(2 * pair)
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
        return self.ring(2 * pair + 1).add(buffers, indirect=indirect)

    def received(self, *, pair: int = 0) -> list[tuple[bytes, bytes]]:
        """(header, frame) of all that arrived, mergeable buffers put together."""
        chains = self.ring(2 * pair).reap()
        result = []
        while chains:
            data = self._written(chains.pop(0))
            header, frame = data[: self.header_bytes], data[self.header_bytes :]
            count = U16.unpack(header[10:12])[0] if self.features & Feature.MRG_RXBUF else 1
            for _ in range(count - 1):
                frame += self._written(chains.pop(0))
            result.append((header, frame))
        return result

    def frames(self, *, pair: int = 0) -> list[bytes]:
        return [frame for _, frame in self.received(pair=pair)]

    def _written(self, chain: Chain) -> bytes:
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
