"""A vhost-user conversation without sockets: messages go in, answers come out, and a device only
writes down what is asked of it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from vhost import messages as m
from vhost.backend import Backend
from vhost.errors import RefusedError
from vhost.messages import Header, RegionSpec, Request
from vhost.rings import RingSpec

MAC = bytes.fromhex("02000000000a")
ALL = int(m.OFFERED_FEATURES)
SPLIT = ALL & ~m.Feature.RING_PACKED
PROTOCOL = int(m.OFFERED_PROTOCOL_FEATURES)


@dataclass
class FakeDevice:
    running: dict[int, RingSpec] = field(default_factory=dict)
    regions: tuple[RegionSpec, ...] = ()
    closed: list[int] = field(default_factory=list)
    calls: list[tuple[int, int]] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    pairs: int = 0
    refuse: bool = False
    lost: list[int] = field(default_factory=list)
    macs: list[bytes] = field(default_factory=list)
    sent: list[tuple[int, bytes]] = field(default_factory=list)
    state: bytes = b""
    log: tuple[int, int, int] = (-1, 0, 0)

    def memory_file(self, fd: int) -> tuple[int, int]:
        if self.refuse:
            raise RefusedError("no memory")
        return 0, fd

    def replace_memory(self, regions: Sequence[RegionSpec]) -> list[int]:
        if self.refuse:
            raise RefusedError("cannot map")
        self.regions = tuple(regions)
        for index in self.lost:
            del self.running[index]
        return self.lost

    def announce(self, mac: bytes) -> None:
        self.macs.append(mac)

    def end_announcements(self) -> None:
        self.macs.clear()

    def send_state(self, fd: int, data: bytes) -> None:
        self.closed.append(fd)
        if self.refuse:
            raise RefusedError("no pipe")
        self.sent.append((fd, data))

    def receive_state(self, fd: int) -> None:
        self.closed.append(fd)

    def received_state(self) -> bytes:
        if self.refuse:
            raise RefusedError("no end")
        return self.state

    def end_transfer(self) -> None:
        self.state = b""

    def start_ring(self, spec: RingSpec) -> None:
        if self.refuse:
            raise RefusedError("cannot start")
        assert spec.index not in self.running
        self.running[spec.index] = spec

    def stop_ring(self, index: int) -> int:
        del self.running[index]
        return 77

    def traffic_held(self) -> AbstractContextManager[None]:
        return nullcontext()

    def set_log(self, fd: int, size_bytes: int = 0, offset: int = 0) -> None:
        self.log = (fd, size_bytes, offset)

    def forget_ring(self, index: int) -> None:
        assert index not in self.running
        self.forgotten.append(index)

    def enable_ring(self, index: int, enabled: bool) -> None:
        self.calls.append((index, int(enabled)))

    def set_call(self, index: int, fd: int) -> None:
        self.calls.append((index, fd))

    def check_signal(self, fd: int) -> None:
        assert fd >= 0

    def set_max_pairs(self, pairs: int) -> None:
        self.pairs = pairs

    def close_fd(self, fd: int) -> None:
        self.closed.append(fd)


@dataclass
class Wire:
    """A front-end's hand: sends messages, takes answers."""

    device: FakeDevice = field(default_factory=FakeDevice)

    def __post_init__(self) -> None:
        self.backend = Backend(self.device, ALL, MAC, 1400)

    def send(
        self, request: int, payload: bytes = b"", fds: Sequence[int] = (), flags: int = m.VERSION
    ) -> bytes | None:
        """The answer's payload, or None.  Descriptors that nobody kept are closed."""
        left = list(fds)
        try:
            self.backend.receive_message(Header(request, flags, len(payload)), payload, left)
        finally:
            self.device.closed += left
        replies = self.backend.replies_to_send()
        if not replies:
            return None
        (reply,) = replies
        number, reply_flags, size = m.HEADER.unpack_from(reply)
        assert (number, reply_flags, size) == (request, m.VERSION | m.FLAG_REPLY, len(reply) - 12)
        return reply[12:]

    def asked(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> int | None:
        """The answer to a message that wants one."""
        answer = self.send(request, payload, fds, m.VERSION | m.FLAG_NEED_REPLY)
        return None if answer is None else int(m.U64.unpack(answer)[0])

    def negotiate(self, features: int = SPLIT, protocol: int = PROTOCOL) -> None:
        self.send(Request.SET_PROTOCOL_FEATURES, m.U64.pack(protocol))
        self.send(Request.SET_FEATURES, m.U64.pack(features))

    def ready(self, index: int, kick: int = 50) -> None:
        """All that a ring needs, its kick last."""
        self.send(Request.SET_VRING_NUM, m.VRING_STATE.pack(index, 256))
        self.send(Request.SET_VRING_BASE, m.VRING_STATE.pack(index, 0))
        self.send(Request.SET_VRING_ADDR, m.VRING_ADDR.pack(index, 0, 1, 2, 3, 0))
        self.send(Request.SET_VRING_CALL, m.U64.pack(index), [kick + 1])
        self.send(Request.SET_VRING_KICK, m.U64.pack(index), [kick])

    def memory(self, count: int = 1, fds: Sequence[int] = (40,)) -> bytes | None:
        payload = m.MEMORY_HEADER.pack(count, 0)
        for i in range(min(count, 9)):
            payload += m.MEMORY_REGION.pack(i << 20, 4096, i << 20, 0)
        return self.send(Request.SET_MEM_TABLE, payload, fds)


def u64(answer: bytes | None) -> int:
    assert answer is not None
    return int(m.U64.unpack(answer)[0])
