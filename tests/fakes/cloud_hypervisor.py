"""Cloud Hypervisor's way of talking, message by message.

It cannot run here, so its order of messages stands here instead, written after its own
vu_common_ctrl.rs (virtio-devices/src/vhost_user) and rust-vmm's vhost crate: set up, reset,
reconnect, hotplug, migration.  With REPLY_ACK every message asks for an acknowledgement, and one of
a wrong size would leave it waiting for ever.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.fakes.frontend import FrontEnd
from tests.fakes.ring import Ring
from vhost import messages as m
from vhost.messages import Feature, ProtocolFeature, Request

FEATURES = (
    Feature.VERSION_1
    | Feature.PROTOCOL_FEATURES
    | Feature.INDIRECT_DESC
    | Feature.EVENT_IDX
    | Feature.MRG_RXBUF
    | Feature.MQ
    | Feature.GUEST_ANNOUNCE
    | Feature.CSUM
    | Feature.GUEST_CSUM
)
_V42 = (
    ProtocolFeature.MQ
    | ProtocolFeature.CONFIGURE_MEM_SLOTS
    | ProtocolFeature.REPLY_ACK
    | ProtocolFeature.INFLIGHT_SHMFD
    | ProtocolFeature.LOG_SHMFD
)
PAGE_BITS = 4096 * 8


@dataclass(frozen=True)
class Version:
    """protocol: what it offers to speak.  log_answer_bytes: payload it expects for SET_LOG_BASE."""

    name: str
    protocol: int
    log_answer_bytes: int


V42 = Version("v42", int(_V42), 8)
V52 = Version("v52", int(_V42 | ProtocolFeature.DEVICE_STATE), 16)
MAIN = Version("main", int(_V42 | ProtocolFeature.DEVICE_STATE | ProtocolFeature.CONFIG), 16)


class CloudHypervisor(FrontEnd):
    """A front-end whose driver side is FrontEnd's: post(), transmit(), frames()."""

    version = V42
    _asks = False  # NEED_REPLY on every message, from SET_PROTOCOL_FEATURES on

    def do(self, request: Request, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """A message without an answer of its own; the acknowledgement must be 8 bytes of zero."""
        flags = m.VERSION | (m.FLAG_NEED_REPLY if self._asks else 0)
        self.send(request, payload, fds, flags)
        if self._asks:
            assert self.receive() == (request, bytes(8)), request.name

    def get(self, request: Request, payload: bytes = b"", fds: Sequence[int] = ()) -> bytes:
        """A message with an answer; it, too, says NEED_REPLY, and there is one answer, not two."""
        flags = m.VERSION | (m.FLAG_NEED_REPLY if self._asks else 0)
        self.send(request, payload, fds, flags)
        answered, answer = self.receive()
        assert answered == request
        return answer

    # ---- negotiate_features_vhost_user()

    def meet(self, version: Version) -> None:
        self.version = version
        self.do(Request.SET_OWNER)
        offered = m.U64.unpack(self.get(Request.GET_FEATURES))[0]
        self.features = int(FEATURES | Feature.LOG_ALL) & offered
        known = m.U64.unpack(self.get(Request.GET_PROTOCOL_FEATURES))[0]
        self.protocol_features = version.protocol & known
        self.do(Request.SET_PROTOCOL_FEATURES, m.U64.pack(self.protocol_features))
        self._asks = bool(self.protocol_features & ProtocolFeature.REPLY_ACK)
        # What the device has is acknowledged by the driver later, and LOG_ALL only for a move.
        self.features &= ~Feature.LOG_ALL
        if self.protocol_features & ProtocolFeature.CONFIG:
            size = m.NET_CONFIG.size
            answer = self.get(Request.GET_CONFIG, m.CONFIG_HEADER.pack(0, size, 1) + bytes(size))
            assert answer[:12] == m.CONFIG_HEADER.pack(0, size, 1)
            assert len(answer) == 12 + size

    def meet_again(self) -> None:
        """set_protocol_features_vhost_user(): after a reconnect it knows what was agreed upon."""
        self._asks = False
        self.do(Request.SET_OWNER)
        self.get(Request.GET_FEATURES)
        self.do(Request.SET_PROTOCOL_FEATURES, m.U64.pack(self.protocol_features))
        self._asks = True

    # ---- setup_vhost_user()

    def set_up(self) -> None:
        """All queues at once; an existing ring goes on, as after a reconnect."""
        self.do(Request.SET_FEATURES, m.U64.pack(self.features))
        self._memory_table()
        for index in (0, 1):
            if index not in self.rings:
                self.rings[index] = Ring(self.ram, self.ring_size)
            self.do(Request.SET_VRING_NUM, m.VRING_STATE.pack(index, self.rings[index].num))
        for index, ring in self.rings.items():
            self.do(Request.SET_VRING_ADDR, self._addresses(index, ring, is_logged=False))
            # The available index, which skips what was never finished (5b68d7694 mends IN_ORDER).
            self.do(Request.SET_VRING_BASE, m.VRING_STATE.pack(index, ring.avail_idx))
            self.do(Request.SET_VRING_CALL, m.U64.pack(index), [ring.call])
            self.do(Request.SET_VRING_KICK, m.U64.pack(index), [ring.kick])
        self.enable(True)

    def enable(self, is_on: bool) -> None:
        """pause_vhost_user(), resume_vhost_user()."""
        for index in self.rings:
            self.do(Request.SET_VRING_ENABLE, m.VRING_STATE.pack(index, int(is_on)))

    def reset(self) -> None:
        """reset_vhost_user(): the answers to GET_VRING_BASE are thrown away."""
        for index in self.rings:
            self.do(Request.SET_VRING_ENABLE, m.VRING_STATE.pack(index, 0))
            assert len(self.get(Request.GET_VRING_BASE, m.VRING_STATE.pack(index, 0))) == 8

    def hotplug(self, gpa: int, size: int, fd: int) -> None:
        """add_memory_region()"""
        self.do(Request.ADD_MEM_REG, m.MEMORY_SLOT.pack(0, gpa, size, gpa, 0), [fd])

    # ---- migration

    def start_log(self) -> int:
        """start_dirty_log(); returns the log's descriptor, which the caller closes."""
        fd = self.next_log()
        self.do(Request.SET_FEATURES, m.U64.pack(self.features | Feature.LOG_ALL))
        for index, ring in self.rings.items():
            self.do(Request.SET_VRING_ADDR, self._addresses(index, ring, is_logged=True))
        return fd

    def next_log(self) -> int:
        """dirty_log(): each round has a file of its own, of whole bytes and not of whole pages."""
        last = max(region.gpa + region.size for region in self.ram.regions) - 1
        size = last // PAGE_BITS + 1
        fd = os.memfd_create("vhost_user_dirty_log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        payload = m.LOG.pack(size, 0)
        answer = self.get(Request.SET_LOG_BASE, payload, [fd])
        assert answer == (bytes(8) if self.version.log_answer_bytes == 8 else payload)
        return fd

    def stop_log(self) -> None:
        """stop_dirty_log(): rings first, then the feature."""
        for index, ring in self.rings.items():
            self.do(Request.SET_VRING_ADDR, self._addresses(index, ring, is_logged=False))
        self.do(Request.SET_FEATURES, m.U64.pack(self.features))

    def _memory_table(self) -> None:
        regions = self.ram.regions
        payload = m.MEMORY_HEADER.pack(len(regions), 0)
        for r in regions:
            payload += m.MEMORY_REGION.pack(r.gpa, r.size, r.user, r.offset)
        self.do(Request.SET_MEM_TABLE, payload, [r.fd for r in regions])

    def _addresses(self, index: int, ring: Ring, *, is_logged: bool) -> bytes:
        users = [self.ram.user(gpa) for gpa in (ring.desc, ring.used, ring.avail)]
        return m.VRING_ADDR.pack(index, int(is_logged), *users, ring.used if is_logged else 0)


def connect(pump: Callable[[], None], path: str, version: Version) -> CloudHypervisor:
    """A VM that has come up to the state in which its guest runs."""
    front = CloudHypervisor(pump)
    front.connect(path)
    front.meet(version)
    front.set_up()
    return front
